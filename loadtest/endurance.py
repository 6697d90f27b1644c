"""What a server must bear: overload, long runs, a switch of version, a stop; and how it starts. Each gives rows."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from loadtest.client import Driver
from loadtest.server import Server, serving
from service.contract.repository import read_serving, set_live

USERS = 64
_FIRST = 10_000  # requests of a soak before memory is looked at
_GRACE_SECONDS = 3.0


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, what it must be, and whether it is."""

    what: str
    measured: str
    must: str
    holds: bool


def start(models: Path) -> list[Row]:
    """The second of two starts, for files in memory."""
    with serving(models):
        pass
    with serving(models) as server:
        time.sleep(2)
        memory = server.megabytes()
    return [
        Row("start to ready, files in memory", f"{server.seconds:.1f} s", "<= 3 s", server.seconds <= 3),
        Row("idle memory", f"{memory:.0f} MB", "<= 250 MB", memory <= 250),
    ]


def overload(models: Path, texts: Sequence[str], seconds: float) -> list[Row]:
    """Three times what the server can do, for some seconds, and what it does right after.

    What it can do, the peak, is the mean of a measurement before and one after: a minute is enough for a shared machine
    to become faster or slower.
    """
    with serving(models) as server:
        return uvloop.run(_overload(Driver(f"{server.url}/predict", texts), seconds))


async def _overload(driver: Driver, seconds: float) -> list[Row]:
    await driver.users(USERS, 10)
    load = driver.load
    before = load.rate(2, 9.5)
    earlier = load.statuses.copy()
    began = driver.seconds()
    flood = asyncio.create_task(driver.arrivals(3 * before, seconds))
    await asyncio.sleep(seconds)
    over = driver.seconds()
    during = load.statuses - earlier
    window = began + min(5, seconds / 4), over  # when the queue has filled up
    goodput, p99 = load.rate(*window), load.percentile(99, *window)
    await asyncio.gather(driver.users(USERS, 12), flood)
    after = load.rate(over + 1, over + 4.5)
    peak = (before + load.rate(over + 4, over + 11.5)) / 2
    sent = sum(during.values())
    others = sent - during[200] - during[429]
    return [
        Row(
            f"three times the peak of {before:.0f}/s: goodput",
            f"{goodput / peak:.0%}",
            ">= 90 %",
            goodput >= 0.9 * peak,
        ),
        Row("  refused with 429 and Retry-After", f"{during[429] / sent:.0%}", "the rest", not others + load.untold),
        Row("  p99 of the accepted", f"{p99 / 1000:.1f} s", "<= 5 s", p99 <= 5000),
        Row("  speed 1 s after", f"{after / before:.0%}", ">= 90 %", after >= 0.9 * before),
    ]


def soak(models: Path, texts: Sequence[str], requests: int) -> list[Row]:
    """Memory and descriptors over many requests; both are looked at after the first 10,000 and at the end.

    The log is sealed often, so that what that takes, and what it imports, is there at the first look.
    """

    async def run(server: Server) -> tuple[float, float, int, int, int]:
        driver = Driver(f"{server.url}/predict", texts)
        await driver.requests(min(_FIRST, requests // 2), USERS)
        await asyncio.sleep(1)
        megabytes, descriptors = server.megabytes(), server.descriptors()
        await driver.requests(requests - min(_FIRST, requests // 2), USERS)
        await asyncio.sleep(1)
        failed = sum(driver.load.statuses.values()) - driver.load.statuses[200]
        return megabytes, server.megabytes(), descriptors, server.descriptors(), failed

    with serving(models, PLUMBLINE_LOG_SEAL_SECONDS="10") as server:
        before, after, opened, still_open, failed = uvloop.run(run(server))
    growth = after / before - 1
    return [
        Row(f"soak of {requests} requests: failed", str(failed), "0", not failed),
        Row("  memory", f"{before:.0f} to {after:.0f} MB, {growth:+.1%}", "< +5 %", growth < 0.05),
        Row("  descriptors", f"{opened} to {still_open}", "no more", still_open <= opened + 2),
    ]


def switch_and_stop(models: Path, name: str, texts: Sequence[str]) -> list[Row]:
    """A new version under load, then SIGTERM under load; users come back when a connection is closed."""
    with _two_versions(models, name) as copy, serving(copy, PLUMBLINE_GRACE_SECONDS=str(_GRACE_SECONDS)) as server:
        return uvloop.run(_switch_and_stop(server, copy, name, texts))


async def _switch_and_stop(server: Server, models: Path, name: str, texts: Sequence[str]) -> list[Row]:
    driver = Driver(f"{server.url}/predict", texts)
    users = asyncio.create_task(driver.users(USERS, 7, reconnect=True))
    await asyncio.sleep(1)
    await asyncio.to_thread(set_live, models, name, "2")
    await users
    switched = driver.load.statuses.copy()
    users = asyncio.create_task(driver.users(USERS, 1 + _GRACE_SECONDS * 0.8, reconnect=True))
    await asyncio.sleep(1)
    server.process.terminate()
    await users
    code = await asyncio.to_thread(server.process.wait, 60)
    stopped = driver.load.statuses - switched

    def row(what: str, statuses: dict[int, int], fine: bool = True) -> Row:
        failed = sum(statuses.values()) - statuses.get(200, 0)
        return Row(what, f"{failed} of {sum(statuses.values())}", "0", fine and not failed)

    return [
        row("failed while the version was switched", switched),
        row(f"failed after SIGTERM (exit code {code})", stopped, code == 0),
    ]


@contextmanager
def _two_versions(models: Path, name: str) -> Iterator[Path]:
    """A copy of a repository in which the live version is version 1, and 2 is the same under another number."""
    live = models / name / read_serving(models, name).live
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for version in ("1", "2"):
            shutil.copytree(live, copy / name / version)
            manifest = copy / name / version / "manifest.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": version}))
        set_live(copy, name, "1")
        yield copy
