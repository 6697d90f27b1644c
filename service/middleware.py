"""What happens to every request: an id, the guard, a limit on its body, a line in the metrics; and a shortcut."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import context
from service.coding import decode
from service.contract.errors import PlumblineError
from service.contract.record import new_id
from service.errors import (
    BodyTooLarge,
    DeadlinePassed,
    Forbidden,
    Misdirected,
    NotReady,
    Overloaded,
    as_response,
    response_to,
)
from service.metrics import Metrics

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CLOSED = 499  # the client closed the connection before its request was whole; only metrics see it
_MOST_DIGITS = 18
_REFUSALS = (BodyTooLarge, Forbidden, Misdirected, Overloaded, NotReady, DeadlinePassed)
_REASONS = {error.status: error.code for error in _REFUSALS}


class RequestMiddleware:
    """Reads the whole body first, so that a body over the limit is refused before anything parses it.

    A request whose client hangs up is cancelled, so that work still waiting is never run; the server says so
    (:class:`service.connection.Connection`).
    An error that nothing expected is answered here, so that it has an id too.

    :param guard: raises a :class:`RequestError` if the request may not be made.
    :param admit: raises one if there is no room for it; both are asked before the body is read.
    :param model_of: the served model that a request is for, by its route and the name in its path; empty if for none.
    :param route_for: the route of a path, for requests that were refused before they were routed; empty if none.
    :param stopping: whether the server is about to stop; answers then close their connection.
    :param log_requests: say each request in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        guard: Callable[[Scope], None],
        admit: Callable[[Scope], None],
        max_body_bytes: int,
        model_of: Callable[[str, str | None], str],
        route_for: Callable[[str], str],
        stopping: Callable[[], bool],
        log_requests: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._guard = guard
        self._admit = admit
        self._max_body_bytes = max_body_bytes
        self._model_of = model_of
        self._route_for = route_for
        self._stopping = stopping
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headless = scope["method"] == "HEAD"
        if headless:  # as GET, without its body (RFC 9110, section 9.3.2)
            scope = {**scope, "method": "GET"}
        given = context.header(scope, b"x-request-id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        context.request_id.set(request_id)
        status = 0  # until the answer begins

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if self._stopping():
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            elif headless:
                message = {**message, "body": b""}
            await send(message)

        try:
            self._guard(scope)
            self._admit(scope)
            body = await self._read(scope, receive)
            context.keep_body(scope, body)
            await _unless_gone(self._app(scope, _replay(body), send_with_id), scope, lambda: status > 0)
        except ClientDisconnect:
            status = _CLOSED
        except PlumblineError as error:
            if status:
                raise
            await response_to(error)(scope, receive, send_with_id)
        except Exception:
            logger.exception("a request failed")
            if status:
                raise
            failure = as_response(500, "internal", "the server failed on this request; its log says why.")
            await failure(scope, receive, send_with_id)
        finally:
            context.drop_body(scope)
            seconds = time.perf_counter() - started
            route = context.route_of(scope) or self._route_for(scope["path"])
            model = self._model_of(route, scope.get("path_params", {}).get("name"))
            self._metrics.deferred.later(self._count, model, route or "unmatched", status, seconds)
            if self._log_requests:
                _log(scope, status, seconds)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, unpacked.

        :raises BodyTooLarge: past the limit. :raises ClientDisconnect: if its end never came.
        :raises RequestError: as :func:`service.coding.decode`.
        """
        too_large = BodyTooLarge(f"the body is over the limit of {self._max_body_bytes} bytes. Send fewer texts.")
        length = context.header(scope, b"content-length") or ""
        if length.isdigit() and (len(length) > _MOST_DIGITS or int(length) > self._max_body_bytes):
            raise too_large
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                raise too_large
            chunks.append(chunk)
            if not message.get("more_body", False):
                break
        content = b"".join(chunks)
        coding = context.header(scope, b"content-encoding")
        return content if coding is None else decode(content, coding, self._max_body_bytes)

    def _count(self, model: str, route: str, status: int, seconds: float) -> None:
        self._metrics.requests.labels(model, route, str(status)).inc()
        self._metrics.request_seconds.labels(model, route).observe(seconds)
        if reason := _REASONS.get(status):
            self._metrics.rejected.labels(model, reason).inc()


class Shortcut:
    """Hands the busiest requests to their handlers, past FastAPI's router, which costs more than the handlers do.

    The router has the same routes, describes them, and takes whatever is not exactly one of them.

    :param app: what handlers find as ``request.app``.
    :param others: takes all other requests.
    :param handlers: of POST requests, by path.
    """

    def __init__(
        self, app: Starlette, others: ASGIApp, handlers: Mapping[str, Callable[[Request], Awaitable[Response]]]
    ) -> None:
        self._app = app
        self._others = others
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        handler = self._handlers.get(path) if scope.get("method") == "POST" else None
        if handler is None:
            await self._others(scope, receive, send)
            return
        scope["app"] = self._app
        context.routed(scope, path)
        response = await handler(Request(scope, receive))
        await response(scope, receive, send)


def _log(scope: Scope, status: int, seconds: float) -> None:
    fields = {
        "method": scope["method"],
        "path": quote(scope["path"]),  # what a client sends must not break lines
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
    }
    logger.info("%(method)s %(path)s %(status)d in %(milliseconds).1f ms", fields, extra={"fields": fields})


def _replay(body: bytes) -> Receive:
    """A receive that gives the body at once, then nothing: a hang-up is told otherwise."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _unless_gone(answer: Awaitable[None], scope: Scope, begun: Callable[[], bool]) -> None:
    """Await the answer; cancel it if the client hangs up before it has begun. :raises ClientDisconnect: then."""
    gone = context.gone(scope)
    if gone is None:
        await answer
        return
    task = asyncio.current_task()
    assert task is not None
    left = False

    def leave(_: object) -> None:
        nonlocal left
        if not begun():
            left = True
            task.cancel()

    gone.add_done_callback(leave)
    try:
        await answer
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        gone.remove_done_callback(leave)
