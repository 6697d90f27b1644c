"""What happens to every request: its route, an id, access, a limit on its body, a line in the metrics; a shortcut."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.contract.errors import PlumblineError
from service.contract.record import new_id
from service.errors import (
    BodyTooLarge,
    Contradiction,
    DeadlinePassed,
    Forbidden,
    LogFailing,
    Misdirected,
    NotReady,
    Overloaded,
    UnsupportedCoding,
    internal_error,
    response_to,
)
from service.http.content_encoding import decode
from service.http.route_table import Matched, Policy
from service.telemetry import context
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_CLOSED = 499  # the client closed the connection before its request was whole; only metrics see it
_MOST_DIGITS = 18
_REFUSALS = frozenset(
    one.code
    for one in (
        *(BodyTooLarge, Contradiction, DeadlinePassed, Forbidden, LogFailing, Misdirected, NotReady, Overloaded),
        UnsupportedCoding,
    )
)
MATCHED = "plumbline.matched"


class RequestMiddleware:
    """Reads the whole body first, so that a body over the limit is refused before anything parses it.

    A request whose client hangs up is cancelled, so that work still waiting is never run; the server says so
    (:class:`service.http.connection.Connection`).
    An error that nothing expected is answered here, so that it has an id too.

    :param find: the route of a method and a path.
    :param access: raises a :class:`RequestError` if the request may not be made.
    :param admit: raises one if there is no room for it; both are asked before the body is read.
    :param model_of: the served model that a request is for; empty if for none.
    :param stopping: whether the server is about to stop; answers then close their connection.
    :param log_requests: say each request in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        find: Callable[[str, str], Matched],
        access: Callable[[Scope, Policy], None],
        admit: Callable[[Matched], None],
        max_body_bytes: int,
        model_of: Callable[[Matched], str],
        stopping: Callable[[], bool],
        log_requests: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._find = find
        self._access = access
        self._admit = admit
        self._max_body_bytes = max_body_bytes
        self._model_of = model_of
        self._stopping = stopping
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headless = scope["method"] == "HEAD"
        matched = self._find("GET" if headless else scope["method"], scope["path"])
        context.routed(scope, matched.path)
        if headless:  # as GET, without its body (RFC 9110, section 9.3.2)
            scope = {**scope, "method": "GET"}
        scope[MATCHED] = matched
        given = context.header(scope, b"x-request-id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        context.request_id.set(request_id)
        status = 0  # until the answer begins
        whole = False  # whether all of it was sent

        async def send_with_id(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if self._stopping():
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            else:
                whole = not message.get("more_body", False)
                if headless:
                    message = {**message, "body": b""}
            await send(message)

        try:
            self._access(scope, matched.policy)
            self._admit(matched)
            body = await self._read(scope, receive)
            context.keep_body(scope, body)
            await _unless_gone(self._app(scope, _replay(body), send_with_id), scope, lambda: status > 0)
        except ClientDisconnect:
            status = _CLOSED
        except PlumblineError as error:
            if status:
                raise
            context.failed(scope, error.code)
            await response_to(error)(scope, receive, send_with_id)
        except Exception:
            logger.exception("a request failed")
            if status and not whole:  # half an answer has to be cut off
                raise
            if not status:
                await internal_error()(scope, receive, send_with_id)
        finally:
            context.drop_body(scope)
            seconds = time.perf_counter() - started
            counted = (self._model_of(matched), matched.path or "unmatched", status, context.error_of(scope), seconds)
            self._metrics.deferred.schedule(self._count, *counted)
            if self._log_requests:
                _log(scope, status, seconds)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, unpacked.

        :raises BodyTooLarge: past the limit. :raises ClientDisconnect: if its end never came.
        :raises RequestError: as :func:`service.http.content_encoding.decode`.
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

    def _count(self, model: str, route: str, status: int, error: str, seconds: float) -> None:
        self._metrics.requests.labels(model, route, str(status)).inc()
        self._metrics.request_seconds.labels(model, route).observe(seconds)
        if error in _REFUSALS:
            self._metrics.rejected.labels(model, error).inc()


class Dispatch:
    """Hands the busiest requests to their handlers, and all others to FastAPI.

    FastAPI has the same routes and describes them.

    :param api: takes all requests that are not for a route whose policy is ``direct``.
    """

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        matched: Matched | None = scope.get(MATCHED)
        if matched is None or matched.handler is None or not matched.policy.direct:
            await self._api(scope, receive, send)
            return
        scope["app"] = self._api
        response = await matched.handler(Request(scope, receive))
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
