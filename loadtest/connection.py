"""One keep-alive HTTP connection that costs the client's core little, so that the server is what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson


@dataclass(slots=True)
class Response:
    """``headers`` have lower-case names."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """Sends one request at a time. :raises ConnectionError: if the server closes before it has answered."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response()
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
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError("the server closed the connection without an answer"))

    # httptools
    def on_message_begin(self) -> None:
        self._response = Response()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._response.body += body

    def on_message_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        if self._response.headers.get("connection") == "close":
            self.closed = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._response)


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
