"""What is known of each route beside its handler, said where it is declared: who may ask, whether it predicts.

The middleware looks a request up once; access, admission, tracing, metrics and the shortcut go by what it finds.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, compile_path

_POLICY = "__plumbline_policy__"

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[object]])


@dataclass(frozen=True)
class Policy:
    """How a route is treated.

    :param access: ``open`` to anyone who reaches the server, or for a key that may ``predict`` or ``admin``.
    :param predicts: it asks for a prediction, by the model that its path names or else the default one, and is refused
        unread when the queue is full.
    :param quiet: machines ask every few seconds; their spans would bury the others.
    :param direct: busy enough to be handed to its handler past FastAPI's router, which costs more than the handler
        does. It takes the request and nothing else, and returns a response.
    """

    access: Literal["open", "predict", "admin"] = "predict"
    predicts: bool = False
    quiet: bool = False
    direct: bool = False


CLOSED = Policy()
PROBE = Policy(access="open", quiet=True)


def policy(given: Policy) -> Callable[[Handler], Handler]:
    """Say a handler's policy; it stands below the decorators of its routes. Without one it is ``CLOSED``."""

    def mark(handler: Handler) -> Handler:
        setattr(handler, _POLICY, given)
        return handler

    return mark


@dataclass(frozen=True)
class Matched:
    """What a request is for.

    :param path: of the route, with its parameters unfilled; empty if there is none with such a path.
    :param parameters: of the path.
    :param handler: that of the path and the method; None if there is none.
    """

    path: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    policy: Policy = CLOSED
    handler: Callable[[Request], Awaitable[Response]] | None = None


class RouteTable:
    """The routes of an application, in their order."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._by_path: dict[str, dict[str, Matched]] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for route in routes:
            if not isinstance(route, APIRoute):
                continue
            if route.path not in self._by_path and "{" in route.path:
                self._patterns.append((compile_path(route.path)[0], route.path))
            methods = self._by_path.setdefault(route.path, {})
            found = Matched(route.path, {}, getattr(route.endpoint, _POLICY, CLOSED), route.endpoint)
            methods.update(dict.fromkeys(route.methods or (), found))

    def find(self, method: str, path: str) -> Matched:
        """What a request is for; never fails."""
        if (methods := self._by_path.get(path)) is not None:
            return methods.get(method) or Matched(path)
        for pattern, name in self._patterns:
            if (filled := pattern.fullmatch(path)) is not None:
                one = self._by_path[name].get(method)
                if one is None:
                    return Matched(name, filled.groupdict())
                return Matched(name, filled.groupdict(), one.policy, one.handler)
        return Matched()

    def methods(self, path: str) -> list[str]:
        """The methods that a route's path is for, sorted."""
        return sorted(self._by_path.get(path, ()))
