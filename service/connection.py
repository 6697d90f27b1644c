"""uvicorn's side of a connection, with two things that ASGI servers leave out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.context import GONE

_CONTINUE = b"HTTP/1.1 100 "


class Connection(HttpToolsProtocol):
    """Sends the head of an answer together with its body, and says when the client has hung up.

    Each write is a system call and wakes the client, a good part of what a small answer costs. And an application that
    wants to know of a hang-up would have to wait for it in a task of its own, one for each request.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gone = self.loop.create_future()
        self._running: RequestResponseCycle | None = None
        self._joined = _Joined(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells the last of pipelined requests only
        super().connection_lost(exc)
        self._gone.set_result(None)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {GONE: self._gone}  # type: ignore[dict-item]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # paused by a large body; a hang-up would not be seen

    def on_response_complete(self) -> None:
        self._joined.end()
        super().on_response_complete()


class _Joined:
    """A transport that holds the first write of an answer back until the second, or the end of the answer."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._begun or data.startswith(_CONTINUE):
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._head = data
            self._begun = True

    def end(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""
        self._begun = False

    def close(self) -> None:
        self.end()
        self._transport.close()
