"""Who may make a request, decided from its head alone, before its body is read or parsed.

The rule is by path and closed by default: a route that is not named here asks for a key that may predict.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from service.hosts import Hosts
from service.keys import Keys, given_key
from service.keys import Scope as Wanted

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
        "/openapi.json",
    ]
)
_HEALTH = "/v2/health/"
_STATUS_PAGE = "/"
_ADMINISTRATION = "/v2/repository"


class Guard:
    """Called with the scope of each HTTP request."""

    def __init__(self, keys: Keys, hosts: Hosts) -> None:
        self._keys = keys
        self._hosts = hosts

    def __call__(self, scope: Scope) -> None:
        """Where no key stands in the way, a page of another site must not use its visitor's browser for writing.

        :raises Misdirected: if it is for another server. :raises Unauthorized: without a valid key.
        :raises Forbidden: if the key, or the browser's page, may not.
        """
        self._hosts.check_host(scope)
        path: str = scope["path"]
        if path in _OPEN or path.startswith(_HEALTH) or (path == _STATUS_PAGE and scope["method"] in ("GET", "HEAD")):
            return
        if self._keys.required:
            wanted: Wanted = "admin" if path.startswith(_ADMINISTRATION) else "predict"
            self._keys.check(given_key(Headers(scope=scope)), wanted)
        else:
            self._hosts.check_page(scope)
