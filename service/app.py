"""The FastAPI application: wires the parts together and maps errors to responses."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.added import as_plain
from service.admission import DEFAULT, Admission
from service.contract.errors import PlumblineError
from service.contract.redact import BUILT_IN, Redactor, read_rules
from service.contract.repository import first_model
from service.engine import shares_core
from service.errors import as_response, response_to
from service.fleet import Fleet
from service.front import behind
from service.guard import Guard
from service.hosts import Hosts, is_loopback
from service.keys import Keys
from service.live import LiveModel, Resources, load
from service.metrics import Metrics
from service.middleware import RequestMiddleware, Shortcut
from service.predictor import Predictor
from service.protocols import (
    feedback,
    interface,
    kserve,
    oip,
    predict,
    probes,
    repository,
    sagemaker,
    status,
    tei,
    why_not_ready,
)
from service.recorder import Recorder, as_logged
from service.repository import RepositoryWatcher
from service.settings import ServiceSettings, digests
from service.upload import Store, Uploader, open_store

if TYPE_CHECKING:
    from service.tracing import Tracing

logger = logging.getLogger(__name__)

_LAST_UPLOADS = 10.0  # seconds at the end of the process for copying what was sealed last


class _Application(FastAPI):
    """FastAPI behind what every request meets first; the busiest ones need not pass FastAPI's own layers at all."""

    front: ASGIApp

    def build_middleware_stack(self) -> ASGIApp:
        """Without Starlette's answer to what nothing expected: the front has one of its own."""
        outermost = super().build_middleware_stack()
        return outermost.app if isinstance(outermost, ServerErrorMiddleware) else outermost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)

    @cached_property
    def patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """What the paths of each route look like."""
        return [(compile_path(path)[0], path) for path in self.openapi()["paths"]]

    def routes_by_path(self, path: str) -> str:
        """The route of a path; empty if there is none."""
        return next((route for pattern, route in self.patterns if pattern.fullmatch(path)), "")


class Error(BaseModel):
    """The body of every answer that is not a success."""

    error: str
    code: str


_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 403, 404, 409, 413, 415, 421, 422, 429, 500, 503, 504)
}


