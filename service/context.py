"""What is known of the request that is being answered, for whoever works on it."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import Scope

request_id: ContextVar[str] = ContextVar("request_id", default="")

_ROUTE = "plumbline.route"


def route_of(scope: Scope) -> str:
    """The path of the route that a request was for, with its parameters unfilled; empty if there is none."""
    return getattr(scope.get("route"), "path", "") or scope.get(_ROUTE, "")


def routed(scope: Scope, route: str) -> None:
    """Say which route a request is for that no router sees."""
    scope[_ROUTE] = route
