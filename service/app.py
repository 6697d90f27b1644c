"""The FastAPI application: wires the parts together and maps errors to responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from service import __version__
from service.admission import Admission
from service.contract.errors import InvalidInput, PlumblineError
from service.contract.redact import BUILT_IN, Redactor, read_rules
from service.errors import RequestError
from service.keys import Keys, for_administration, for_predictions
from service.live import load
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.predictor import Predictor
from service.protocols import feedback, oip, predict, probes, repository, status
from service.recorder import Recorder, as_logged
from service.repository import RepositoryWatcher
from service.settings import ServiceSettings, digests

logger = logging.getLogger(__name__)


class Error(BaseModel):
    """The body of every answer that is not a success."""

    error: str
    code: str


_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 403, 404, 413, 422, 429, 500, 503, 504)
}


def create_app(settings: ServiceSettings, on_failure: Callable[[PlumblineError], None] | None = None) -> FastAPI:
    """The service over one model repository.

    Models load in the background after start-up, so probes answer from the first moment.

    :raises SettingsError: if the file of redaction rules cannot be used.
    :param on_failure: called if the repository holds nothing that can be served; default logs only.
    """
    metrics = Metrics()
    # Triton's client sends JSON without saying so.
    app = FastAPI(
        title="Plumbline", version=__version__, lifespan=_lifespan, strict_content_type=False, responses=_RESPONSES
    )
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.on_failure = on_failure
    app.state.stopping = False
    rules = read_rules(settings.redact_rules) if settings.redact_rules is not None else []
    app.state.redact = Redactor([*BUILT_IN, *rules])
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        admit=Admission(lambda: app.state.predictor, settings.model),
        max_body_bytes=settings.max_body_bytes,
        model_of=lambda named: _model_of(app, named),
        stopping=lambda: bool(app.state.stopping),
    )
    app.state.keys = keys = Keys(digests(settings.api_keys), digests(settings.admin_keys))
    if not keys.required and settings.host not in ("127.0.0.1", "::1", "localhost"):
        logger.warning("anyone who reaches %s may use this server: no keys are configured", settings.host)
    for protocol in (predict, oip, feedback):  # routes are tried in this order, so the busy ones stand first
        app.include_router(protocol.router, dependencies=[Depends(for_predictions)])
    app.include_router(probes.router)
    app.include_router(status.router)
    app.include_router(oip.health)
    app.include_router(repository.router, dependencies=[Depends(for_administration)])
    app.add_exception_handler(PlumblineError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ServiceSettings = app.state.settings
    metrics: Metrics = app.state.metrics
    recorder = (
        await asyncio.to_thread(_recorder, settings, metrics, app.state.redact) if settings.log is not None else None
    )
    predictor = Predictor(metrics, recorder, max_items=settings.max_items, timeout=settings.request_timeout_seconds)
    app.state.predictor = predictor
    make = partial(
        load,
        device=settings.device,
        threads=settings.threads,
        batch_tokens=settings.batch_tokens,
        queue_tokens=settings.queue_tokens,
        metrics=metrics,
    )
    watcher = RepositoryWatcher(settings.repo, predictor, metrics, make, settings.poll_seconds)
    app.state.watcher = watcher
    following = asyncio.create_task(_follow(app, watcher))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await watcher.close()
        if recorder is not None:
            await asyncio.to_thread(recorder.close)


async def _follow(app: FastAPI, watcher: RepositoryWatcher) -> None:
    try:
        await watcher.start()
        wanted: ServiceSettings = app.state.settings
        if wanted.model is not None and wanted.model not in app.state.predictor.models:
            raise InvalidInput(f"--model {wanted.model!r} is not live in {wanted.repo}.")
    except Exception as error:
        expected = isinstance(error, PlumblineError)
        logger.error("nothing can be served: %s", error, exc_info=None if expected else error)
        if app.state.on_failure is not None:
            app.state.on_failure(error if isinstance(error, PlumblineError) else PlumblineError(str(error)))
        return
    await watcher.follow()


def _model_of(app: FastAPI, named: str | None) -> str:
    """The model that a request is for, by the name in its path or else the default; empty if it is not served."""
    models = app.state.predictor.models
    wanted = named or app.state.settings.model or (next(iter(models)) if len(models) == 1 else "")
    return wanted if wanted in models else ""


def _recorder(settings: ServiceSettings, metrics: Metrics, redact: Redactor) -> Recorder:
    assert settings.log is not None
    return Recorder(
        settings.log,
        queue=settings.log_queue,
        fsync_seconds=settings.log_fsync_seconds,
        seal_seconds=settings.log_seal_seconds,
        seal_bytes=settings.log_seal_bytes,
        quota_bytes=settings.log_quota_bytes,
        prepare=lambda record: as_logged(record, settings.log_text, redact),
        on_written=lambda model, count: metrics.records.labels(model).inc(count),
        on_dropped=lambda model, reason, count: metrics.records_dropped.labels(model, reason).inc(count),
    )


def _respond(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    printable = message.encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"error": printable, "code": code}, status, headers)


def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PlumblineError)
    if not isinstance(error, RequestError):
        logger.error("request failed: %s", error)
        return _respond(500, error.code, str(error))
    return _respond(error.status, error.code, str(error), error.headers)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return _respond(400, "malformed", f"the body is not valid JSON: {problem['ctx']['error']}.")
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "the body"
    return _respond(422, "invalid_request", f"{where}: {problem['msg']}.")


def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {400: "malformed", 404: "not_found", 405: "method_not_allowed"}
    return _respond(
        error.status_code, codes.get(error.status_code, "http"), f"{error.detail}.", dict(error.headers or {})
    )
