"""What stands before the application where the settings ask for it: CORS, a prefix of all paths, compressed answers."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipResponder
from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import ServiceSettings
from service.telemetry.context import header

_LEVEL = 1  # of gzip: three times as fast as the usual 6 at nearly the size, for JSON
_EXPOSED = (
    *("x-request-id", "x-model-version", "x-model-digest"),
    *("x-queue-time", "x-tokenization-time", "x-inference-time", "retry-after"),
)


def behind(app: ASGIApp, settings: ServiceSettings) -> ASGIApp:
    """The application behind what the settings ask for."""
    if settings.compress_bytes:
        app = _Compressed(app, settings.compress_bytes)
    if settings.root_path:
        app = _Prefixed(app, settings.root_path)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    return app


class _Prefixed:
    """Takes a prefix off paths that have it: some proxies in front do that themselves, some leave it on."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._prefix}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self._prefix) or "/"}
        await self._app(scope, receive, send)


class _Compressed:
    """Sends larger answers as gzip to clients that say they take it."""

    def __init__(self, app: ASGIApp, least: int) -> None:
        self._app = app
        self._least = least

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "gzip" in (header(scope, b"accept-encoding") or ""):
            await GZipResponder(self._app, self._least, _LEVEL)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
