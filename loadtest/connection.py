"""One keep-alive HTTP connection that costs the client's core little, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson

_PATIENCE = 60.0  # seconds for an answer


@dataclass(slots=True)
class Response:
    """``headers`` have lower-case names."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Answers:
    """Reads responses off a stream of bytes; ``answered`` is called with each that is whole."""

    def __init__(self, answered: Callable[[Response], None]) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response()
        self._answered = answered
        self.feed: Callable[[bytes], None] = self._parser.feed_data

    # httptools
    def on_message_begin(self) -> None:
        self._response = Response()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._response.body += body

    def on_message_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        self._answered(self._response)


class Connection(asyncio.Protocol):
    """Sends one request at a time. :raises ConnectionError: if the server closes before it has answered."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answers = _Answers(self._on_answer)
        self._answered: asyncio.Future[Response] | None = None
        self.closed = False

    async def post(self, request: bytes) -> Response:
        """Send what :func:`post_request` made."""
        if self.closed or self._transport is None:
            raise ConnectionResetError("the server has closed the connection")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        self._answers.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError("the server closed the connection without an answer"))

    def _on_answer(self, response: Response) -> None:
        if response.headers.get("connection") == "close":
            self.closed = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(response)


class BlockingConnection:
    """The same on a plain socket: an event loop would take a part of what is to be measured."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._found: list[Response] = []
        self._answers = _Answers(self._found.append)

    def post(self, request: bytes) -> Response:
        """:raises ConnectionError: if the server closes before it has answered."""
        self._socket.sendall(request)
        while not self._found:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the server closed the connection without an answer")
            self._answers.feed(data)
        return self._found.pop()

    def close(self) -> None:
        self._socket.close()


async def connect(url: str) -> Connection:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 80)
    return connection


def post_request(url: str, inputs: str | Sequence[str]) -> bytes:
    """``POST {"inputs": …}``, a text or a list of texts, to a URL, as bytes."""
    parts = urlsplit(url)
    body = orjson.dumps({"inputs": inputs})
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
