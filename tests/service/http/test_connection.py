"""uvicorn's protocol as it is served here, over a transport that notes what is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.http.connection import Connection
from service.telemetry.context import GONE

REQUEST = b"%s / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n%s\r\n{}"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return not self.paused

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def connected(app: ASGIApp) -> tuple[Connection, Transport]:
    config = uvicorn.Config(app, http=Connection, lifespan="off", access_log=False)
    config.load()
    connection, transport = Connection(config, ServerState(), {}), Transport()
    connection.connection_made(transport)
    return connection, transport


class Asleep:
    """An application that reads the whole body and never answers."""

    body = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["more_body"]:
            self.body += len(message["body"])
        self.body += len(message["body"])
        await asyncio.Event().wait()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.mark.parametrize(("method", "end"), [(b"POST", b"\r\n\r\ndone"), (b"HEAD", b"\r\n\r\n")])
async def test_an_answer_is_one_write(method: bytes, end: bytes) -> None:
    connection, transport = connected(answer)
    for number in (1, 2):
        connection.data_received(REQUEST % (method, b""))
        await turns()
        assert len(transport.written) == number
        assert transport.written[-1].startswith(b"HTTP/1.1 200 OK\r\n")
        assert transport.written[-1].endswith(end)
    connection.shutdown()


async def test_a_stream_goes_out_as_it_comes_whatever_its_parts_end_with() -> None:
    parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while part := await parts.get():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    connection, transport = connected(app)
    connection.data_received(REQUEST % (b"POST", b""))
    for part in (b"one", b"two\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"four"):
        parts.put_nowait(part)
        await turns()
        assert transport.written[-1].endswith(part + b"\r\n")
    parts.put_nowait(b"")
    await turns()
    assert b"".join(transport.written).endswith(b"\r\n4\r\nfour\r\n0\r\n\r\n")
    connection.shutdown()


async def test_a_client_that_waits_to_be_told_to_go_on_is_told_at_once() -> None:
    connection, transport = connected(answer)
    head, _, body = (REQUEST % (b"POST", b"expect: 100-continue\r\n")).rpartition(b"\r\n")
    connection.data_received(head + b"\r\n")
    await turns()
    assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    connection.data_received(body)
    await turns()
    assert transport.written[1].endswith(b"\r\n\r\ndone")
    connection.shutdown()


async def test_what_is_no_http_is_answered_before_the_connection_is_closed() -> None:
    connection, transport = connected(answer)
    connection.data_received(b"\x16\x03\x01 no http\r\n\r\n")
    assert transport.written[0].startswith(b"HTTP/1.1 400 ")
    assert transport.closed


async def test_an_application_that_breaks_off_after_its_head_does_not_lose_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        raise ValueError

    connection, transport = connected(app)
    connection.data_received(REQUEST % (b"POST", b""))
    await turns()
    assert transport.written[0].startswith(b"HTTP/1.1 500 ")
    assert transport.closed


async def test_a_hang_up_behind_a_large_body_is_seen() -> None:
    connection, transport = connected(asleep := Asleep())
    connection.data_received(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 100000\r\n\r\n")
    await turns()
    connection.data_received(b"x" * 100_000)
    await turns()
    assert asleep.body == 100_000
    assert not transport.paused


async def test_a_hang_up_behind_pipelined_requests_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["extensions"][GONE]

    connection, transport = connected(app)
    connection.data_received(REQUEST % (b"POST", b"") * 2)
    await turns()
    transport.close()
    connection.connection_lost(None)
    await turns()
    assert caplog.messages == []
    assert transport.written == []


async def test_while_a_request_is_pending_nothing_behind_it_is_parsed_and_no_more_is_read() -> None:
    begun = 0
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()
        await answer(scope, receive, send)

    connection, transport = connected(app)
    connection.data_received(REQUEST % (b"POST", b"") * 3)
    await turns()
    assert (begun, transport.paused) == (1, True)
    go_on.set()
    await turns()
    await turns()
    assert b"".join(transport.written).count(b"done") == begun == 3
    assert not transport.paused
    connection.shutdown()


async def test_what_waits_behind_a_request_is_not_parsed_before_the_answer_was_taken() -> None:
    connection, transport = connected(answer)

    def write(data: Any) -> None:
        transport.written.append(bytes(data))
        connection.pause_writing()  # as with a client that does not read

    transport.write = write  # type: ignore[method-assign]
    transport.get_write_buffer_size = lambda: 100_000  # type: ignore[method-assign]
    connection.data_received(REQUEST % (b"GET", b"") * 2)
    await turns()
    assert (len(transport.written), transport.paused) == (1, True)
    connection.resume_writing()
    await turns()
    assert (len(transport.written), transport.paused) == (2, False)
    connection.resume_writing()
    connection.shutdown()


async def test_the_application_can_see_that_its_client_has_gone() -> None:
    seen: list[asyncio.Future[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["extensions"][GONE])
        await answer(scope, receive, send)

    connection, _ = connected(app)
    connection.data_received(REQUEST % (b"POST", b""))
    await turns()
    assert not seen[0].done()
    connection.connection_lost(None)
    assert seen[0].done()
