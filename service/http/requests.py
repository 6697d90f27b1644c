"""What the routes do alike: reading bodies and headers, describing both to OpenAPI, the headers of an answer."""

from __future__ import annotations

import codecs
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ValidationError

from service.errors import InvalidRequest, Malformed
from service.http.json_limits import MOST_VALUES, check_values
from service.http.state import state_of
from service.models.predictor import Answer
from service.telemetry.context import header

Body = TypeVar("Body", bound=BaseModel)


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("this is no number")
    return value


# Of an int: what JSON Schema calls one, which 2.0 is, and neither true nor "2".
AS_DESCRIBED = BeforeValidator(_number)


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
    return max(MOST_VALUES, 4 * state_of(request).settings.max_items)


def parse(model: type[Body], content: bytes, most: int = MOST_VALUES) -> Body:
    """A JSON body as ``model``.

    Routes that answer read their bodies by this, without FastAPI's own reading, which costs as much as all the rest
    of the way; :func:`documented` tells OpenAPI about them.

    :param most: values that it may hold, see :mod:`service.http.json_limits`.
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


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Headers, as ASGI has them, that say which bundle answered and where the time went, in milliseconds."""
    return [
        (b"x-model-version", answer.manifest.version.encode()),
        (b"x-model-digest", answer.digest.encode()),
        (b"x-queue-time", b"%.3f" % (answer.queued * 1000)),
        (b"x-tokenization-time", b"%.3f" % (answer.tokenized * 1000)),
        (b"x-inference-time", b"%.3f" % (answer.inferred * 1000)),
    ]
