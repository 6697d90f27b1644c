"""Real processes for tests, on loopback; each is stopped by the test that started it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plumbline(*arguments: str | Path) -> list[str]:
    """The command line in this interpreter."""
    return [sys.executable, "-m", "plumbline", *map(str, arguments)]


def until(condition: Callable[[], object], seconds: float = 30, what: str = "condition") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def running(
    command: list[str], *, ready: str | None = None, log: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is up once the URL ``ready`` answers 200; ended with SIGTERM, or SIGKILL if it does not obey."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log is not None else None
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "PLUMBLINE_GRACE_SECONDS": "0", **environment}
        )
        try:
            if ready is not None:
                # However long that takes on a busy machine: pytest's own limit ends what hangs.
                until(lambda: process.poll() is not None or answers(ready), math.inf, f"{ready} to answer")
                assert process.poll() is None, f"{command} ended with {process.returncode}"
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
