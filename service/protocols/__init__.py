"""The wire protocols: one small router each, with no logic beyond translating to and from the predictor."""

from __future__ import annotations

from typing import cast

from fastapi import Request, Response

from service.predictor import Answer, Predictor
from service.settings import ServiceSettings


def predictor(request: Request) -> Predictor:
    """The app's predictor, as a FastAPI dependency."""
    return cast(Predictor, request.app.state.predictor)


def settings(request: Request) -> ServiceSettings:
    """The app's settings, as a FastAPI dependency."""
    return cast(ServiceSettings, request.app.state.settings)


def describe(answer: Answer, response: Response) -> None:
    """Say in the headers which bundle answered and where the time went, in milliseconds."""
    response.headers["x-model-version"] = answer.manifest.version
    response.headers["x-model-digest"] = answer.digest
    response.headers["x-queue-time"] = f"{answer.queued * 1000:.3f}"
    response.headers["x-tokenization-time"] = f"{answer.tokenized * 1000:.3f}"
    response.headers["x-inference-time"] = f"{answer.inferred * 1000:.3f}"
