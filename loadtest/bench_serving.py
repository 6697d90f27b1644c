"""Throughput and latency of the server against the same model in a bare loop, in one run.

    python -m loadtest.bench_serving MODELS --name NAME --short CSV [--long CSV] [--rounds 5] [--seconds 6]

The server has one core, the client another; the bare loops run on the server's core while it is idle. Short texts are
the rows of ``--short``; the mix is nine to one row of 150 to 220 words of ``--long``. Everything is on: validation,
metrics, request ids, and a record of every answer. Rounds are interleaved; medians are printed, and ratios to the
length-bucketed bare loop (a window of 64 texts under 512 padded tokens) of the same round.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from loadtest.client import closed_loop
from service.contract.bundle import TOKENIZER, Bundle
from service.contract.dataset import read_dataset
from service.contract.repository import live_bundle
from service.engine import Engine
from service.tokenizer import TextTokenizer

SERVER_CORE, CLIENT_CORE = 0, 1
WINDOW, BATCH_TOKENS = 64, 512
USERS = (1, 16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--short", type=Path, required=True)
    parser.add_argument("--long", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    workloads = {"short": read_dataset(options.short, label_column=None).texts}
    if options.long is not None:
        workloads["mixed"] = mix(workloads["short"], read_dataset(options.long, label_column=None).texts)
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    tails: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    loops = BareLoops(live_bundle(options.models, options.name))
    with serving(options.models) as url:
        for number in range(options.rounds):
            for workload, texts in workloads.items():
                pin(SERVER_CORE)
                rates[workload, "bare loop, one by one"].append(timed(loops.one_by_one, texts, options.seconds / 2))
                bound = timed(loops.bucketed, texts, options.seconds / 2)
                rates[workload, "bare loop, bucketed"].append(bound)
                pin(CLIENT_CORE)
                for users in USERS:
                    load = closed_loop(f"{url}/predict", texts, users, options.seconds)
                    key = (workload, f"server, {users} client{'s' if users > 1 else ''}")
                    if set(load.statuses) != {200}:
                        sys.exit(f"{key}: answers other than 200: {dict(load.statuses)}")
                    rates[key].append(load.rate)
                    ratios[key].append(load.rate / bound)
                    tails[key].append((load.percentile(50), load.percentile(99)))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(f"{'texts':<6} {'what':<24} {'per second':>10} {'of bucketed':>12} {'p50, ms':>8} {'p99, ms':>8}")
    for workload, what in sorted(rates, key=lambda key: key[0], reverse=True):
        key = (workload, what)
        ratio = f"{statistics.median(ratios[key]):12.0%}" if key in ratios else " " * 12
        tail = [f"{statistics.median(one):8.1f}" for one in zip(*tails[key], strict=True)] if key in tails else []
        print(f"{workload:<6} {what:<24} {statistics.median(rates[key]):10.0f} {ratio} {' '.join(tail)}")


class BareLoops:
    """The model without a server: tokenizer and engine in a loop, on one thread."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._tokenizer = TextTokenizer(bundle.file(TOKENIZER), manifest.max_length)
        file = bundle.file(manifest.variants["cpu"].file)
        self._engine = Engine(file, device="cpu", threads=1, max_length=manifest.max_length)
        self._engine.warm_up()

    def one_by_one(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._engine.run(self._tokenizer([text]))

    def bucketed(self, texts: Sequence[str]) -> None:
        ordered = sorted(self._tokenizer(texts), key=len)
        start = 0
        while start < len(ordered):
            stop = start + 1
            while (
                stop < len(ordered)
                and self._engine.padded_length(len(ordered[stop])) * (stop + 1 - start) <= BATCH_TOKENS
            ):
                stop += 1
            self._engine.run(ordered[start:stop])
            start = stop


def timed(loop: Callable[[Sequence[str]], None], texts: Sequence[str], seconds: float) -> float:
    """Texts a second, fed in windows of 64."""
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        place = done % len(texts)
        window = texts[place : place + WINDOW]
        loop(window)
        done += len(window)
    return done / spent


def mix(short: Sequence[str], long: Sequence[str]) -> list[str]:
    """Nine short texts to one of 150 to 220 words, in a fixed random order."""
    chosen = random.Random(0)  # noqa: S311  an order, no secret
    found = [text for text in long if 150 <= len(text.split()) <= 220]
    mixed = [*short, *(chosen.choice(found) for _ in range(len(short) // 9))]
    chosen.shuffle(mixed)
    return mixed


@contextmanager
def serving(models: Path) -> Iterator[str]:
    """The server on its core, logging every record to a temporary folder."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as log:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        pin(SERVER_CORE)
        arguments = ["serve", f"--repo={models}", f"--log={log}", f"--port={port}", "--threads=1"]
        process = subprocess.Popen([sys.executable, "-m", "service", *arguments], stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            while not _ready(url):
                if process.poll() is not None:
                    sys.exit(f"the server ended with {process.returncode}")
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def pin(core: int) -> None:
    """Keep this process, and what it starts from now on, on one core."""
    os.sched_setaffinity(0, {core})


if __name__ == "__main__":
    main()
