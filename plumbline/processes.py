"""Commands as processes: watched while something of theirs is waited for, and ended with all that they started.

No wait is limited by the clock, since a busy machine may need any time. A wait ends when what it waits for happens, or
when a process that it depends on is no more; meanwhile it says every few seconds what it waits for.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

import httpx

from service.contract.errors import PlumblineError

PLUMBLINE = (sys.executable, "-m", "plumbline")
PATIENCE = 15.0  # seconds between asking a process to end and killing it
_PAUSE = 0.2
_EVERY = 15.0  # seconds between two lines about the same wait
_TOLD = 6  # last lines of a log that an error repeats

Found = TypeVar("Found")


class Process(subprocess.Popen[bytes]):
    """A command in a session of its own, so that a terminal's Ctrl-C does not reach it: who started it ends it.

    :param log: what its output is appended to; without it, that goes to stderr.
    :param environment: what it has beside the environment of this process.
    :param patience: seconds between asking it to end and killing it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.name, self.log, self._patience = name, log, patience
        with log.open("ab") if log is not None else nullcontext(sys.stderr) as output:
            super().__init__(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def __exit__(
        self, exc_type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it and what it started; a second Ctrl-C takes away its time to do so in order."""
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self._signal_group(signal.SIGTERM)
            self.wait(self._patience)
        self._signal_group(signal.SIGKILL)
        self.wait()

    def finish(self) -> None:
        """Wait for its end. :raises PlumblineError: if that is not exit code 0."""
        if self.wait():
            raise PlumblineError(self._ended())

    @property
    def fault(self) -> str | None:
        """Why nothing more can be expected of it; None while it runs."""
        return None if self.poll() is None else self._ended()

    @property
    def said(self) -> str:
        """The last that it said, for an error."""
        return "it said why above." if self.log is None else last_lines(self.log)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _ended(self) -> str:
        code = self.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self.name} {how}; {self.said}"


def until(
    condition: Callable[[], Found | None],
    what: str,
    processes: Sequence[Process],
    *,
    news: Callable[[], Sequence[str]] = tuple,
    pause: float = _PAUSE,
) -> Found:
    """What ``condition`` gives as soon as that is true, for as long as all of ``processes`` run.

    :param condition: may raise :class:`PlumblineError` if it can never become true, and may ask a server that is slow.
    :param news: lines to pass on, of the work that is waited for.
    :param pause: seconds between two looks.
    :raises PlumblineError: if a process ends first; the message has the last lines of its log.
    """
    started = told = time.monotonic()
    while True:
        faults = [process.fault for process in processes if process.fault]
        with suppress(httpx.TransportError):
            if found := condition():
                return found
        if faults:
            raise PlumblineError(f"{what} will not come: {faults[0]}")
        for line in news():
            say(f"     | {line}")
            told = time.monotonic()
        if time.monotonic() - told >= _EVERY:
            told = time.monotonic()
            say(f"     waiting for {what}, {told - started:.0f} s so far")
        time.sleep(pause)


def answers(url: str) -> bool:
    """Whether the server is there and says 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    """A port of the loopback interface that nothing listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def faults_explained(processes: Sequence[Process]) -> Iterator[None]:
    """Turn a request that failed into what became of the process that was to answer it.

    :raises PlumblineError: instead of the request's error.
    """
    try:
        yield
    except httpx.HTTPError as error:
        time.sleep(_PAUSE)  # its end may be a moment later than that of its connections
        faults = [process.fault for process in processes if process.fault]
        raise PlumblineError(faults[0] if faults else f"a request failed: {error!r}") from error


def last_lines(log: Path) -> str:
    """The end of a log and where the rest is, for an error."""
    try:
        lines = log.read_text(errors="replace").rstrip().splitlines()[-_TOLD:]
    except FileNotFoundError:
        lines = []
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines or ["(nothing)"])])


def say(line: str) -> None:
    """Tell whoever looks on."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and the end of the terminal raise :class:`KeyboardInterrupt` in the block, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