def create_app(
    settings: ServiceSettings,
    on_failure: Callable[[PlumblineError], None] | None = None,
    on_ready: Callable[[], None] = lambda: None,
    tracing: Tracing | None = None,
    fleet: Fleet | None = None,
) -> FastAPI:
    """The service over one model repository.

    Models load in the background after start-up, so probes answer from the first moment.

    :raises SettingsError: if the file of redaction rules or the URL to copy the log to cannot be used.
    :param on_failure: called if the repository holds nothing that can be served; default logs only.
    :param on_ready: called once every live model was loaded.
    """
    metrics = Metrics()
    # Triton's client sends JSON without saying so.
    app = _Application(
        title="Plumbline",
        version=__version__,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        lifespan=_lifespan,
        openapi_url=None,  # written anew for each request
        docs_url=None,  # they need scripts of another host; ours does not
        redoc_url=None,
        strict_content_type=False,
        responses=_RESPONSES,
    )
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.on_failure = on_failure
    app.state.on_ready = on_ready
    app.state.tracing = tracing
    app.state.fleet = fleet or Fleet()
    app.state.stopping = False
    rules = read_rules(settings.redact_rules) if settings.redact_rules is not None else []
    app.state.redact = Redactor([*BUILT_IN, *rules])
    app.state.upload_to = open_store(settings.log_upload) if settings.log_upload is not None else None
    keys = Keys(digests(settings.api_keys), digests(settings.admin_keys))
    app.front = RequestMiddleware(
        Shortcut(app, super(_Application, app).__call__, predict.HANDLERS),
        metrics=metrics,
        guard=Guard(keys, Hosts(settings.host, settings.trusted_hosts, settings.cors_origins)),
        admit=Admission(lambda: app.state.predictor),
        max_body_bytes=settings.max_body_bytes,
        model_of=partial(_model_of, app),
        route_for=app.routes_by_path,
        stopping=lambda: bool(app.state.stopping),
        log_requests=settings.log_requests,
    )
    if tracing is not None:
        app.front = tracing.wrap(app.front)
    app.front = behind(app.front, settings)
    if not keys.required and not is_loopback(settings.host):
        logger.warning("anyone who reaches %s may use this server: no keys are configured", settings.host)
    # Routes are tried in this order, so the busy ones stand first.
    for protocol in (predict, oip, feedback, kserve, tei, sagemaker, probes, status, interface, repository):
        app.include_router(protocol.router)
    for protocol_with_probes in (oip, tei, sagemaker):
        app.include_router(protocol_with_probes.health)
    app.add_exception_handler(PlumblineError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    return app


@asynccontextmanager
async def _lifespan(app: _Application) -> AsyncIterator[None]:
    settings: ServiceSettings = app.state.settings
    metrics: Metrics = app.state.metrics
    await asyncio.to_thread(lambda: app.patterns)  # describing all routes would hold up the first request that asks
    recorder = (
        await asyncio.to_thread(_recorder, settings, metrics, app.state.redact) if settings.log is not None else None
    )
    uploader = _uploader(settings, metrics, app.state.upload_to) if app.state.upload_to is not None else None
    tracing: Tracing | None = app.state.tracing
    predictor = Predictor(
        metrics,
        recorder,
        max_items=settings.max_items,
        timeout=settings.request_timeout_seconds,
        on_answer=tracing.answered if tracing is not None else lambda answer: None,
    )
    app.state.predictor = predictor
    resources = Resources(
        device=settings.device,
        threads=settings.threads,
        batch_tokens=settings.batch_tokens,
        queue_tokens=settings.queue_tokens,
        shares_core=shares_core(settings.workers),
        cuda_graphs=settings.cuda_graphs,
    )
    watcher = RepositoryWatcher(
        settings.repo,
        predictor,
        metrics,
        partial(load, resources=resources, metrics=metrics),
        partial(_load_shadow, resources=resources),
        settings.poll_seconds,
    )
    app.state.watcher = watcher
    await app.state.fleet.listen(partial(_answer, app))
    following = asyncio.create_task(_follow(app, watcher))
    try:
        yield
    finally:
        await app.state.fleet.close()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await watcher.close()
        metrics.deferred.settle()
        if recorder is not None:
            await asyncio.to_thread(recorder.close)
        if uploader is not None:
            await asyncio.to_thread(uploader.close, _LAST_UPLOADS)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


def _load_shadow(path: Path, resources: Resources) -> LiveModel:
    """A version that takes only what others leave of the processor, and whose batches are not in the metrics."""
    return load(path, replace(resources, threads=1, aside=True), Metrics())


async def _follow(app: FastAPI, watcher: RepositoryWatcher) -> None:
    try:
        settings: ServiceSettings = app.state.settings
        predictor: Predictor = app.state.predictor
        predictor.default = settings.model or await asyncio.to_thread(first_model, settings.repo)
        await watcher.start(settings.model)
    except Exception as error:
        expected = isinstance(error, PlumblineError)
        logger.error("nothing can be served: %s", error, exc_info=None if expected else error)
        if app.state.on_failure is not None:
            app.state.on_failure(error if isinstance(error, PlumblineError) else PlumblineError(str(error)))
        return
    app.state.on_ready()
    await watcher.follow()


async def _answer(app: FastAPI, question: str, argument: Any) -> Any:
    """What this worker says to another one."""
    predictor: Predictor = app.state.predictor
    match question:
        case "metrics":
            return as_plain(app.state.metrics.registry.collect())
        case "ready":
            return why_not_ready(app) is None
        case "prediction":
            return predictor.remembered(argument)
        case "load":
            return await app.state.watcher.load(argument)
        case "unload":
            return await app.state.watcher.unload(argument)
    raise PlumblineError(f"a worker does not know the question {question!r}.")


def _model_of(app: FastAPI, route: str, named: str | None) -> str:
    """The model that a request is for, by the name in its path or else the default; empty if it is for none here."""
    predictor: Predictor = app.state.predictor
    wanted = named or (predictor.default if route in DEFAULT else None) or ""
    return wanted if wanted in predictor.models else ""


def _recorder(settings: ServiceSettings, metrics: Metrics, redact: Redactor) -> Recorder:
    assert settings.log is not None
    return Recorder(
        settings.log,
        queue=settings.log_queue,
        fsync_seconds=settings.log_fsync_seconds,
        seal_seconds=settings.log_seal_seconds,
        seal_bytes=settings.log_seal_bytes,
        quota_bytes=settings.log_quota_bytes,
        sample=settings.log_sample,
        prepare=lambda record: as_logged(record, settings.log_text, redact),
        on_written=lambda model, count: metrics.records.labels(model).inc(count),
        on_left_out=lambda model: metrics.records_left_out.labels(model).inc(),
        on_dropped=lambda model, reason, count: metrics.records_dropped.labels(model, reason).inc(count),
    )


def _uploader(settings: ServiceSettings, metrics: Metrics, store: Store) -> Uploader:
    assert settings.log is not None
    return Uploader(
        settings.log,
        store,
        every=settings.log_upload_seconds,
        on_result=lambda model, worked: metrics.uploads.labels(model, "uploaded" if worked else "failed").inc(),
        on_pending=metrics.uploads_pending.set,
    )


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlumblineError)
    return response_to(error)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return as_response(400, "malformed", f"the body is not valid JSON: {problem['ctx']['error']}.")
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "the body"
    return as_response(422, "invalid_request", f"{where}: {problem['msg']}.")


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {400: "malformed", 404: "not_found", 405: "method_not_allowed"}
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The router names the methods of the first route with this path only.
        path = request.app.openapi()["paths"].get(getattr(request.scope.get("route"), "path", ""), {})
        headers = {"allow": ", ".join(sorted(method.upper() for method in path))} if path else headers
    return as_response(error.status_code, codes.get(error.status_code, "http"), f"{error.detail}.", headers)
