"""The wire protocols: one small router each, with no logic beyond translating to and from the predictor."""

from __future__ import annotations

import codecs
from typing import Any, TypeVar, cast

from fastapi import FastAPI, Request
from pydantic import BaseModel, BeforeValidator, ValidationError

from service.context import header
from service.errors import InvalidRequest, Malformed, NotReady
from service.fleet import Fleet
from service.predictor import Answer, Predictor
from service.protocols.values import MOST_VALUES, check_values
from service.settings import ServiceSettings

Body = TypeVar("Body", bound=BaseModel)


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("this is no number")
    return value


# Of an int: what JSON Schema calls one, which 2.0 is, and neither true nor "2".
AS_DESCRIBED = BeforeValidator(_number)


# FastAPI runs dependencies that are not coroutines on a thread of their own: two hops for reading an attribute.
async def predictor(request: Request) -> Predictor:
    """The app's predictor, as a FastAPI dependency."""
    return cast(Predictor, request.app.state.predictor)


async def settings(request: Request) -> ServiceSettings:
    """The app's settings, as a FastAPI dependency."""
    return cast(ServiceSettings, request.app.state.settings)


def why_not_ready(app: FastAPI) -> str | None:
    """What keeps this worker from answering predictions."""
    predictor: Predictor = app.state.predictor
    if app.state.stopping:
        return "the server is stopping."
    if not predictor.started:
        return "models are being loaded."
    return None if predictor.models else "every model was unloaded."


def check_ready(request: Request) -> None:
    """:raises NotReady: while models are loading, or the server is about to stop."""
    if reason := why_not_ready(request.app):
        raise NotReady(reason)


async def check_all_ready(request: Request) -> None:
    """:raises NotReady: if this worker or another one is not: the kernel may give a connection to any."""
    check_ready(request)
    if not await others_ready(request.app):
        raise NotReady("another worker is not ready.")


async def others_ready(app: FastAPI) -> bool:
    """Whether every other worker can answer. :raises NotReady: if one does not say."""
    fleet: Fleet = app.state.fleet
    return all(await fleet.ask("ready"))


_TIMEOUT = "x-request-timeout-ms"
_LONGEST_TIMEOUT = 86_400_000


def within(request: Request) -> float | None:
    """Seconds that the client gives its request. :raises InvalidRequest: if it gives something else."""
    given = header(request.scope, _TIMEOUT.encode())
    if given is None:
        return None
    digits = given.isascii() and given.isdigit() and len(given) <= len(str(_LONGEST_TIMEOUT))
    if not digits or not 1 <= int(given) <= _LONGEST_TIMEOUT:
        raise InvalidRequest(f"{_TIMEOUT} is {given[:20]!r}; give whole milliseconds, 1 to {_LONGEST_TIMEOUT}.")
    return int(given) / 1000


def most_values(request: Request) -> int:
    """What a body may hold where each of its texts may stand in a list of its own."""
    settings: ServiceSettings = request.app.state.settings
    return max(MOST_VALUES, 4 * settings.max_items)


def parse(model: type[Body], content: bytes, most: int = MOST_VALUES) -> Body:
    """A JSON body as ``model``.

    Routes that answer read their bodies by this, without FastAPI's own reading, which costs as much as all the rest
    of the way; :func:`documented` tells OpenAPI about them.

    :param most: values that it may hold, see :mod:`service.protocols.values`.
    :raises Malformed: if it is not JSON. :raises InvalidRequest: naming the field.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    check_values(content, most)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] == "json_invalid":
            raise Malformed(f"the body is not valid JSON: {problem['ctx']['error']}.") from error
        where = shown(".".join(map(str, problem["loc"]))) or "the body"
        raise InvalidRequest(f"{where}: {problem['msg']}.") from error


def shown(given: object, most: int = 100) -> str:
    """What a client sent, for an error that names it: not more of it than a line."""
    text = given if isinstance(given, str) else type(given).__name__ if isinstance(given, list | dict) else str(given)
    return text if len(text) <= most else f"{text[:most]}…"


def documented(model: type[BaseModel], *, optional: bool = False, timed: bool = True) -> dict[str, Any]:
    """What OpenAPI is to know of a route that reads its body by itself, and the time it is given if it is ``timed``."""
    schema = model.model_json_schema()
    whole = _inlined(schema, schema.get("$defs", {}))
    if optional:
        whole = {"anyOf": [whole, {"type": "null"}]}
    timeout = {
        "name": _TIMEOUT,
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": _LONGEST_TIMEOUT},
        "description": "milliseconds; then 504, without the work",
    }
    return {
        "requestBody": {"required": not optional, "content": {"application/json": {"schema": whole}}},
        "parameters": [timeout] if timed else [],
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema with its references replaced by what they refer to."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}


def described(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Headers, as ASGI has them, that say which bundle answered and where the time went, in milliseconds."""
    return [
        (b"x-model-version", answer.manifest.version.encode()),
        (b"x-model-digest", answer.digest.encode()),
        (b"x-queue-time", b"%.3f" % (answer.queued * 1000)),
        (b"x-tokenization-time", b"%.3f" % (answer.tokenized * 1000)),
        (b"x-inference-time", b"%.3f" % (answer.inferred * 1000)),
    ]
