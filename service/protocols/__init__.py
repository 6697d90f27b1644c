"""The wire protocols: one small router each, with no logic beyond translating to and from the predictor."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Header, Request

from service.errors import NotReady
from service.predictor import Answer, Predictor
from service.settings import ServiceSettings


# FastAPI runs dependencies that are not coroutines on a thread of their own: two hops for reading an attribute.
async def predictor(request: Request) -> Predictor:
    """The app's predictor, as a FastAPI dependency."""
    return cast(Predictor, request.app.state.predictor)


async def settings(request: Request) -> ServiceSettings:
    """The app's settings, as a FastAPI dependency."""
    return cast(ServiceSettings, request.app.state.settings)


def check_ready(request: Request) -> None:
    """:raises NotReady: while models are loading, or the server is about to stop."""
    predictor: Predictor = request.app.state.predictor
    if request.app.state.stopping:
        raise NotReady("the server is stopping.")
    if not predictor.started:
        raise NotReady("models are being loaded.")
    if not predictor.models:
        raise NotReady("every model was unloaded.")


# A client's own deadline for one request.
TimeoutHeader = Annotated[
    int | None,
    Header(alias="x-request-timeout-ms", ge=1, le=86_400_000, description="milliseconds; then 504, without the work"),
]


def seconds(timeout_ms: int | None) -> float | None:
    return None if timeout_ms is None else timeout_ms / 1000


def described(answer: Answer) -> dict[str, str]:
    """Headers that say which bundle answered and where the time went, in milliseconds."""
    return {
        "x-model-version": answer.manifest.version,
        "x-model-digest": answer.digest,
        "x-queue-time": f"{answer.queued * 1000:.3f}",
        "x-tokenization-time": f"{answer.tokenized * 1000:.3f}",
        "x-inference-time": f"{answer.inferred * 1000:.3f}",
    }
