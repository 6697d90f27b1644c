"""The wire protocols: one small router each, with no logic beyond translating to and from the predictor."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Header, Request, Response
from pydantic import Field, WithJsonSchema

from service.errors import NotReady
from service.fleet import Fleet
from service.predictor import Answer, Predictor
from service.settings import ServiceSettings


def predictor(request: Request) -> Predictor:
    """The app's predictor, as a FastAPI dependency."""
    return cast(Predictor, request.app.state.predictor)


def settings(request: Request) -> ServiceSettings:
    """The app's settings, as a FastAPI dependency."""
    return cast(ServiceSettings, request.app.state.settings)


def check_ready(request: Request) -> None:
    """:raises NotReady: while models are loading, or the server is about to stop."""
    if request.app.state.stopping:
        raise NotReady("the server is stopping.")
    if not predictor(request).started:
        raise NotReady("models are being loaded.")
    if not predictor(request).models:
        raise NotReady("every model was unloaded.")


async def check_all_ready(request: Request) -> None:
    """:raises NotReady: if this worker or another one is not: the kernel may give a connection to any."""
    check_ready(request)
    fleet: Fleet = request.app.state.fleet
    if not all(await fleet.ask("ready")):
        raise NotReady("another worker is not ready.")


_TIMEOUT_MS = {"type": "integer", "minimum": 1, "maximum": 86_400_000}
# A client's own deadline for one request. It may be left out, but `null` is no value of a header.
TimeoutHeader = Annotated[
    Annotated[int | None, Field(ge=1, le=86_400_000), WithJsonSchema(_TIMEOUT_MS)],
    Header(alias="x-request-timeout-ms", description="milliseconds; then 504, without the work"),
]


def seconds(timeout_ms: int | None) -> float | None:
    return None if timeout_ms is None else timeout_ms / 1000


def describe(answer: Answer, response: Response) -> None:
    """Say in the headers which bundle answered and where the time went, in milliseconds."""
    response.headers["x-model-version"] = answer.manifest.version
    response.headers["x-model-digest"] = answer.digest
    response.headers["x-queue-time"] = f"{answer.queued * 1000:.3f}"
    response.headers["x-tokenization-time"] = f"{answer.tokenized * 1000:.3f}"
    response.headers["x-inference-time"] = f"{answer.inferred * 1000:.3f}"
