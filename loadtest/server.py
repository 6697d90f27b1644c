"""Servers as processes on a core of their own."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbline.processes import Process, answers, free_port, until

SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True)
class Server:
    """A running server; ``seconds`` is the time from its start until it was ready."""

    url: str
    process: Process
    seconds: float

    def megabytes(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208  counted, not used


def pin(core: int) -> None:
    """Keep this process, and what it starts from now on, on one core."""
    os.sched_setaffinity(0, {core})


@contextmanager
def serving(models: Path, *, pinned: bool = True, **environment: str) -> Iterator[Server]:
    """Plumbline with one thread for inference, logging every record to a temporary folder; ``pinned`` to its core."""
    with tempfile.TemporaryDirectory() as log:
        arguments = ["-m", "plumbline", "serve", f"--repo={models}", f"--log={log}", "--threads=1", "--port={port}"]
        with started(arguments, "/readyz", pinned=pinned, **environment) as server:
            yield server


@contextmanager
def started(arguments: Sequence[str], ready: str, *, pinned: bool = True, **environment: str) -> Iterator[Server]:
    """A Python program; ``{port}`` in its arguments is replaced by a free one.

    :param ready: path that answers 200 when the server is ready.
    :param pinned: whether it runs on the server's core, and this process on the client's from now on.
    """
    port = free_port()
    command = [sys.executable, *(one.format(port=port) for one in arguments)]
    url = f"http://127.0.0.1:{port}"
    if pinned:
        pin(SERVER_CORE)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as said,
        Process("the server", command, Path(said, "log"), environment, patience=60) as process,
    ):
        if pinned:
            pin(CLIENT_CORE)
        until(lambda: answers(f"{url}{ready}"), "the server's readiness", [process], pause=0.01)
        yield Server(url, process, time.perf_counter() - began)
