"""The load that benchmarks send: users that wait, arrivals that do not, and every answer counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from loadtest.bare import mix, per_second
from loadtest.client import FAILED, Driver, one_client

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n"
BUSY_WITHOUT_A_TIME = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Server:
    """Answers each request with the next of ``answers``, and the last one for ever; None closes the connection."""

    def __init__(self, *answers: bytes | None, wait: float = 0.0) -> None:
        self._answers = list(answers)
        self._wait = wait
        self.bodies: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.read(65536):
            self.bodies.append(head.partition(b"\r\n\r\n")[2])
            await asyncio.sleep(self._wait)
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer is None:
                break
            writer.write(answer)
            if answer is LAST:
                break
        writer.close()


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[str]:
    listener = await asyncio.start_server(server, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/predict"


async def test_users_send_the_texts_in_turn_and_every_answer_is_counted() -> None:
    server = Server(OK)
    async with listening(server) as url:
        driver = Driver(url, ["a", "b"])
        await driver.requests(10, users=1)
    assert server.bodies == [b'{"inputs":"a"}', b'{"inputs":"b"}'] * 5
    assert driver.load.statuses == {200: 10}
    assert len(driver.load.done) == 10
    assert driver.load.percentile(50) > 0


async def test_one_client_sends_each_text_once_on_a_plain_socket() -> None:
    server = Server(OK, BUSY, OK)
    async with listening(server) as url:
        load = await asyncio.to_thread(one_client, url, ["a", "b", "c"])
    assert server.bodies == [b'{"inputs":"a"}', b'{"inputs":"b"}', b'{"inputs":"c"}']
    assert server.connections == 1
    assert load.statuses == {200: 2, 429: 1}
    assert len(load.done) == 2


async def test_one_client_says_when_the_connection_breaks() -> None:
    async with listening(Server(None)) as url:
        with pytest.raises(ConnectionError, match="without an answer"):
            await asyncio.to_thread(one_client, url, ["a"])


async def test_as_many_users_as_asked_for_share_a_number_of_requests() -> None:
    server = Server(OK)
    async with listening(server) as url:
        driver = Driver(url, ["a"])
        await driver.requests(30, users=4)
    assert server.connections == 4
    assert driver.load.statuses == {200: 30}


async def test_arrivals_do_not_wait_for_answers() -> None:
    server = Server(OK, wait=0.2)
    async with listening(server) as url:
        driver = Driver(url, ["a"])
        await driver.arrivals(rate=100, seconds=0.2)
    assert server.connections > 10
    assert 15 <= driver.load.statuses[200] <= 25


async def test_a_refusal_that_does_not_say_when_to_come_again_is_noted() -> None:
    async with listening(Server(BUSY, BUSY_WITHOUT_A_TIME, OK)) as url:
        driver = Driver(url, ["a"])
        await driver.requests(3, users=1)
    assert driver.load.statuses == {429: 2, 200: 1}
    assert driver.load.untold == 1


@pytest.mark.parametrize(("reconnect", "answered"), [(True, lambda n: n > 5), (False, lambda n: n == 5)])
async def test_a_user_comes_back_when_the_server_said_that_it_closes(
    reconnect: bool, answered: Callable[[int], bool]
) -> None:
    async with listening(Server(OK, OK, OK, OK, LAST, OK)) as url:
        driver = Driver(url, ["a"])
        await driver.users(1, 0.3, reconnect=reconnect)
    assert answered(driver.load.statuses[200])
    assert driver.load.statuses[FAILED] == (0 if reconnect else 1)


async def test_a_request_that_is_not_answered_is_a_failure() -> None:
    async with listening(Server(OK, None)) as url:
        driver = Driver(url, ["a"])
        await driver.users(1, 0.3)
    assert driver.load.statuses == {200: 1, FAILED: 1}


def test_a_tenth_of_the_mix_is_long() -> None:
    mixed = mix([f"short {i}" for i in range(90)], ["word " * 180, "word " * 10, "word " * 300])
    assert len(mixed) == 100
    assert sum(len(text.split()) == 180 for text in mixed) == 10


def test_a_bare_loop_is_given_windows_of_64() -> None:
    seen: list[int] = []
    assert per_second(lambda texts: seen.append(len(texts)), ["a"] * 640, 0.01) > 0
    assert set(seen) == {64}
