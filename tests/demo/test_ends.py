"""The ends of the demonstration: whatever ends it, nothing that it started goes on, and it says why at once."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fakes import make_bundle
from tests.processes import plumbline, until

pytestmark = pytest.mark.slow

# A server and a monitor as the demonstration starts them, and a retrain that is given as an argument.
LIVE = """
import shlex, sys
from pathlib import Path
from plumbline.demo.running import running
from plumbline.processes import interruptible, until
from monitoring.delivery.messages import retrain_event
from monitoring.delivery.outbox import Target, enqueue
from monitoring.state import StateStore
from tests.monitoring.test_outbox import data

folder, command = Path(sys.argv[1]), shlex.split(sys.argv[2])
with interruptible(), running(folder, folder / "models", "tickets", command) as live:
    store = StateStore(folder / "monitor")
    with store.transaction():
        enqueue(store, retrain_event(data(), 0.0), [Target("retrain-command", sys.argv[2])], 0.0)
    until(live.retraining.published, "the version", live.processes, news=live.retraining.news)
"""
HANGS = "import time; print('2026-01-31 07:00:00,000 INFO export.progress: step 1 of 9', flush=True); time.sleep(600)"


def left_of(folder: Path) -> dict[int, str]:
    """Processes that were given a path in ``folder``."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(folder) in words:
                    found[int(process.name)] = words
    return found


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The demonstration in a session of its own; a failed test leaves nothing of it either."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@contextmanager
def retraining(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demonstration whose retrain runs, and passes on what that says."""
    make_bundle(folder / "models", "tickets")
    command = shlex.join([sys.executable, "-c", f"{HANGS}  # {folder}"])
    with started([sys.executable, "-c", LIVE, str(folder), command], folder / "said") as process:
        until(lambda: "| step 1 of 9" in (folder / "said").read_text() or process.poll() is not None, 120)
        assert process.poll() is None, (folder / "said").read_text()
        assert len(left_of(folder)) == 5  # itself, server, monitor, the retrain and the shell that keeps its exit code
        yield process


def pid_of(folder: Path, command: str) -> int:
    return next(pid for pid, words in left_of(folder).items() if f" -m plumbline {command} " in words)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_monitor_retrains_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with retraining(tmp_path) as process:
        process.send_signal(number)
        process.wait(60)
    assert left_of(tmp_path) == {}
    assert "KeyboardInterrupt" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("command", ["monitor", "serve"])
def test_if_a_part_is_killed_it_ends_at_once_with_the_reason_and_without_the_rest(tmp_path: Path, command: str) -> None:
    with retraining(tmp_path) as process:
        os.kill(pid_of(tmp_path, command), signal.SIGKILL)
        process.wait(60)
    assert left_of(tmp_path) == {}
    said = (tmp_path / "said").read_text()
    assert f"the version will not come: `plumbline {command}` was ended by SIGKILL; the end of {tmp_path}" in said


def test_an_interrupted_training_leaves_nothing_and_no_traceback(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with started(plumbline("demo", "--dir", tmp_path / "demo"), said) as process:
        until(lambda: "training: " in said.read_text() or process.poll() is not None, 240)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, said.read_text()
    assert left_of(tmp_path) == {}
    assert said.read_text().splitlines()[-1] == (
        f"interrupted: every process was ended; what they wrote is in {tmp_path / 'demo'}"
    )
    assert "Traceback" not in said.read_text()
