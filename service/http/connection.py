"""A connection: uvicorn's protocol for httptools, behind limits that it does not have.

What arrives is given to the parser one request at a time: a whole head, then no more than its body, then nothing until
the answer is complete and was taken. So a head is limited before it is parsed, and nothing is kept of requests that
come before their turn but what one read brought; reading stops then.
"""

from __future__ import annotations

import asyncio
import re
from enum import Enum, auto
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import as_body
from service.http.limits import ConnectionGuard, Limits, Reason
from service.telemetry.context import GONE

_CONTINUE = b"HTTP/1.1 100 "
_ERRORS = (b"4", b"5")  # first digits of their status, behind "HTTP/1.1 "
_HEAD_END = b"\r\n\r\n"
_FIRST_LINE_ENDS = (b" HTTP/1.1\r", b" HTTP/1.0\r")
# The parser would take what follows a head with an offer (h2c, by Java and `curl --http2`) for another protocol's, and
# an offer may be ignored (RFC 9110, section 7.8).
_OFFER = re.compile(rb"^(?:upgrade|http2-settings)[ \t]*:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_UNKNOWN = -1  # bytes that are left of a chunked body
_FREE = 64 * 2**10  # bytes that a connection holds without asking, so that ordinary requests never want for room
_LINGER = 2.0  # seconds, and bytes, in which a client that is still sending can read why it was refused
_LINGER_BYTES = 2**20
_DRAIN = 30.0  # the same for a body that is no longer wanted, after which the connection can be used again
_PAUSE = 0.01  # seconds that a request waits which was sent in one breath with one that was refused
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 414: "URI Too Long", 503: "Service Unavailable"}
_PHRASES[431] = "Request Header Fields Too Large"

# uvicorn promises nobody these; the range in pyproject.toml is the one in which they were tested.
_PRIVATE: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (HttpToolsProtocol, ("cycle", "flow", "headers", "parser", "scope", "server_state", "transport")),
    (
        RequestResponseCycle,
        ("disconnected", "keep_alive", "message_event", "response_complete", "response_started"),
    ),
)


def check_uvicorn(private: tuple[tuple[Any, tuple[str, ...]], ...] = _PRIVATE) -> None:
    """:raises ImportError: if uvicorn's classes have not got what is relied on here."""
    for owner, names in private:
        if missing := sorted(set(names) - set(owner.__init__.__code__.co_names)):
            raise ImportError(
                f"uvicorn {uvicorn.__version__} has no {owner.__name__}.{missing[0]}. Install one in the range "
                "that pyproject.toml names."
            )


check_uvicorn()


class _Clock(Enum):
    """What a connection is waiting for."""

    NOTHING = auto()  # the application, which has deadlines of its own
    HEAD = auto()
    BODY = auto()
    TAKEN = auto()  # until the client has taken what was written
    IDLE = auto()
    END = auto()


