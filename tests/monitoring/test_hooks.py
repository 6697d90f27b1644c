"""The retrain command: run once for each request, its answer kept, its interruption survived."""

from __future__ import annotations

import fcntl
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from monitoring.delivery.hooks import Gate, end_command, may_request, recover_interrupted, run_commands
from monitoring.delivery.messages import retrain_event
from monitoring.delivery.outbox import Target, enqueue
from monitoring.state import StateStore
from tests.monitoring.test_outbox import NOW, data
from tests.processes import until

FOREVER = "import time; time.sleep(60)"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    found = StateStore(tmp_path / "state")
    yield found
    found.close()


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def request(store: StateStore, command: str, now: float = NOW) -> str:
    event = retrain_event(data(), now)
    with store.transaction():
        enqueue(store, event, [Target("retrain-command", command)], now)
    return event.id


def run(
    store: StateStore, tmp_path: Path, *, timeout: float = 20, stop: threading.Event | None = None
) -> list[tuple[str, str]]:
    return list(run_commands(store, tmp_path / "logs", timeout, stop or threading.Event(), lambda: NOW + 1))


def kill_a_monitor(folder: Path, once: Callable[[], bool]) -> None:
    """A monitor of its own runs the due command and is killed when that has begun."""
    monitor = (
        "import threading, time; from pathlib import Path; from monitoring.state import StateStore;"
        "from monitoring.delivery.hooks import run_commands;"
        f"run_commands(StateStore(Path({str(folder / 'state')!r})), Path({str(folder / 'logs')!r}), 60,"
        "threading.Event(), time.time)"
    )
    process = subprocess.Popen([sys.executable, "-c", monitor], cwd=Path(__file__).parents[2])
    try:
        until(once)
    finally:
        process.kill()
        process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def status(store: StateStore) -> list[tuple[str, int]]:
    return [tuple(row) for row in store.rows("SELECT status, attempts FROM outbox ORDER BY id")]


def test_the_command_gets_the_event_and_its_output_is_kept(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_WEBHOOK_SECRET", "whsec_hidden")
    monkeypatch.setenv("PLUMBLINE_RETRAIN_TOKEN", "hidden, too")
    code = (
        "import os, sys; print(os.environ['PLUMBLINE_EVENT_ID'], os.environ['PLUMBLINE_MODEL'],"
        "'PLUMBLINE_WEBHOOK_SECRET' in os.environ or 'PLUMBLINE_RETRAIN_TOKEN' in os.environ); print(sys.stdin.read())"
    )
    identity = request(store, python(code))
    assert run(store, tmp_path) == [("tickets", "accepted")]
    first, second = (tmp_path / "logs" / f"{identity}-1.log").read_text().splitlines()
    assert first == f"{identity} tickets False"
    assert orjson.loads(second)["type"] == "plumbline.retrain.requested"
    assert run(store, tmp_path) == []


@pytest.mark.parametrize(
    ("command", "answer", "left"),
    [
        (python("raise SystemExit(0)"), "accepted", "delivered"),
        (python("raise SystemExit(3)"), "rejected", "delivered"),
        (python("raise SystemExit(1)"), "failed", "dead"),
        ("/no/such/program --now", "failed", "dead"),
    ],
)
def test_exit_codes_are_answers(store: StateStore, tmp_path: Path, command: str, answer: str, left: str) -> None:
    request(store, command)
    assert run(store, tmp_path) == [("tickets", answer)]
    assert status(store) == [(left, 1)]


def test_no_shell_is_involved(store: StateStore, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    request(store, f"{python('import sys; print(sys.argv[1:])')} ';' touch {mark} '$HOME'")
    run(store, tmp_path)
    assert not mark.exists()
    assert "'$HOME'" in next((tmp_path / "logs").glob("*.log")).read_text()


def test_a_command_that_runs_too_long_is_ended_with_its_children(store: StateStore, tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FOREVER!r}])"
    request(store, python(child))
    started = time.monotonic()
    assert run(store, tmp_path, timeout=1) == [("tickets", "failed")]
    assert time.monotonic() - started < 10


def test_a_command_cut_off_by_the_end_of_the_monitor_is_started_once_more(store: StateStore, tmp_path: Path) -> None:
    request(store, python(FOREVER))
    for attempt in (1, 2):
        stop = threading.Event()
        threading.Timer(0.4, stop.set).start()
        assert run(store, tmp_path, stop=stop) == []
        assert status(store) == [("running", attempt)]
        answers = recover_interrupted(store, tmp_path / "logs", lambda: NOW)
        assert answers == ([("tickets", "failed")] if attempt == 2 else [])
    assert status(store) == [("dead", 2)]
    assert run(store, tmp_path) == []


