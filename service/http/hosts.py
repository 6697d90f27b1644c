"""Names that the server answers to, and pages that may write to it: what a browser is asked by a page of another site.

A page can have its own name point to this server's address (DNS rebinding). The browser then takes the server for the
page's own site, so that ``Origin`` and ``Host`` agree, and both are the page's name. So a name is believed only if
nobody else can have it: an IP address, a loopback name, the one that the server listens on, or a trusted one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import Scope

from service.errors import Forbidden, Misdirected
from service.telemetry.context import header

_READING = frozenset(["GET", "HEAD", "OPTIONS"])
_OWN_SITE = frozenset(["same-origin", "none"])
_SHOWN = 100
ANY = "*"


class Hosts:
    """
    :param bound: the address to listen on. :param trusted: names without ports; ``*`` for any.
    :param pages: origins whose pages may write; ``*`` for any.
    """

    def __init__(self, bound: str, trusted: Sequence[str], pages: Sequence[str] = ()) -> None:
        self._pages = frozenset(origin.lower() for origin in pages)
        self._trusted = frozenset(name.lower().rstrip(".") for name in trusted)
        self._own = self._trusted | {bound.lower()}
        # Elsewhere clients, probes and proxies come by names that nobody has told us.
        self._strict = ANY not in self._trusted and (bool(self._trusted) or is_loopback(bound))
        self._believed = lru_cache(256)(self._is_believed)

    def check_host(self, scope: Scope) -> None:
        """:raises Misdirected: if the request is for a name that is not this server's."""
        if not self._strict:
            return
        host = header(scope, b"host")
        if host is not None and not self._believed(host):
            raise Misdirected(
                f"this server is not called {host[:_SHOWN]!r}. Ask for localhost or an IP address, or name it in "
                "PLUMBLINE_TRUSTED_HOSTS."
            )

    def check_page(self, scope: Scope) -> None:
        """:raises Forbidden: if a browser says that a page of another site wants to write (RFC 6454)."""
        if scope["method"] in _READING:
            return
        origin = header(scope, b"origin")
        if origin is None:
            if (header(scope, b"sec-fetch-site") or "none").lower() not in _OWN_SITE:
                raise Forbidden("a page of another site may not write here. Ask from this server's own, or with a key.")
            return
        site = origin.partition("://")[2].lower()
        if ANY in self._trusted | self._pages or origin.lower() in self._pages or _name_of(site) in self._trusted:
            return
        if not site or site != (header(scope, b"host") or "").lower() or not self._believed(site):
            raise Forbidden(
                f"a page of {origin[:_SHOWN]!r} may not write here. Ask from this server's own origin, name its host "
                "in PLUMBLINE_TRUSTED_HOSTS, or give the server keys."
            )

    def _is_believed(self, host: str) -> bool:
        name = _name_of(host.lower())
        return ANY in self._trusted or name in self._own or is_loopback(name) or _address(name) is not None


def is_loopback(name: str) -> bool:
    """Whether only this machine is reached by it."""
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _name_of(host: str) -> str:
    """``host`` without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
