"""A closed-loop HTTP client: a fixed number of users, each sending its next text when the last was answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Load:
    """What a run of load saw: answers a second, latencies of the answers in milliseconds, and answers by status."""

    rate: float
    latencies: npt.NDArray[np.float64]
    statuses: Counter[int]

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies, share)) if self.latencies.size else float("nan")


def closed_loop(url: str, texts: Sequence[str], users: int, seconds: float, warm_up: float = 0.5) -> Load:
    """POST ``{"inputs": text}`` to ``url`` from ``users`` connections; what ends during the warm-up is not counted."""
    return asyncio.run(_closed_loop(url, texts, users, seconds, warm_up))


async def _closed_loop(url: str, texts: Sequence[str], users: int, seconds: float, warm_up: float) -> Load:
    following = itertools.cycle(texts)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    begin = time.perf_counter() + warm_up
    end = begin + seconds

    async def user(session: aiohttp.ClientSession) -> None:
        while (started := time.perf_counter()) < end:
            async with session.post(url, json={"inputs": next(following)}) as response:
                await response.read()
            done = time.perf_counter()
            if begin <= done <= end:
                statuses[response.status] += 1
                if response.status == 200:
                    latencies.append(1000 * (done - started))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=users)) as session:
        await asyncio.gather(*(user(session) for _ in range(users)))
    return Load(len(latencies) / seconds, np.array(latencies), statuses)
