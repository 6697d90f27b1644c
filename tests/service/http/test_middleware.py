"""A client that hangs up costs no work, and neither does one that is refused by the head of its request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.errors import Overloaded, Unauthorized
from service.http.middleware import RequestMiddleware
from service.http.route_table import Matched, Policy
from service.telemetry.context import GONE, body_of
from service.telemetry.metrics import Metrics

SCOPE: MutableMapping[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "headers": []}


class Client:
    """A client's side of a request; inside an event loop only."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.scope = {**SCOPE, "extensions": {GONE: self.gone}}
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def accept(*_: object) -> None:
    """Access and admission that refuse nothing."""


def middleware(
    app: Any,
    metrics: Metrics,
    access: Callable[[Scope, Policy], None] = accept,
    admit: Callable[[Matched], None] = accept,
) -> RequestMiddleware:
    return RequestMiddleware(
        app,
        metrics=metrics,
        find=lambda method, path: Matched(),
        access=access,
        admit=admit,
        max_body_bytes=100,
        model_of=lambda matched: "",
        stopping=lambda: False,
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

    client, metrics = Client(), Metrics()
    request = asyncio.create_task(middleware(app, metrics)(client.scope, client.receive, client.send))
    await asyncio.sleep(0.01)
    client.gone.set_result(None)
    await asyncio.wait_for(request, 5)
    assert cancelled.is_set()
    assert client.sent == []
    labels = {"model": "", "route": "unmatched", "code": "499"}
    assert metrics.registry.get_sample_value("plumbline_requests_total", labels) == 1


async def test_an_answer_that_has_begun_is_not_cut_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client.gone.set_result(None)
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"done"})

    client = Client()
    await middleware(app, Metrics())(client.scope, client.receive, client.send)
    assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]


async def test_a_cancelled_server_is_not_taken_for_a_client_that_hung_up() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    client = Client()
    request = asyncio.create_task(middleware(app, Metrics())(client.scope, client.receive, client.send))
    await asyncio.sleep(0.01)
    request.cancel()
    (outcome,) = await asyncio.gather(request, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)


@pytest.mark.parametrize(("known", "status"), [(False, 401), (True, 429)])
async def test_who_may_not_ask_is_refused_before_there_is_a_look_for_room_and_both_before_the_body_is_read(
    known: bool, status: int
) -> None:
    def guard(scope: Scope, policy: Policy) -> None:
        if not known:
            raise Unauthorized("no key")

    def admit(matched: Matched) -> None:
        assert known, "the load is nobody's business who may not ask"
        raise Overloaded("full", retry_after=3)

    async def unread() -> Message:
        raise AssertionError("the body was read")

    client = Client()
    await middleware(None, Metrics(), guard, admit)(client.scope, unread, client.send)
    assert client.sent[0]["status"] == status
    assert ((b"retry-after", b"3") in client.sent[0]["headers"]) == known


async def test_a_body_is_at_hand_while_its_request_is_answered_and_no_longer() -> None:
    """A connection keeps the scope of its last request for as long as its client keeps it open."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(body_of(scope))

    client = Client()
    await middleware(app, Metrics())(client.scope, client.receive, client.send)
    assert seen == [b"{}"]
    assert b"{}" not in client.scope.values()
