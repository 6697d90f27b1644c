"""Runs the application under uvicorn until a signal."""

from __future__ import annotations

import signal
from types import FrameType

import uvicorn

from service.app import create_app
from service.contract.errors import PlumblineError
from service.settings import ServiceSettings


def serve(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and seal the log.

    :raises PlumblineError: if the repository holds nothing that can be served, or the address is taken.
    """
    failures: list[PlumblineError] = []

    def stop(error: PlumblineError) -> None:
        failures.append(error)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(settings, on_failure=stop),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    server = uvicorn.Server(config)

    def leave(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after a clean stop; with this handler the exit code is then 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it could not listen
        raise PlumblineError(f"cannot listen on {settings.host}:{settings.port}; is the port taken?") from error
    if failures:
        raise failures[0]
