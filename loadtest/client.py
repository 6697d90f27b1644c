"""Load: closed loops, in which users wait for their answers, and open ones, in which requests come as they come."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import uvloop

from loadtest.connection import BlockingConnection, Connection, Response, connect, post_request

FAILED = 0  # instead of a status: the connection broke


@dataclass
class Load:
    """What a run of load saw.

    ``done`` are (seconds since the beginning, milliseconds taken) of each answer with status 200; ``statuses`` counts
    all answers; ``untold`` are refusals that did not say when to come again.
    """

    done: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    untold: int = 0

    def note(self, response: Response, moment: float, seconds: float) -> None:
        """Count an answer that took so long."""
        self.statuses[response.status] += 1
        if response.status == 200:
            self.done.append((moment, 1000 * seconds))
        elif response.status == 429 and not response.headers.get("retry-after", "").isdigit():
            self.untold += 1

    def rate(self, start: float, end: float) -> float:
        """Answers a second between two moments."""
        return sum(start <= moment < end for moment, _ in self.done) / (end - start)

    def percentile(self, share: float, start: float = 0.0, end: float = float("inf")) -> float:
        taken = [milliseconds for moment, milliseconds in self.done if start <= moment < end]
        return float(np.percentile(taken, share)) if taken else float("nan")


class Driver:
    """Sends texts, or lists of texts, in turn to a URL and notes the answers."""

    def __init__(self, url: str, texts: Sequence[str | Sequence[str]]) -> None:
        self.url = url
        self.load = Load()
        self._requests: Iterator[bytes] = itertools.cycle([post_request(url, text) for text in texts])
        self._began = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._began

    async def users(self, number: int, seconds: float, reconnect: bool = False) -> None:
        """``number`` users, each sending its next text when the last was answered, for some seconds.

        :param reconnect: come back when the server has closed the connection between two requests.
        """
        end = self.seconds() + seconds

        async def user() -> None:
            connection = await connect(self.url)
            while self.seconds() < end:
                if connection.closed and reconnect:
                    connection = await connect(self.url)
                if not await self._one(connection):
                    break
            connection.close()

        await asyncio.gather(*(user() for _ in range(number)))

    async def requests(self, number: int, users: int) -> None:
        """The same for so many requests in all."""
        left = iter(range(number))

        async def user() -> None:
            connection = await connect(self.url)
            for _ in left:
                await self._one(connection)
            connection.close()

        await asyncio.gather(*(user() for _ in range(users)))

    async def arrivals(self, rate: float, seconds: float) -> None:
        """So many requests a second, whether or not the ones before were answered; returns with the last answer."""
        idle: list[Connection] = []
        pending: set[asyncio.Task[None]] = set()

        async def one() -> None:
            while idle and idle[-1].closed:  # servers close what is idle for long
                idle.pop()
            connection = idle.pop() if idle else await connect(self.url)
            if await self._one(connection):
                idle.append(connection)

        began = self.seconds()
        sent = 0
        while (elapsed := self.seconds() - began) < seconds:
            while sent < elapsed * rate:
                task = asyncio.create_task(one())
                pending.add(task)
                task.add_done_callback(pending.discard)
                sent += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*pending)
        for connection in idle:
            connection.close()

    async def _one(self, connection: Connection) -> bool:
        """Whether the connection can be used again."""
        started = time.perf_counter()
        try:
            response = await connection.post(next(self._requests))
        except ConnectionError:
            self.load.statuses[FAILED] += 1
            return False
        now = time.perf_counter()
        self.load.note(response, now - self._began, now - started)
        return True


def one_client(url: str, texts: Sequence[str]) -> Load:
    """POST each text once, the next when the last was answered. :raises OSError: if the connection breaks."""
    load = Load()
    began = time.perf_counter()
    connection = BlockingConnection(url)
    for request in [post_request(url, text) for text in texts]:
        started = time.perf_counter()
        response = connection.post(request)
        now = time.perf_counter()
        load.note(response, now - began, now - started)
    connection.close()
    return load


@dataclass(frozen=True)
class Speed:
    """Answers a second and latencies in milliseconds, after a warm-up that is not counted."""

    rate: float
    p50: float
    p99: float
    statuses: Counter[int]


def closed_loop(
    url: str, texts: Sequence[str | Sequence[str]], users: int, seconds: float, warm_up: float = 0.5
) -> Speed:
    """POST ``{"inputs": …}`` to ``url`` from ``users`` connections for ``seconds``, after a warm-up."""

    async def run() -> Load:
        driver = Driver(url, texts)
        await driver.users(users, warm_up + seconds)
        return driver.load

    load = uvloop.run(run())
    window = warm_up, warm_up + seconds
    return Speed(load.rate(*window), load.percentile(50, *window), load.percentile(99, *window), load.statuses)
