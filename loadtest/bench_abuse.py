"""Ordinary load, quiet and beside clients that abuse the server; prints a table of what each must be.

    python -m loadtest.bench_abuse --minutes 10 [--models MODELS]

Without a repository a tiny model is served, so that the front door is nearly all there is to measure. Ordinary requests
come at a fixed rate, on connections that are kept; a lost one is one without an answer of 200. The abuse is mixed: see
``ABUSE``. Its process gives way to the ordinary users, who share its core; the server has the other.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from loadtest.client import Driver
from loadtest.server import Server, serving

_ABUSERS = 24  # at work at a time
_RATE = 200.0  # ordinary requests a second, some tens of percent of what a core does with a small model
_WARM_UP = 30.0  # seconds of the same abuse before memory is looked at: what the most at a time takes is no growth
_REST = 25.0  # seconds in which the server gets rid of what was left behind, before memory is looked at
_TEXTS = ("a fine film", "an awful film, and very long", "so so", "great")
_PAGES = ("/", "/docs", "/openapi.json", "/metrics")
_HEAD = b"POST /predict HTTP/1.1\r\nhost: localhost\r\n"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Abuse = Callable[[Reader, Writer], Awaitable[None]]


async def pipelining(reader: Reader, writer: Writer) -> None:
    """Requests without a body, one behind the other, whose answers nobody reads, asyncio neither."""
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        writer.write((_HEAD + b"content-length: 0\r\n\r\n") * 1000)
        await writer.drain()


async def endless_head(reader: Reader, writer: Writer) -> None:
    writer.write(b"GET / HTTP/1.1\r\nx: ")
    while True:
        writer.write(b"v" * 65536)
        await writer.drain()


async def dripping_head(reader: Reader, writer: Writer) -> None:
    for byte in itertools.cycle(b"GET / HTTP/1.1\r\nhost: localhost\r\n"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def silence(reader: Reader, writer: Writer) -> None:
    await reader.read()


async def half_a_body(reader: Reader, writer: Writer) -> None:
    writer.write(_HEAD + b"content-length: 4194304\r\n\r\n" + b"x" * 4_000_000)
    await reader.read()


async def dripping_body(reader: Reader, writer: Writer) -> None:
    writer.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await asyncio.sleep(0.05)


async def unknown_keys(reader: Reader, writer: Writer) -> None:
    keys = ",".join(f'"{number:x}":1' for number in range(400_000))
    body = f'{{"inputs":"a",{keys}}}'.encode()
    for _ in range(3):
        writer.write(_HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"}")
        await asyncio.sleep(0.5)


async def nonsense(reader: Reader, writer: Writer) -> None:
    writer.write(random.randbytes(1000))  # noqa: S311
    await reader.read()


async def untaken_answers(reader: Reader, writer: Writer) -> None:
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 5000)
    await asyncio.sleep(60)


ABUSE: tuple[Abuse, ...] = (
    *(pipelining, endless_head, dripping_head, silence, half_a_body),
    *(dripping_body, unknown_keys, nonsense, untaken_answers),
)


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    must: str
    holds: bool


async def _abuse(host: str, port: int, stop: Event) -> None:
    """Keep so many abusers at work, each for some seconds, and a crowd of silent connections."""

    async def one(abuse: Abuse, seconds: float) -> None:
        # uvloop has a RuntimeError for a write to what is closed
        with suppress(OSError, RuntimeError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                async with asyncio.timeout(seconds):
                    await abuse(reader, writer)
            finally:
                writer.transport.abort()

    async def repeated(kinds: itertools.cycle[Abuse]) -> None:
        while not stop.is_set():
            await one(next(kinds), random.uniform(2, 15))  # noqa: S311
            await asyncio.sleep(0.05)

    async def crowd() -> None:
        while not stop.is_set():
            await asyncio.gather(*(one(silence, 3) for _ in range(300)))

    kinds = itertools.cycle(ABUSE)
    await asyncio.gather(crowd(), *(repeated(kinds) for _ in range(_ABUSERS)))


def _abuser(url: str, stop: Event) -> None:
    os.nice(10)  # what the machine's cores lack is not to be taken from the ordinary users
    parts = urlsplit(url)
    uvloop.run(_abuse(parts.hostname or "", parts.port or 80, stop))


def _phase(server: Server, seconds: float) -> Driver:
    driver = Driver(f"{server.url}/predict", _TEXTS)
    uvloop.run(driver.arrivals(_RATE, seconds))
    return driver


def _refusals(server: Server) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in httpx.get(f"{server.url}/metrics").text.splitlines():
        if line.startswith("plumbline_rejected_total{"):
            reason = line.split('reason="')[1].split('"')[0]
            found[reason] = found.get(reason, 0) + int(float(line.split()[-1]))
    return found


def _beside(server: Server, seconds: float) -> tuple[Driver, bool]:
    """Ordinary load beside abuse, and whether the abuse went on until its end."""
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    abuser = spawn.Process(target=_abuser, args=(server.url, stop))
    abuser.start()
    try:
        driver = _phase(server, seconds)
        return driver, abuser.is_alive()
    finally:
        stop.set()
        abuser.join(60)


def run(models: Path, minutes: float) -> list[Row]:
    """A quiet phase, some abuse to warm up, then abuse for all of the time; after each a rest."""
    with serving(models, PLUMBLINE_LOG_SEAL_SECONDS="10") as server:  # what sealing imports is no growth either
        for page in _PAGES:  # what is made for them once is no growth
            httpx.get(f"{server.url}{page}")
        quiet = _phase(server, max(20.0, 20 * minutes))
        fresh = server.megabytes()
        _beside(server, _WARM_UP)
        _phase(server, _REST)
        before = server.megabytes()
        opened = server.descriptors()
        abused, at_work = _beside(server, 60 * minutes)
        during = server.megabytes()
        again = _phase(server, _REST)
        time.sleep(1)  # until the driver's own connections are closed
        after, still_open = server.megabytes(), server.descriptors()
        refused = _refusals(server)
    lost = sum(abused.load.statuses.values()) - abused.load.statuses[200]
    calm = (quiet.load.percentile(99) + again.load.percentile(99)) / 2
    p99 = abused.load.percentile(99)
    sent = sum(abused.load.statuses.values())
    return [
        Row(f"ordinary requests lost, of {sent}", str(lost), "0", not lost),
        Row("abuse until the end", "yes" if at_work else "no", "yes", at_work),
        Row("p99, quiet, before and after", f"{calm:.1f} ms", "", True),
        Row("p99, beside abuse", f"{p99:.1f} ms", "<= 2x", p99 <= 2 * calm),
        Row("memory before any abuse", f"{fresh:.0f} MB", "", True),
        Row("memory after half a minute of it", f"{before:.0f} MB", "", True),
        Row("memory at the end of the abuse", f"{during:.0f} MB", "", True),
        Row("memory after it", f"{after:.0f} MB", "<= +5 %", after <= 1.05 * before),
        Row("descriptors", f"{opened} to {still_open}", "no more", still_open <= opened + 2),
        *(Row(f"refused: {reason}", str(count), "", True) for reason, count in sorted(refused.items())),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--models", type=Path, help="a repository with one live model; a tiny one is made without it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = options.models
        if models is None:
            from tests.fakes import make_bundle

            models = Path(folder)
            make_bundle(models)
        rows = run(models, options.minutes)
    table = Table("", "measured", "must be", "")
    for row in rows:
        table.add_row(row.what, row.measured, row.must, "" if not row.must else "holds" if row.holds else "MISSED")
    Console(width=110).print(table)
    sys.exit(0 if all(row.holds for row in rows) else 3)


if __name__ == "__main__":
    main()