def test_a_command_that_outlived_a_killed_monitor_is_not_started_twice_and_can_be_ended(
    store: StateStore, tmp_path: Path
) -> None:
    """The monitor is killed with -9, its command goes on; the next monitor waits until it has ended."""
    pid_file = tmp_path / "pid"
    code = (
        f"import os, pathlib, time; file = pathlib.Path({str(pid_file)!r}); again = file.exists();"
        "file.write_text(str(os.getpid())); again or time.sleep(30)"
    )
    request(store, python(code), now=0)
    kill_a_monitor(tmp_path, once=lambda: pid_file.exists() and bool(pid_file.read_text()))
    try:
        assert run(store, tmp_path) == []
        assert status(store) == [("running", 1)]
    finally:
        end_command(tmp_path / "logs")
    deadline = time.monotonic() + 10
    while not (answers := run(store, tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answers == [("tickets", "accepted")]
    assert status(store) == [("delivered", 2)]


def test_a_command_that_has_not_said_its_process_group_yet_is_not_started_twice(
    store: StateStore, tmp_path: Path
) -> None:
    """The monitor was killed between the start of the command and its first line: the lock is held, and empty."""
    request(store, python(""), now=0)
    store.execute("UPDATE outbox SET status = 'running', attempts = 1")
    (tmp_path / "logs").mkdir()
    with (tmp_path / "logs" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(store, tmp_path) == []
        assert status(store) == [("running", 1)]
    assert run(store, tmp_path) == [("tickets", "accepted")]


def test_a_command_that_outlived_a_killed_monitor_has_no_more_time_than_another(
    store: StateStore, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    request(
        store, python(f"import os, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); {FOREVER}"), 0
    )
    kill_a_monitor(tmp_path, once=lambda: pid_file.exists() and bool(pid_file.read_text()))
    assert run(store, tmp_path) == []
    time.sleep(0.5)
    reasons: list[str] = []
    answers = recover_interrupted(
        store, tmp_path / "logs", lambda: NOW, lambda _, reason: reasons.append(reason), timeout=0.5
    )
    assert answers == [("tickets", "failed")]
    assert reasons == ["it ran longer than 0.5 s"]
    assert not alive(int(pid_file.read_text()))
    assert run(store, tmp_path) == []


def test_what_a_command_leaves_running_is_ended_with_it(store: StateStore, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    left = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])"
    request(store, python(f"{left}; open({str(pid_file)!r}, 'w').write(str(child.pid))"))
    assert run(store, tmp_path) == [("tickets", "accepted")]
    until(lambda: not alive(int(pid_file.read_text())))


def test_of_much_output_the_newest_part_is_kept(store: StateStore, tmp_path: Path) -> None:
    request(store, python("for n in range(2_000_000): print('line', n)"))
    assert run(store, tmp_path, timeout=60) == [("tickets", "accepted")]
    (log,) = (tmp_path / "logs").glob("*.log")
    assert log.stat().st_size <= 4 * 2**20
    text = log.read_text()
    assert text.startswith("[the beginning was left out]")
    assert text.endswith("line 1999999\n")


def test_the_signal_that_ended_a_command_is_named(store: StateStore, tmp_path: Path) -> None:
    request(store, python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    reasons: list[str] = []
    run_commands(
        store, tmp_path / "logs", 20, threading.Event(), lambda: NOW + 1, lambda _, reason: reasons.append(reason)
    )
    assert reasons == ["exit code 137, signal 9"]


def test_there_is_nothing_to_end_where_no_command_runs(store: StateStore, tmp_path: Path) -> None:
    end_command(tmp_path / "logs")
    request(store, python(""))
    run(store, tmp_path)
    end_command(tmp_path / "logs")  # the lock still names the one that has ended


def test_the_gate_keeps_requests_apart_and_below_the_daily_cap(store: StateStore) -> None:
    gate = Gate(cooldown=100, daily_cap=2)
    assert may_request(store, "tickets", gate, NOW) is None
    request(store, "true", NOW)
    assert "cooldown" in (may_request(store, "tickets", gate, NOW + 99) or "")
    assert may_request(store, "tickets", gate, NOW + 101) is None
    assert may_request(store, "other", gate, NOW + 1) is None
    request(store, "true", NOW + 101)
    assert "daily cap" in (may_request(store, "tickets", gate, NOW + 1000) or "")
    assert may_request(store, "tickets", gate, NOW + 86_401) is None


def test_what_outlives_a_killed_monitor_and_ends_by_itself_is_not_run_again(store: StateStore, tmp_path: Path) -> None:
    """Its exit code is found, also the one of a failure, which people are told of."""
    runs = tmp_path / "runs"
    code = (
        f"import pathlib, time; file = pathlib.Path({str(runs)!r}); file.open('a').write('x'); time.sleep(1);"
        "raise SystemExit(3)"
    )
    request(store, python(code), now=0)
    kill_a_monitor(tmp_path, once=runs.exists)
    assert run(store, tmp_path) == []  # it still runs
    deadline = time.monotonic() + 10
    while not (answers := run(store, tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answers == [("tickets", "rejected")]
    assert runs.read_text() == "x"
    assert status(store) == [("delivered", 1)]


def test_a_command_that_ends_in_its_own_time_when_it_is_told_to_is_waited_for(
    store: StateStore, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    code = (
        "import signal, sys, time, pathlib; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5),"
        f"pathlib.Path({str(mark)!r}).touch(), sys.exit(0))); print('ready', flush=True); time.sleep(60)"
    )
    request(store, python(code))
    stop = threading.Event()

    def end() -> None:
        while not any("ready" in path.read_text() for path in (tmp_path / "logs").glob("*.log")):
            time.sleep(0.05)
        stop.set()

    threading.Thread(target=end).start()
    assert run(store, tmp_path, stop=stop) == []
    assert mark.exists()
    assert status(store) == [("running", 1)]
    assert recover_interrupted(store, tmp_path / "logs", lambda: NOW) == []
    assert status(store) == [("pending", 1)]  # it was cut off, and has not answered
