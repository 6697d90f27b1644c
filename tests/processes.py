"""Real processes for tests, on loopback; each is stopped by the test that started it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.processes import PLUMBLINE, Process, answers
from plumbline.processes import free_port as free_port
from plumbline.processes import until as wait_until


def plumbline(*arguments: str | Path) -> list[str]:
    """The command line in this interpreter."""
    return [*PLUMBLINE, *map(str, arguments)]


def until(condition: Callable[[], object], seconds: float = 30, what: str = "condition") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.02)


@contextmanager
def running(
    command: list[str], *, ready: str | None = None, log: Path | None = None, **environment: str
) -> Iterator[Process]:
    """A process that is up once the URL ``ready`` answers 200, however long that takes on a busy machine."""
    environment = {"PLUMBLINE_GRACE_SECONDS": "0", **environment}
    with Process(f"`{shlex.join(command)}`", command, log, environment, patience=30) as process:
        if ready is not None:
            wait_until(lambda: answers(ready), f"{ready} to answer", [process], pause=0.02)
        yield process
