"""The retrain hook: when drift may ask for a retrain, and the command that is then run.

The command gets the event as JSON on standard input and ``PLUMBLINE_EVENT_ID`` and ``PLUMBLINE_MODEL`` in its
environment; no shell is involved. It exits with 0 (a challenger was accepted), 3 (rejected) or anything else
(failed). One that was cut off by the monitor's own end is started once more. One runs at a time, also when the monitor
was killed and the command goes on without it: the command holds a lock, with its process group in it, for as long as
anything of it lives, and its exit code is written beside its output, where the next monitor finds it. That monitor
ends it when its time is over. Whatever a command leaves running when it has ended is ended, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from monitoring.delivery.outbox import Delivery, GivenUp, due, running
from monitoring.state import StateStore

logger = logging.getLogger(__name__)

DAY = 86_400.0
GRACE = 10.0  # seconds between asking a command to end and killing it
_MOST_STARTS = 2
_REJECTED = 3
_MOST_OUTPUT = 4 * 2**20  # bytes of a command's output that are kept, the newest
_LOOK = 0.2  # seconds
_LOCK = "lock"  # beside the commands' output
# Says its process group before anything else can go wrong, runs the command and keeps its exit code, whoever waits
# for it by then.
_RUNNER = """printf %s $$ > "$1"; shift; cut=; trap cut=1 TERM; "$@"; code=$?
[ -n "$cut" ] || { printf %s "$code" > "$0.new" && mv "$0.new" "$0"; }; exit "$code"
"""
_NOT_STARTED = (126, 127)  # a shell's exit codes for what it cannot run
_SIGNALLED = 128  # and, with the signal's number added, for what a signal has ended
_WITHHELD = ("PLUMBLINE_WEBHOOK_", "PLUMBLINE_RETRAIN_TOKEN")  # the monitor's own settings, with its secrets

Answer = Literal["accepted", "rejected", "failed"]


@dataclass(frozen=True)
class Gate:
    """How often a model may ask: at least ``cooldown`` seconds apart, at most ``daily_cap`` times in 24 hours."""

    cooldown: float
    daily_cap: int


@dataclass(frozen=True)
class Command:
    """A model's newest retrain command: what ``status`` the outbox gives it, how it ended, and where its output is."""

    status: Literal["pending", "running", "delivered", "dead"]
    end: str | None
    log: Path


@dataclass(frozen=True)
class _Place:
    """Where a command writes to, and the lock that it holds while it runs."""

    logs: Path
    lock: TextIO


def may_request(store: StateStore, model: str, gate: Gate, now: float) -> str | None:
    """None if a retrain may be requested now, else why not."""
    times = [
        row["created"]
        for row in store.rows(
            "SELECT created FROM events WHERE type = 'plumbline.retrain.requested' AND model = ? AND created > ? "
            "ORDER BY created",
            (model, now - max(gate.cooldown, DAY)),
        )
    ]
    if times and now - times[-1] < gate.cooldown:
        return f"the last request was {now - times[-1]:.0f} s ago and the cooldown is {gate.cooldown:.0f} s"
    if sum(now - time < DAY for time in times) >= gate.daily_cap:
        return f"the daily cap of {gate.daily_cap} is reached"
    return None


def recover_interrupted(
    store: StateStore,
    logs: Path,
    clock: Callable[[], float],
    given_up: GivenUp = lambda delivery, reason: None,
    timeout: float = DAY,
) -> list[tuple[str, Answer]]:
    """See to commands that a dead monitor left running; returns the model and answer of those that have ended.

    One that still runs is left alone until it has run for ``timeout`` seconds. One that ended by itself has its answer.
    One that was cut off is due once more, or given up if it was cut off before.
    """
    answers: list[tuple[str, Answer]] = []
    for delivery in running(store, ("retrain-command",)):
        log = _log_of(logs, delivery)
        if _is_held(logs):
            _cut(log)
            ended = _kept_code(logs, delivery.event, delivery.attempts) is not None
            if not ended and _age(logs) < timeout:
                break
            end_command(logs)  # or what it has left running
            if not ended:
                answers.append((delivery.model, _settle(store, delivery, _too_long(timeout), clock(), log, given_up)))
                continue
        code = _kept_code(logs, delivery.event, delivery.attempts)
        if code is not None:
            answers.append((delivery.model, _settle(store, delivery, code, clock(), log, given_up)))
        elif delivery.attempts >= _MOST_STARTS:
            _settle(store, delivery, "cut off twice by the end of the monitor", clock(), None, given_up)
            answers.append((delivery.model, "failed"))
        else:
            with store.transaction():
                store.execute("UPDATE outbox SET status = 'pending', due = ? WHERE id = ?", (clock(), delivery.id))
    return answers


def run_commands(
    store: StateStore,
    logs: Path,
    timeout: float,
    stop: threading.Event,
    clock: Callable[[], float],
    given_up: GivenUp = lambda delivery, reason: None,
) -> list[tuple[str, Answer]]:
    """Run the due retrain commands one after another, until ``stop`` is set; returns each model and answer.

    :param given_up: called for each that failed.
    """
    answers = recover_interrupted(store, logs, clock, given_up, timeout)
    while not stop.is_set():
        waiting = due(store, ("retrain-command",), clock(), most=1)
        if not waiting:
            break
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break  # a command that outlived its monitor still runs; the next round looks again
            lock.truncate(0)  # of a command that has ended; the next one writes its own
            answer = _run(store, waiting[0], _Place(logs, lock), timeout, stop, clock, given_up)
        if answer is not None:
            answers.append((waiting[0].model, answer))
    return answers


