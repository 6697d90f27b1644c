"""Runs the application under uvicorn until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from service.contract.errors import PlumblineError, SettingsError
from service.contract.user import care_of_root, this_user
from service.engine import shares_core
from service.errors import NotReady
from service.http.announcement import ready
from service.http.app import Application, create_app
from service.http.connection import Connection
from service.http.limits import ConnectionGuard, limits
from service.http.tls import check_certificate, follow_certificate
from service.settings import ServiceSettings
from service.telemetry.context import request_id
from service.terminal.install import how_to_install
from service.terminal.logs import announce, log_to_stderr
from service.workers.fleet import Fleet
from service.workers.processes import serve_workers

if TYPE_CHECKING:
    from service.http.tracing import Tracing

logger = logging.getLogger(__name__)

_PAUSE = 0.1  # seconds between two questions whether the other workers are ready
_ACCEPTED = 8  # connections in a turn of an event loop that runs batches


def serve(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and seal the log.

    On SIGTERM readiness fails first and work goes on for ``grace_seconds``, so that load balancers can look away; each
    answer in that time closes its connection, so that no request meets a socket that is about to close.

    :raises PlumblineError: if the repository holds nothing that can be served, or the address is taken.
    """
    log_to_stderr(settings.log_format)
    if care := care_of_root():
        logger.warning("%s", care)
    if settings.log is not None:
        _check_log(settings.log)
    check_certificate(settings)
    if settings.workers > 1:
        serve_workers(settings, serve_one)
    else:
        serve_one(settings, Fleet())


def _check_log(folder: Path) -> None:
    """:raises SettingsError: if nothing can be logged there, as is tried; it would otherwise show in a metric only."""
    verb = "make"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        verb = "write"
        descriptor, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
        try:
            os.write(descriptor, b"can be written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            Path(name).unlink()
    except OSError as error:
        raise SettingsError(
            f"PLUMBLINE_LOG is {folder}, which {this_user()} cannot {verb}: {error.strerror or error}. Give a folder "
            "that it may write, mount its volume writable, make room, or unset PLUMBLINE_LOG to log nothing."
        ) from error


def serve_one(settings: ServiceSettings, fleet: Fleet, sockets: list[socket] | None = None) -> None:
    """As :func:`serve`, with this process alone; on ``sockets``, or else on the address in the settings."""
    tracing = _tracing(settings)
    log_to_stderr(settings.log_format, lambda: _known(fleet, tracing))
    failures: list[PlumblineError] = []

    def stop(error: PlumblineError) -> None:
        failures.append(error)
        server.should_exit = True

    def tell() -> None:
        if fleet.index == 1:  # one of the workers speaks for all
            telling.append(asyncio.get_running_loop().create_task(server.tell()))

    telling: list[asyncio.Task[None]] = []
    app = create_app(settings, on_failure=stop, on_ready=tell, tracing=tracing, fleet=fleet)
    config = configure(settings, app)
    accepted = _ACCEPTED if shares_core(settings.workers) and settings.unix_socket is None else 1
    server = Server(config, app, settings, accepted)

    def leave(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after a clean stop; with this handler the exit code is then 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    _spare_the_collector()
    try:
        server.run(sockets)
    except SystemExit as error:  # uvicorn's way to say that it could not listen
        where = settings.unix_socket or f"{settings.host}:{settings.port}"
        raise PlumblineError(f"cannot listen on {where}; is it taken?") from error
    if failures:
        raise failures[0]


def configure(settings: ServiceSettings, app: Application) -> uvicorn.Config:
    """uvicorn, behind the limits of the settings."""
    metrics = app.state.metrics
    door = ConnectionGuard(limits(settings), on_refused=lambda reason: metrics.rejected.labels("", reason).inc())
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        uds=str(settings.unix_socket) if settings.unix_socket is not None else None,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        http=cast(type[asyncio.Protocol], partial(Connection, door=door)),  # uvicorn calls it, and no more
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )


def _spare_the_collector() -> None:
    """Keep Python's cyclic collector off what lives as long as the process, and from running many times a second.

    Requests leave hardly any cycles behind, but they allocate enough to have everything looked through all the time:
    a quarter of what the event loop did.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(25_000, 20, 20)


def _tracing(settings: ServiceSettings) -> Tracing | None:
    """:raises SettingsError: if traces are asked for and what sends them is not installed."""
    if not settings.tracing:
        return None
    try:
        from service.http.tracing import export_traces
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"PLUMBLINE_TRACING needs the module {error.name!r}: {how_to_install('tracing')}."
        ) from error
    return export_traces()


def _known(fleet: Fleet, tracing: Tracing | None) -> dict[str, str]:
    """What is known of the work that a line of the log is about."""
    known = {"worker": str(fleet.index)} if fleet.size > 1 else {}
    if one := request_id.get():
        known["request_id"] = one
    return known | tracing.fields() if tracing is not None else known


class Server(uvicorn.Server):
    """uvicorn's server with a grace time.

    :param accepted: most connections taken in by a turn of the event loop. libuv takes one from each descriptor that
        listens, so there are as many of them. A loop that runs batches turns some hundred times a second.
    """

    def __init__(self, config: uvicorn.Config, app: Application, settings: ServiceSettings, accepted: int = 1) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._grace_seconds = settings.grace_seconds
        self._accepted = accepted

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(make, self.config, self.server_state, self.lifespan.state)
        if self.config.ssl is not None and self._settings.tls_cert is not None and self._settings.tls_key is not None:
            follow = follow_certificate(self.config.ssl, self._settings.tls_cert, self._settings.tls_key)
            self._following = loop.create_task(follow)  # it ends with the loop
        descriptors = [listening.fileno() for server in self.servers for listening in server.sockets]
        for descriptor in descriptors * (self._accepted - 1):
            again = socket(fileno=os.dup(descriptor))
            self.servers.append(
                await loop.create_server(protocol, sock=again, ssl=self.config.ssl, backlog=self.config.backlog)
            )

    def _log_started_message(self, listeners: Sequence[Any]) -> None:
        """Not yet: models are still being loaded; see :meth:`tell`."""

    async def tell(self) -> None:
        """Say where the server is and how to try it, once all workers answer."""
        while not (self.started and await self._all_ready()):  # noqa: ASYNC110  other processes have to be asked
            await asyncio.sleep(_PAUSE)
        port = self.servers[0].sockets[0].getsockname()[1] if self._settings.unix_socket is None else 0
        announce(ready(self._settings, self._app.state.predictor, port), self._settings.log_format)

    async def _all_ready(self) -> bool:
        try:
            return await self._app.state.others_ready()
        except NotReady:
            return False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM begins the grace time; a second one, or Ctrl-C, ends it."""
        if sig != signal.SIGTERM or self._app.state.stopping or not self._grace_seconds:
            super().handle_exit(sig, frame)
            return
        self._app.state.stopping = True
        timer = threading.Timer(self._grace_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()
