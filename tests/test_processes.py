"""Waits that end with the process, and processes that end with who started them; with small real ones."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from plumbline import processes
from plumbline.processes import PATIENCE, Process, faults_explained, free_port, interruptible
from plumbline.processes import until as wait_until
from service.contract.errors import PlumblineError
from tests.processes import until

FOREVER = "import time; time.sleep(600)"


def python(code: str, log: Path | None = None, patience: float = PATIENCE) -> Process:
    return Process("`the stand-in`", [sys.executable, "-c", code], log, patience=patience)


def alive(pid: int) -> bool:
    """Whether it runs; what has ended and was not yet looked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_wait_ends_at_once_with_the_process_and_repeats_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "monitor.log"
    with (
        python("print('no room is left on the disk'); raise SystemExit(7)", log) as process,
        pytest.raises(PlumblineError, match="the windows will not come: `the stand-in` ended with exit code 7") as no,
    ):
        wait_until(lambda: None, "the windows", [process])
    assert f"the end of {log}:\n  no room is left on the disk" in str(no.value)


def test_also_if_it_was_killed_and_took_its_server_with_it(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with python(FOREVER, tmp_path / "log") as process:
        threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
        with pytest.raises(PlumblineError, match=r"was ended by SIGKILL; the end of .*log:\n  \(nothing\)"):
            wait_until(lambda: httpx.get(url).is_success, "an answer", [process])


def test_a_wait_is_not_limited_by_the_clock_and_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 1_000_000, 5))
    clock = SimpleNamespace(monotonic=lambda: float(next(now)), sleep=lambda seconds: None)
    looks = iter([*[None] * 1000, "there it is"])
    news = iter(["step 1 of 2", "step 2 of 2"])
    with python(FOREVER, tmp_path / "log") as process:
        monkeypatch.setattr(processes, "time", clock)
        found = wait_until(lambda: next(looks), "the version", [process], news=lambda: list(news)[:2])
    assert found == "there it is"
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["     | step 1 of 2", "     | step 2 of 2"]
    assert said[2].startswith("     waiting for the version, ")
    assert float(said[-1].split()[-4]) > 3600


def test_what_came_just_before_the_end_counts(tmp_path: Path) -> None:
    with python("", tmp_path / "log") as process:
        until(lambda: process.fault)
        assert wait_until(lambda: "the event", "the event", [process]) == "the event"


def test_a_request_that_failed_is_explained_by_the_end_of_its_server(tmp_path: Path) -> None:
    with python("raise SystemExit(1)", tmp_path / "log") as process:
        until(lambda: process.fault)
        with pytest.raises(PlumblineError, match="ended with exit code 1"), faults_explained([process]):
            httpx.get(f"http://127.0.0.1:{free_port()}")


def test_a_command_that_fails_is_an_error() -> None:
    with (
        python("raise SystemExit(3)") as process,
        pytest.raises(PlumblineError, match="exit code 3; it said why above"),
    ):
        process.finish()


def test_the_end_is_also_that_of_children_and_of_those_that_will_not_go(tmp_path: Path) -> None:
    child = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {FOREVER}"
    parent = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True)"
    )
    log = tmp_path / "log"
    with python(f"{parent}; {FOREVER}", log, patience=0.5) as process:
        until(lambda: "ready" in log.read_text())
        grandchild = int(log.read_text().split()[0])
        assert alive(process.pid)
        assert alive(grandchild)
    until(lambda: not alive(grandchild))
    assert not alive(process.pid)


def interrupt(number: signal.Signals, later: signal.Signals | None = None) -> None:
    """Send a signal to this process, maybe another after half a second, and wait for what it does."""
    if later is not None:
        threading.Timer(0.5, os.kill, (os.getpid(), later)).start()
    os.kill(os.getpid(), number)
    time.sleep(60)


def test_a_second_interrupt_ends_the_patience(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {FOREVER}"
    started = time.monotonic()
    process = python(stubborn, log)
    until(lambda: "ready" in log.read_text())
    with interruptible(), pytest.raises(KeyboardInterrupt), process:
        interrupt(signal.SIGTERM, signal.SIGINT)
    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_every_way_of_ending_it_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    process = python(FOREVER, tmp_path / "log")
    with pytest.raises(KeyboardInterrupt), interruptible(), process:
        interrupt(number)
    assert not alive(process.pid)
    assert signal.getsignal(number) is before