def newest_command(store: StateStore, logs: Path, model: str) -> Command | None:
    """What became of the last command that was asked for; None if none was."""
    row = store.row(
        "SELECT event, status, error, attempts FROM outbox JOIN events ON events.id = event "
        "WHERE kind = 'retrain-command' AND model = ? ORDER BY outbox.id DESC",
        (model,),
    )
    return Command(row["status"], row["error"], _log(logs, row["event"], row["attempts"])) if row else None


def end_command(logs: Path) -> None:
    """End the command that runs, with what it started; also one that outlived its monitor."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        group = _holder(logs)
        if group is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        deadline = time.monotonic() + GRACE
        while _holder(logs) == group and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_held(logs: Path) -> bool:
    """Whether something of a command lives, even if it has not said its process group yet."""
    try:
        with (logs / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _holder(logs: Path) -> int | None:
    """The process group that holds the lock."""
    return int((logs / _LOCK).read_text() or 0) or None if _is_held(logs) else None


def _age(logs: Path) -> float:
    """Seconds since the newest command wrote its process group, which is the first thing that it does."""
    return time.time() - (logs / _LOCK).stat().st_mtime


def _too_long(timeout: float) -> str:
    return f"it ran longer than {timeout:g} s"


def _cut(log: Path) -> None:
    """Keep the newest part of an output that has become too long; whoever writes it appends, and goes on at its end."""
    with contextlib.suppress(OSError), log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size > _MOST_OUTPUT:
            file.seek(size - _MOST_OUTPUT // 2)
            rest = file.read(_MOST_OUTPUT // 2)
            file.truncate(0)
            file.seek(0)
            file.write(b"[the beginning was left out]\n" + rest)


def _log(logs: Path, event: str, attempt: int) -> Path:
    return logs / f"{event}-{attempt}.log"


def _log_of(logs: Path, delivery: Delivery) -> Path:
    return _log(logs, delivery.event, delivery.attempts)


def _kept_code(logs: Path, event: str, attempt: int) -> int | None:
    """The exit code that a command left; None if it was cut off."""
    try:
        return int(_log(logs, event, attempt).with_suffix(".exit").read_text())
    except (OSError, ValueError):
        return None


def _run(
    store: StateStore,
    delivery: Delivery,
    place: _Place,
    timeout: float,
    stop: threading.Event,
    clock: Callable[[], float],
    given_up: GivenUp,
) -> Answer | None:
    """One command from its mark as running to its answer; None if it was cut off and will be started again."""
    with store.transaction():
        store.execute("UPDATE outbox SET status = 'running', attempts = attempts + 1 WHERE id = ?", (delivery.id,))
    end, log = _execute(delivery, place, timeout, stop)
    if end is None:
        logger.warning("the retrain command for %s was cut off by the end of the monitor", delivery.event)
        return None
    return _settle(store, delivery, end, clock(), log, given_up)


def _settle(
    store: StateStore, delivery: Delivery, end: int | str, now: float, log: Path | None, given_up: GivenUp
) -> Answer:
    """Write down how a command ended: by an exit code, or why there is none."""
    answer: Answer = "accepted" if end == 0 else "rejected" if end == _REJECTED else "failed"
    error = f"exit code {end}" if isinstance(end, int) else end
    if end in _NOT_STARTED:
        error += ", the command could not be started"
    elif isinstance(end, int) and (end < 0 or end > _SIGNALLED):
        error += f", signal {-end if end < 0 else end - _SIGNALLED}"
    with store.transaction():
        store.execute(
            "UPDATE outbox SET status = ?, error = ?, finished = ? WHERE id = ?",
            ("dead" if answer == "failed" else "delivered", error if answer == "failed" else answer, now, delivery.id),
        )
        if answer == "failed":
            given_up(delivery, error)
    level = logging.ERROR if answer == "failed" else logging.INFO
    logger.log(level, "retrain of %s %s (%s); its output is in %s", delivery.model, answer, error, log or "no file")
    return answer


def _execute(delivery: Delivery, place: _Place, timeout: float, stop: threading.Event) -> tuple[int | str | None, Path]:
    """The command's exit code, or why it has none, or None if ``stop`` cut it off; and the file with its output."""
    log = _log(place.logs, delivery.event, delivery.attempts + 1)
    kept = log.with_suffix(".exit")
    kept.unlink(missing_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
    environment = {**inherited, "PLUMBLINE_EVENT_ID": delivery.event, "PLUMBLINE_MODEL": delivery.model}
    runner = ("/bin/sh", "-c", _RUNNER, str(kept.resolve()), str((place.logs / _LOCK).resolve()))
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                [*runner, *shlex.split(delivery.target)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                pass_fds=(place.lock.fileno(),),
            )
        except OSError as error:
            return f"the command could not be started: {error}", log
        feeder = threading.Thread(target=_feed, args=(process, delivery.body), daemon=True)
        feeder.start()
        code = _wait(process, log, timeout, stop)
    _cut(log)
    if code is None and not stop.is_set():
        return _too_long(timeout), log
    return code, log


def _feed(process: subprocess.Popen[bytes], body: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(body)
        process.stdin.close()
    except OSError:
        pass  # a command need not read its input


def _wait(process: subprocess.Popen[bytes], log: Path, timeout: float, stop: threading.Event) -> int | None:
    """The exit code; None if it did not end in time or before ``stop``. Nothing of its process group is left."""
    deadline = time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0 and not stop.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(_LOOK, left))
            _cut(log)
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(GRACE)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
