"""What is known of the request that is being answered, for whoever works on it."""

from __future__ import annotations

from asyncio import Future
from contextvars import ContextVar

from starlette.types import Scope

request_id: ContextVar[str] = ContextVar("request_id", default="")

GONE = "plumbline.gone"  # of the extensions of a scope
_ROUTE = "plumbline.route"
_BODY = "plumbline.body"
_ERROR = "plumbline.error"


def route_of(scope: Scope) -> str:
    """The path of the route that a request was for, with its parameters unfilled; empty if there is none."""
    route: str = scope.get(_ROUTE, "")
    return route


def routed(scope: Scope, route: str) -> None:
    """Say which route a request is for."""
    scope[_ROUTE] = route


def failed(scope: Scope, code: str) -> None:
    """Say which error a request is answered with."""
    scope[_ERROR] = code


def error_of(scope: Scope) -> str:
    """The code of the error that a request was answered with; empty for none that is ours."""
    code: str = scope.get(_ERROR, "")
    return code


def header(scope: Scope, name: bytes) -> str | None:
    """A header of the request, by its lower-case name: in a fraction of the time that Starlette's mapping takes."""
    for key, value in scope["headers"]:
        if key == name:
            found: str = value.decode("latin-1")
            return found
    return None


def keep_body(scope: Scope, body: bytes) -> None:
    scope[_BODY] = body


def drop_body(scope: Scope) -> None:
    """Connections keep the scope of their last request until the next one."""
    scope.pop(_BODY, None)


def body_of(scope: Scope) -> bytes:
    """The whole body of a request."""
    body: bytes = scope[_BODY]
    return body


def gone(scope: Scope) -> Future[None] | None:
    """Done when the client has hung up; None if the server does not say."""
    future: Future[None] | None = scope.get("extensions", {}).get(GONE)
    return future