class Connection(HttpToolsProtocol):
    """Sends the head of an answer together with its body, and says when the client has hung up.

    Each write is a system call and wakes the client, a good part of what a small answer costs. And an application that
    wants to know of a hang-up would have to wait for it in a task of its own, one for each request.

    :param door: shared by all connections; one of its own, with the usual limits, if there is none.
    """

    def __init__(self, *arguments: Any, door: ConnectionGuard | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door or ConnectionGuard(Limits())
        self._limits = self._door.limits
        self._address = ""
        self._inside = False
        self._pending = b""  # a part of a head, or what came behind a request that is being answered
        self._begun = False  # a request, in what is being parsed
        self._beyond = False  # a second one, which must not be
        self._left = 0  # bytes of the body that are still to come
        self._came = 0  # bytes of the body that have come
        self._open = False  # a request has not been answered
        self._deaf = False  # nothing is read any more
        self._held = 0  # bytes in memory for the request, and how many of them the door was asked for
        self._taken = 0
        self._clock = _Clock.NOTHING
        self._due = 0.0
        self._mark = 0  # of body or buffer, at the last look
        self._end = 0.0  # until which an unwanted body is read
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gone = self.loop.create_future()
        self._joined = _Joined(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]
        self._address = self.client[0] if self.client else ""
        now = self.loop.time()
        if reason := self._door.enter(self, self._address, now):
            self._deaf = True
            self._door.refused(reason)
            self._say(503, "busy", "there are too many connections; try again, on fewer of them.")
            self.transport.close()
        else:
            self._inside = True
            self._wait(_Clock.HEAD, self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._wait(_Clock.NOTHING)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inside:
            self._door.leave(self, self._address)
        self._release()
        super().connection_lost(exc)
        self._gone.set_result(None)

    def turn_out(self) -> None:
        self._deaf = True
        self.transport.abort()

    # What arrives

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._came += len(data)
            if self._came > _LINGER_BYTES:  # reading as fast as it is sent would be all that the loop does
                self._joined.hold()
            return
        if self._pending:
            data = self._pending + data
            self._pending = b""
        while data and not self._deaf:
            if self._left:
                data = self._read_body(data)
            elif self._open or self.flow.write_paused:
                self._keep(data)
                return
            else:
                data = self._read_head(data)

    def _keep(self, data: bytes) -> None:
        """Hold back what came too early, and read no more."""
        self._joined.hold()
        if self._hold(len(data)):
            self._pending = data
        else:
            self._stop_after_answer("bodies_too_large")

    def _read_head(self, data: bytes) -> bytes:
        """Parse the head that ``data`` begins with, and return the rest; or keep it until its end is there."""
        if data[0] in b"\r\n":  # empty lines may stand before a request
            data = data.lstrip(b"\r\n")
            if not data:
                return b""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        whole = end >= len(_HEAD_END)
        head = data[:end] if whole else data
        if status := self._too_large(head):
            self._refuse(
                status,
                "head_too_large",
                f"the head of a request may have {self._limits.head_bytes} bytes, half of them in one line, and "
                f"{self._limits.headers} headers.",
            )
            return b""
        if not whole:
            if not _plausible(head):
                self._malformed()
                return b""
            self._pending = head
            if self._clock is not _Clock.HEAD:
                self._wait(_Clock.HEAD, self._limits.head_seconds)
            return b""
        if b"upgrade" in head.lower():
            head = _OFFER.sub(b"", head)
        self._door.busy(self)
        self._begun = self._open = False
        self._came = 0
        self._feed(head)
        if self._deaf:
            return b""
        if not self._open:  # the parser does not agree that this was a head
            self._malformed()
            return b""
        self._watch()
        return data[end:]

    def _too_large(self, head: bytes) -> int:
        """The status to refuse a head with, whole or not; 0 if it is not too large."""
        size, line = len(head), self._limits.head_bytes // 2
        if head.count(b"\r\n") > self._limits.headers + 2:
            return 431
        if size <= line:
            return 0
        if head.find(b"\r\n", 0, line + 2) < 0:
            return 414
        return 431 if size > self._limits.head_bytes or max(map(len, head.split(b"\r\n"))) > line else 0

    def _read_body(self, data: bytes) -> bytes:
        """Parse what ``data`` has of a body, and return the rest."""
        known = self._left != _UNKNOWN
        part, rest = (data[: self._left], data[self._left :]) if known and len(data) > self._left else (data, b"")
        if known:
            self._left -= len(part)
        self._came += len(part)
        if not self._open and self._came > self._limits.bodies_bytes:  # nobody wants it, and it has no end
            self.transport.close()
            return b""
        if self._open and not self._hold(len(part)):
            self._refuse(503, "bodies_too_large", "requests hold as much memory as they may; try again in a second.")
            return b""
        self._feed(part)
        if not self._left and not self._deaf:
            self._watch() if self._open else self._rest()
        return rest

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # CONNECT
            self._malformed()
        except httptools.HttpParserError:
            if self._beyond:  # behind a chunked body, where nobody can know before parsing it
                self._stop_after_answer()
            else:
                self._malformed()

    def on_message_begin(self) -> None:
        if self._begun:
            self._beyond = True
            raise ValueError("a request behind the one that was to be parsed")
        self._begun = True
        super().on_message_begin()
        self.scope["extensions"] = {GONE: self._gone}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._left = _length(self.headers)
        self._open = True

    def on_message_complete(self) -> None:
        self._left = 0
        super().on_message_complete()
        self.flow.resume_reading()  # paused by a large body; a hang-up would not be seen

    # Answers

    def on_response_complete(self) -> None:
        self._joined.end()
        self.server_state.total_requests += 1
        self._open = False
        self._release()
        if self._deaf or self.transport.is_closing():
            return
        if self._left:  # a body that nobody wanted to the end
            self.flow.resume_reading()
            self._end = self.loop.time() + _DRAIN
        else:
            self._rest()

    def _rest(self) -> None:
        """Between two requests; if the next is there already, it is its turn."""
        self._door.idle(self, self.loop.time())
        self._watch()
        if self.flow.write_paused:
            return
        if self._pending and self._joined.refused:
            self.loop.call_later(_PAUSE, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._deaf or self._open or self.flow.write_paused or self.transport.is_closing():
            return
        self._joined.release()
        if self._pending:
            self.data_received(b"")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()
        if not self._open and not self._left and not self._deaf:
            self._rest()

    # Refusals

    def send_400_response(self, msg: str) -> None:
        self._malformed()

    def _malformed(self) -> None:
        self._refuse(400, "malformed", "this is no HTTP/1.1 request.")

    def _refuse(self, status: int, reason: Reason, message: str) -> None:
        """Say why, drop what the client is still sending for a moment so that it can read that, and close."""
        self._deaf = True
        self._pending = b""
        self._came = 0
        self._door.refused(reason)
        if self._open and self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        self._say(status, {408: "timeout", 503: "busy"}.get(status, reason), message)
        if self.transport.can_write_eof():
            self._joined.release()
            self.flow.resume_reading()
            self.transport.write_eof()
            self._wait(_Clock.END, _LINGER)
        else:
            self.transport.close()

    def _say(self, status: int, code: str, message: str) -> None:
        body = as_body(status, code, message)
        again = "retry-after: 1\r\n" if status == 503 else ""
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n{again}"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self._joined.end()

    def _stop_after_answer(self, reason: Reason | None = None) -> None:
        """Answer what is being answered, which closes the connection, and nothing that comes behind it."""
        self._deaf = True
        self._pending = b""
        if reason is not None:
            self._door.refused(reason)
        if self._open:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    # Bytes and seconds

    def _hold(self, count: int) -> bool:
        """Whether there is room for so many bytes more."""
        self._held += count
        more = self._held - _FREE - self._taken
        if more > 0:
            if not self._door.take(more):
                return False
            self._taken += more
        return True

    def _release(self) -> None:
        if self._taken:
            self._door.give(self._taken)
        self._held = self._taken = 0

    def _watch(self) -> None:
        """Set the clock by what is waited for."""
        if self._deaf:
            return
        if self.flow.write_paused:
            self._mark = self.transport.get_write_buffer_size()
            self._wait(_Clock.TAKEN, self._limits.body_seconds)
        elif self._left:
            self._mark = self._came
            self._wait(_Clock.BODY, self._limits.body_seconds)
        elif self._open:
            self._wait(_Clock.NOTHING)
        else:
            self._wait(_Clock.IDLE, self._limits.keep_alive_seconds)

    def _wait(self, clock: _Clock, seconds: float = 0.0) -> None:
        """One timer for each connection: it is moved forward only, and looks at the clock when it goes off."""
        self._clock = clock
        if clock is _Clock.NOTHING:
            return
        self._due = self.loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(self._due, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._clock is _Clock.NOTHING or self.transport.is_closing():
            return
        if self.loop.time() < self._due:
            self._timer = self.loop.call_at(self._due, self._on_time)
            return
        enough = self._limits.body_rate * self._limits.body_seconds
        match self._clock:
            case _Clock.HEAD if self._pending:
                self._refuse(408, "head_timeout", f"the head took longer than {self._limits.head_seconds:g} s.")
            case _Clock.BODY if self._came - self._mark >= enough and (self._open or self.loop.time() < self._end):
                self._watch()
            case _Clock.BODY if self._open:
                self._refuse(
                    408,
                    "body_timeout",
                    f"in {self._limits.body_seconds:g} s less than {enough:g} bytes of the body came.",
                )
            case _Clock.TAKEN if self._mark - self.transport.get_write_buffer_size() >= enough:
                self._watch()
            case _Clock.TAKEN:
                self._door.refused("answer_timeout")
                self.turn_out()
            case _ if self.transport.get_write_buffer_size():  # closing would wait for the client to take it
                self.turn_out()
            case _:
                self.transport.close()


def _plausible(head: bytes) -> bool:
    """Whether the beginning of a head can become one: HTTPS, or another protocol, is told at once."""
    line, newline, _ = head.partition(b"\n")
    return head[:1].isupper() and (not newline or line.endswith(_FIRST_LINE_ENDS))


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """Bytes of the body that a head announces; the parser has checked that there is one number."""
    length = 0
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            return _UNKNOWN
    return length


class _Joined:
    """A transport that holds the first write of an answer back until the second, or the end of the answer.

    And one whose reading is stopped by either of two: uvicorn's flow control, and :meth:`hold`.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._begun = False
        self.refused = False  # whether the newest answer is an error
        self._paused = False
        self._holding = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._begun or data.startswith(_CONTINUE):
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._head = data
            self._begun = True
            self.refused = data[9:10] in _ERRORS

    def end(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""
        self._begun = False

    def close(self) -> None:
        self.end()
        self._transport.close()

    def pause_reading(self) -> None:
        self._paused = True
        self._set_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._set_reading()

    def hold(self) -> None:
        self._holding = True
        self._set_reading()

    def release(self) -> None:
        if self._holding:
            self._holding = False
            self._set_reading()

    def _set_reading(self) -> None:
        if self._transport.is_closing():
            return
        truncation = self._transport.is_reading()
        if truncation and (self._paused or self._holding):
            self._transport.pause_reading()
        elif not truncation and not (self._paused or self._holding):
            self._transport.resume_reading()
