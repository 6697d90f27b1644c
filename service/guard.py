"""Who may make a request, decided from its head alone, before its body is read or parsed.

The rule is by path and closed by default: a route that is not named here asks for a key that may predict.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from service.errors import Forbidden
from service.keys import Keys, given_key

# What orchestrators, Prometheus and people with a browser reach without a key.
_OPEN = frozenset(
    [
        "/livez",
        "/readyz",
        "/startupz",
        "/health",
        "/ping",
        "/metrics",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/openapi.json",
    ]
)
_HEALTH = "/v2/health/"
_STATUS_PAGE = "/"
_ADMINISTRATION = "/v2/repository"


class Guard:
    """Called with the scope of each HTTP request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __call__(self, scope: Scope) -> None:
        """:raises Unauthorized: without a valid key. :raises Forbidden: if the key, or the browser's page, may not."""
        path: str = scope["path"]
        if path in _OPEN or path.startswith(_HEALTH) or (path == _STATUS_PAGE and scope["method"] in ("GET", "HEAD")):
            return
        administration = path.startswith(_ADMINISTRATION)
        if self._keys.required:
            self._keys.check(given_key(Headers(scope=scope)), "admin" if administration else "predict")
        elif administration:
            _refuse_other_sites(Headers(scope=scope))


def _refuse_other_sites(headers: Headers) -> None:
    """Where no key stands in the way, a page of another site could make a visitor's browser unload a model.

    :raises Forbidden: if a browser says that the request comes from a page of another origin (RFC 6454).
    """
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise Forbidden(
            f"a page of {origin[:100]} may not change what is served here. Ask from this server's own origin, "
            "or give the server admin keys."
        )
