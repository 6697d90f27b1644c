"""What a connection may ask for before anybody knows who it is. Real sockets, and uvicorn's protocol on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.contract.errors import SettingsError
from service.contract.settings import load_settings
from service.http import limits as doors
from service.http.connection import Connection, check_uvicorn
from service.http.limits import ConnectionGuard, Limits, limits
from service.settings import ServiceSettings
from tests.processes import until

POST = b"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: here\r\n"


class Echo:
    """An application that answers with the length of the body; on ``/wait`` when it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        size, content = 0, b""
        if scope["path"] == "/large":
            content = bytes(16 * 2**20)
        if scope["path"] != "/unread":
            while (message := await receive())["type"] == "http.request":
                size += len(message["body"])
                if not message["more_body"]:
                    break
            else:
                return
        if scope["path"] == "/wait":
            while not self.go_on.is_set():  # noqa: ASYNC110  of another thread
                await asyncio.sleep(0.002)
        content = content or str(size).encode()
        head = [(b"content-length", str(len(content)).encode())]
        await send(
            {"type": "http.response.start", "status": 401 if scope["path"] == "/unread" else 200, "headers": head}
        )
        await send({"type": "http.response.body", "body": content})


class Server:
    """A server in a thread; ``refused`` are the reasons of its refusals."""

    def __init__(self, of: Limits) -> None:
        self.refused: list[str] = []
        self.app = Echo()
        self.door = ConnectionGuard(of, self.refused.append)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self._thread.start()
        self._started.wait()

    async def _run(self) -> None:
        config = uvicorn.Config(self.app, lifespan="off", access_log=False, log_config=None, ws="none")
        config.load()
        self._loop, self._over, state = asyncio.get_running_loop(), asyncio.Event(), ServerState()
        protocol = partial(Connection, config, state, {}, door=self.door)
        listening = await self._loop.create_server(protocol, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self._started.set()
        await self._over.wait()
        listening.close()
        for connection in list(state.connections):
            connection.transport.abort()
        self.app.go_on.set()
        await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @contextlib.contextmanager
    def client(self, data: bytes = b"") -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            yield connection

    def ask(self, data: bytes) -> bytes:
        """What the server says to this until it closes the connection."""
        with self.client(data) as connection:
            return everything(connection)


def everything(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def send_on(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


def status(answer: bytes) -> int:
    return int(answer[9:12])


def head_of(size: int) -> bytes:
    """A legal head of so many bytes, in headers of moderate length."""
    lines = (size - len(GET) - 2) // 1000
    head = GET + b"".join(b"x-%03d: %s\r\n" % (line, b"v" * 991) for line in range(lines))
    return head + b"y: " + b"v" * (size - len(head) - 7) + b"\r\n\r\n"


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def run(**of: float) -> Server:
            server = Server(Limits(**of))  # type: ignore[arg-type]
            stack.callback(server.stop)
            return server

        yield run


# The head


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (GET + b"x: " + b"v" * 40_000, 431),  # a header without an end
        (b"GET /" + b"p" * 40_000, 414),
        (GET + b"x: " + b"v" * 20_000 + b"\r\n\r\n", 431),  # whole, with one line too long
        (b"GET /" + b"p" * 20_000 + b" HTTP/1.1\r\nhost: here\r\n\r\n", 414),
        (GET + b"a: b\r\n" * 101, 431),
        (GET + b"a: b\r\n" * 101 + b"\r\n", 431),
        (head_of(33_000), 431),
    ],
)
def test_a_head_that_is_too_large_is_refused_whole_or_not(
    start: Callable[..., Server], head: bytes, expected: int
) -> None:
    server = start()
    answer = server.ask(head)
    assert status(answer) == expected
    assert b'"code":"head_too_large"' in answer
    assert server.refused == ["head_too_large"]
    assert server.app.begun == 0


def test_a_head_of_just_the_allowed_size_is_answered(start: Callable[..., Server]) -> None:
    server = start(head_bytes=8192)
    with server.client(head_of(8192)) as connection:
        assert status(connection.recv(65536)) == 200
    assert status(server.ask(head_of(8193))) == 431


def test_a_head_may_come_byte_by_byte_and_behind_empty_lines(start: Callable[..., Server]) -> None:
    server = start()
    with server.client() as connection:
        for byte in b"\r\n\r\n" + POST % 2 + b"{}":
            connection.send(bytes([byte]))
        assert connection.recv(65536).endswith(b"\r\n\r\n2")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # what begins HTTPS
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/1.1\nhost: here\n\n",
        b"CONNECT here:443 HTTP/1.1\r\nhost: here:443\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: here\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
def test_what_cannot_become_a_request_is_told_so_at_once(start: Callable[..., Server], data: bytes) -> None:
    server = start()
    assert status(server.ask(data)) == 400
    assert server.refused == ["malformed"]


# Requests one behind the other

LAST = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"


def test_requests_sent_at_once_are_answered_in_their_order(start: Callable[..., Server]) -> None:
    sizes = [5, 0, 70_000, 1, 300_000, 2]
    answers = start().ask(b"".join(POST % size + b"x" * size for size in sizes) + LAST)
    assert re.findall(rb"\r\n\r\n(\d+)(?=HTTP|$)", answers) == [b"%d" % size for size in [*sizes, 0]]


def test_a_chunked_body_is_read_to_its_end(start: Callable[..., Server]) -> None:
    server = start()
    head = b"POST /echo HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.client(head) as connection:
        for part in (b"4\r\n\r\n\r\n\r\n", b"3\r\nab", b"c\r\n0\r", b"\n\r\n"):
            connection.sendall(part)
            time.sleep(0.002)
        answer = b""
        while not answer.endswith(b"\r\n\r\n7"):
            part = connection.recv(65536)
            assert part, answer
            answer += part
        connection.sendall(LAST)  # sent with the end of a chunked body, it would be dropped
        assert everything(connection).endswith(b"\r\n\r\n0")


def test_what_is_sent_together_with_the_end_of_a_chunked_body_is_not_taken_for_a_request(
    start: Callable[..., Server],
) -> None:
    server = start()
    head = b"POST /wait HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.client(head + b"2\r\n{}\r\n0\r\n\r\n" + LAST * 100) as connection:
        until(lambda: server.app.begun)
        server.app.go_on.set()
        answer = everything(connection)
    assert (status(answer), answer.count(b"HTTP/1.1"), server.app.begun) == (200, 1, 1)
    assert b"connection: close" in answer


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.2, h2c"])
def test_an_offer_of_another_protocol_is_ignored_and_the_body_survives(
    start: Callable[..., Server], offer: bytes
) -> None:
    """As Java's HttpClient and `curl --http2` make it."""
    offered = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n" % offer
    head = b"POST /echo HTTP/1.1\r\nhost: here\r\n" + offered + b"content-length: 14\r\n\r\n"
    with start().client(head + b'{"inputs":"a"}') as connection:
        assert connection.recv(65536).endswith(b"\r\n\r\n14")
        connection.sendall(head)
        connection.sendall(b'{"inputs":"b"}')
        assert connection.recv(65536).endswith(b"\r\n\r\n14")


# Time


def test_a_connection_that_says_nothing_is_closed(start: Callable[..., Server]) -> None:
    assert start(head_seconds=0.05).ask(b"") == b""


def test_a_head_that_never_ends_is_given_up(start: Callable[..., Server]) -> None:
    server = start(head_seconds=0.05)
    assert status(server.ask(GET)) == 408
    assert server.refused == ["head_timeout"]


def test_a_second_head_that_never_ends_is_given_up(start: Callable[..., Server]) -> None:
    server = start(head_seconds=0.05)
    answers = server.ask(GET + b"\r\n" + GET)
    assert (status(answers), status(answers[answers.rindex(b"HTTP/1.1") :])) == (200, 408)


def test_an_idle_connection_is_closed(start: Callable[..., Server]) -> None:
    answer = start(keep_alive_seconds=0.05).ask(GET + b"\r\n")
    assert (status(answer), answer.count(b"HTTP/1.1")) == (200, 1)


@pytest.mark.parametrize("body", [b"", b"x" * 1000])
def test_a_body_that_does_not_come_is_given_up(start: Callable[..., Server], body: bytes) -> None:
    server = start(body_seconds=0.05)
    assert status(server.ask(POST % 2000 + body)) == 408
    assert server.refused == ["body_timeout"]


@pytest.mark.slow  # a busy machine must not make the client late
def test_a_body_is_given_the_time_that_it_takes_at_the_least_rate(start: Callable[..., Server]) -> None:
    server = start(body_seconds=1, body_rate=10)
    with server.client(POST % 100) as connection:
        for _ in range(10):
            time.sleep(0.25)
            connection.send(b"x" * 10)
        assert connection.recv(65536).endswith(b"100")
        connection.sendall(POST % 100)
        with contextlib.suppress(OSError):
            for _ in range(100):
                time.sleep(0.25)
                connection.send(b"x")
        assert status(connection.recv(65536)) == 408


def test_a_request_that_is_being_answered_has_all_the_time_that_it_takes(start: Callable[..., Server]) -> None:
    server = start(head_seconds=0.02, body_seconds=0.02, keep_alive_seconds=0.02)
    with server.client(b"GET /wait HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n") as connection:
        until(lambda: server.app.begun)
        time.sleep(0.1)
        server.app.go_on.set()
        assert status(everything(connection)) == 200


def test_an_answer_that_is_not_taken_is_given_up(start: Callable[..., Server]) -> None:
    server = start(body_seconds=0.05)
    with server.client(b"GET /large HTTP/1.1\r\nhost: here\r\n\r\n"):
        until(lambda: server.refused)
    assert server.refused == ["answer_timeout"]


def test_a_body_that_nobody_wanted_is_dropped_and_its_connection_can_be_used_again(
    start: Callable[..., Server],
) -> None:
    server = start()
    with server.client(b"POST /unread HTTP/1.1\r\nhost: here\r\ncontent-length: 1000000\r\n\r\n") as connection:
        assert status(connection.recv(65536)) == 401
        connection.sendall(b"x" * 1_000_000 + LAST)
        assert status(everything(connection)) == 200
    assert server.refused == []


def test_a_body_that_nobody_wanted_must_come_to_its_end(start: Callable[..., Server]) -> None:
    answer = start(body_seconds=0.05).ask(b"POST /unread HTTP/1.1\r\nhost: here\r\ncontent-length: 1000000\r\n\r\n")
    assert (status(answer), answer.count(b"HTTP/1.1")) == (401, 1)


def test_a_body_that_nobody_wanted_is_not_read_without_end(start: Callable[..., Server]) -> None:
    head = b"POST /unread HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
    with start(bodies_bytes=2**20).client(head) as connection, pytest.raises(OSError, match=r"reset|pipe"):
        send_on(connection, b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")


def test_what_comes_behind_a_refusal_is_not_read_without_end(start: Callable[..., Server]) -> None:
    with start().client(b"nonsense") as connection:
        connection.settimeout(0.2)
        with pytest.raises(OSError, match=r"reset|pipe|timed out"):
            send_on(connection, bytes(65536))


# How many, and how much

WAIT = b"GET /wait HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"


def test_beyond_the_most_connections_a_new_one_is_refused_until_another_has_gone(start: Callable[..., Server]) -> None:
    server = start(connections=2)
    with server.client(WAIT) as first, server.client(WAIT) as second:
        until(lambda: server.app.begun == 2)
        answer = server.ask(b"")
        assert (status(answer), b"retry-after: 1" in answer) == (503, True)
        server.app.go_on.set()
        assert status(everything(first)) == status(everything(second)) == 200
    assert status(server.ask(LAST)) == 200
    assert server.refused == ["connections"]


def test_where_there_is_no_room_the_silent_have_to_go(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "_SILENT", 0)
    server = start(connections=2)
    with server.client(WAIT) as busy, server.client() as silent:
        until(lambda: server.app.begun)
        assert status(server.ask(LAST)) == 200
        assert silent.recv(1) == b""
        server.app.go_on.set()
        assert status(everything(busy)) == 200


def test_a_connection_that_came_just_now_need_not_make_room(start: Callable[..., Server]) -> None:
    guests = [_Guest() for _ in range(4)]
    door = ConnectionGuard(Limits(connections=2))
    assert door.enter(guests[0], "", 0) is door.enter(guests[1], "", 1.5) is None
    door.busy(guests[0])
    door.idle(guests[0], 1.8)
    assert door.enter(guests[2], "", 2) == "connections"
    assert door.enter(guests[2], "", 2.6) is None
    assert [guest.out for guest in guests] == [False, True, False, False]
    door.leave(guests[1], "")
    door.busy(guests[2])
    assert door.enter(guests[3], "", 6.5) == "connections"
    assert door.enter(guests[3], "", 7) is None  # the first has been idle for long enough
    assert guests[0].out


class _Guest:
    out = False

    def turn_out(self) -> None:
        self.out = True


def test_one_address_may_have_so_many_connections(start: Callable[..., Server]) -> None:
    server = start(connections_per_address=1)
    with server.client(WAIT) as only:
        until(lambda: server.app.begun)
        assert status(server.ask(b"")) == 503
        server.app.go_on.set()
        assert status(everything(only)) == 200
    until(lambda: not server.door._of_address)
    assert status(server.ask(LAST)) == 200
    assert server.refused == ["connections_of_address"]


def test_what_unfinished_bodies_hold_is_bounded_and_small_ones_always_find_room(start: Callable[..., Server]) -> None:
    server = start(bodies_bytes=2**20)
    half = POST % 2_000_000 + b"x" * 900_000
    with server.client(half):
        until(lambda: server.door._bytes > 800_000)
        answer = server.ask(half)
        assert (status(answer), b'"code":"busy"' in answer) == (503, True)
        with server.client(POST % 60_000 + b"x" * 60_000) as small:
            assert small.recv(65536).endswith(b"60000")
    until(lambda: not server.door._bytes)
    assert server.ask(half.replace(b"2000000", b"900000") + LAST).count(b"200 OK") == 2
    until(lambda: not server.door._bytes)
    assert server.refused == ["bodies_too_large"]


def test_a_body_is_held_until_its_request_is_answered(start: Callable[..., Server]) -> None:
    server = start()
    with server.client(b"POST /wait HTTP/1.1\r\nhost: here\r\ncontent-length: 900000\r\n\r\n" + b"x" * 900_000) as one:
        until(lambda: server.door._bytes == 900_000 - 65_536)
        server.app.go_on.set()
        assert one.recv(65536).endswith(b"900000")
        until(lambda: not server.door._bytes)


# Settings


def test_another_uvicorn_is_refused_when_it_is_imported() -> None:
    with pytest.raises(ImportError, match=r"uvicorn 0\.\d+.* has no HttpToolsProtocol\.something"):
        check_uvicorn(((HttpToolsProtocol, ("cycle", "something")),))


def test_descriptors_are_kept_back_for_the_servers_own_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = 256, 256
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, to: raised.append(to))
    assert limits(ServiceSettings()).connections == 128
    assert "ulimit -n" in caplog.text
    soft, hard = 1024, 4096
    assert limits(ServiceSettings(max_connections=2000)).connections == 2000
    assert raised[-1] == (2128, 4096)
    soft, hard = 64, 64
    assert limits(ServiceSettings()).connections == 32


def test_the_bodies_of_a_server_hold_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="PLUMBLINE_MAX_BODIES_BYTES"):
        load_settings(ServiceSettings, max_bodies_bytes=2**20)


def test_who_sends_nonsense_in_one_breath_is_slowed_down_and_others_are_not(url: str) -> None:
    """And all of it is answered, in order."""
    host, port = url.split(":")
    wrong = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
    body = b'{"inputs": "good"}'
    right = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    took = []
    for request, status in ((wrong, b" 400 "), (right, b" 200 ")):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            started = time.monotonic()
            connection.sendall(request * 30)
            received = b""
            while received.count(b"HTTP/1.1" + status) < 30:
                part = connection.recv(65536)
                assert part
                received += part
            took.append(time.monotonic() - started)
    assert took[0] >= 29 * 0.01
