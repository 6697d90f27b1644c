"""The application: FastAPI with all routes, behind what every request meets first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.contract.errors import PlumblineError
from service.contract.redact import BUILT_IN, Redactor, read_rules
from service.engine import shares_core
from service.http.access import Access
from service.http.admission import Admission
from service.http.error_handlers import add_error_handlers
from service.http.hosts import Hosts, is_loopback
from service.http.keys import Keys
from service.http.lifespan import Lifespan
from service.http.middleware import Dispatch, RequestMiddleware
from service.http.outer import behind
from service.http.route_table import Matched, RouteTable
from service.http.routes import ROUTERS
from service.http.state import ServerState
from service.log.upload import open_store
from service.models.loaded import LoadedModel, Resources, load
from service.models.predictor import Predictor
from service.models.watcher import RepositoryWatcher
from service.settings import ServiceSettings, digests
from service.telemetry.metrics import Metrics
from service.workers.fleet import Fleet

if TYPE_CHECKING:
    from service.http.tracing import Tracing

logger = logging.getLogger(__name__)


class Error(BaseModel):
    """The body of every answer that is not a success."""

    error: str
    code: str


_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 403, 404, 409, 413, 415, 421, 422, 429, 500, 503, 504)
}


@dataclass(frozen=True)
class Application:
    """What uvicorn runs.

    :param api: knows all routes and describes them.
    :param front: what every request goes through, down to ``api``.
    """

    api: FastAPI
    state: ServerState
    front: ASGIApp
    tracing: Tracing | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)


def create_app(
    settings: ServiceSettings,
    on_failure: Callable[[PlumblineError], None] | None = None,
    on_ready: Callable[[], None] = lambda: None,
    tracing: Tracing | None = None,
    fleet: Fleet | None = None,
) -> Application:
    """The service over one model repository.

    Models load in the background after start-up, so probes answer from the first moment.

    :raises SettingsError: if the file of redaction rules or the URL to copy the log to cannot be used.
    :param on_failure: called if the repository holds nothing that can be served; default logs only.
    :param on_ready: called once every live model was loaded.
    """
    metrics = Metrics()
    predictor = Predictor(
        metrics,
        max_items=settings.max_items,
        timeout=settings.request_timeout_seconds,
        on_answer=tracing.answered if tracing is not None else lambda answer: None,
    )
    state = ServerState(settings, metrics, fleet or Fleet(), predictor, _watcher(settings, predictor, metrics))
    lifespan = Lifespan(
        state,
        redact=Redactor([*BUILT_IN, *(read_rules(settings.redact_rules) if settings.redact_rules is not None else [])]),
        upload_to=open_store(settings.log_upload) if settings.log_upload is not None else None,
        tracing=tracing,
        on_failure=on_failure,
        on_ready=on_ready,
    )
    api = FastAPI(
        title="Plumbline",
        version=__version__,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        lifespan=lifespan,
        openapi_url=None,  # written anew for each request
        docs_url=None,  # they need scripts of another host; ours does not
        redoc_url=None,
        strict_content_type=False,  # Triton's client sends JSON without saying so
        responses=_RESPONSES,
    )
    api.state.server = state
    for router in ROUTERS:
        api.include_router(router)
    routes = RouteTable(route for router in ROUTERS for route in router.routes)
    add_error_handlers(api, routes)
    keys = Keys(digests(settings.api_keys), digests(settings.admin_keys))
    if not keys.required and not is_loopback(settings.host):
        logger.warning("anyone who reaches %s may use this server: no keys are configured", settings.host)
    front: ASGIApp = RequestMiddleware(
        Dispatch(api),
        metrics=metrics,
        find=routes.find,
        access=Access(keys, Hosts(settings.host, settings.trusted_hosts, settings.cors_origins)),
        admit=Admission(predictor),
        max_body_bytes=settings.max_body_bytes,
        model_of=partial(_model_of, predictor),
        stopping=lambda: state.stopping,
        log_requests=settings.log_requests,
    )
    if tracing is not None:
        front = tracing.wrap(front, quiet=lambda method, path: routes.find(method, path).policy.quiet)
    return Application(api, state, behind(front, settings), tracing)


def _watcher(settings: ServiceSettings, predictor: Predictor, metrics: Metrics) -> RepositoryWatcher:
    resources = Resources(
        device=settings.device,
        threads=settings.threads,
        batch_tokens=settings.batch_tokens,
        queue_tokens=settings.queue_tokens,
        shares_core=shares_core(settings.workers),
        cuda_graphs=settings.cuda_graphs,
    )

    def load_shadow(path: Path) -> LoadedModel:
        """A version that takes only what others leave of the processor, and whose batches are not in the metrics."""
        return load(path, replace(resources, threads=1, low_priority=True), Metrics())

    return RepositoryWatcher(
        settings.repo,
        predictor,
        metrics,
        partial(load, resources=resources, metrics=metrics),
        load_shadow,
        settings.poll_seconds,
    )


def _model_of(predictor: Predictor, matched: Matched) -> str:
    """The model that a request is for, by the name in its path or else the default; empty if it is for none here."""
    wanted = matched.parameters.get("name") or (predictor.default if matched.policy.predicts else None) or ""
    return wanted if wanted in predictor.models else ""
