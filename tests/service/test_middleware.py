"""A client that hangs up costs no work."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from service.metrics import Metrics
from service.middleware import RequestMiddleware

SCOPE: MutableMapping[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "headers": []}


class Connection:
    """A client's side of a request: a body, then silence until it hangs up."""

    def __init__(self) -> None:
        self.hang_up = asyncio.Event()
        self.sent: list[Message] = []
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await self.hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def middleware(app: Any, metrics: Metrics) -> RequestMiddleware:
    return RequestMiddleware(
        app,
        metrics=metrics,
        guard=lambda scope: None,
        admit=lambda scope: None,
        max_body_bytes=100,
        model_of=lambda name: "",
        stopping=lambda: False,
        listen_after=0.001,
    )


async def test_a_request_is_cancelled_when_its_client_hangs_up() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"{}"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    connection, metrics = Connection(), Metrics()
    request = asyncio.create_task(middleware(app, metrics)(dict(SCOPE), connection.receive, connection.send))
    await asyncio.sleep(0.01)
    connection.hang_up.set()
    await asyncio.wait_for(request, 5)
    assert cancelled.is_set()
    assert connection.sent == []
    labels = {"model": "", "route": "unmatched", "code": "499"}
    assert metrics.registry.get_sample_value("plumbline_requests_total", labels) == 1


async def test_an_answer_that_has_begun_is_not_cut_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        connection.hang_up.set()
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"done"})

    connection = Connection()
    await middleware(app, Metrics())(dict(SCOPE), connection.receive, connection.send)
    assert [message["type"] for message in connection.sent] == ["http.response.start", "http.response.body"]


async def test_a_cancelled_server_is_not_taken_for_a_client_that_hung_up() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    connection = Connection()
    request = asyncio.create_task(middleware(app, Metrics())(dict(SCOPE), connection.receive, connection.send))
    await asyncio.sleep(0.01)
    request.cancel()
    (outcome,) = await asyncio.gather(request, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)
