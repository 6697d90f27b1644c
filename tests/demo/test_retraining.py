"""How a retrain ends is seen from outside; with the monitor's own state and tiny commands in place of the retrain."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.delivery.hooks import run_commands
from monitoring.delivery.messages import retrain_event
from monitoring.delivery.outbox import Target, enqueue
from monitoring.state import StateStore
from plumbline.demo.retraining import Retraining
from plumbline.demo.traffic import Receiver
from service.contract.errors import PlumblineError
from tests.monitoring.test_outbox import data
from tests.monitoring.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.publish()
    return world


@pytest.fixture
def retraining(world: World) -> Iterator[Retraining]:
    receiver = Receiver()
    found = Retraining(receiver, world.state, world.repo, "tickets")
    yield found
    found.close()
    receiver.close()


def ask(world: World, code: str) -> StateStore:
    store = StateStore(world.state)
    with store.transaction():
        command = shlex.join([sys.executable, "-c", code])
        enqueue(store, retrain_event(data(), 0.0), [Target("retrain-command", command)], 0.0)
    return store


def work(store: StateStore, world: World) -> None:
    run_commands(store, world.state / "retrain", 60, threading.Event(), time.time)
    store.close()


def test_nothing_is_said_while_it_waits(world: World, retraining: Retraining) -> None:
    assert retraining.published() is None
    ask(world, "").close()
    assert retraining.published() is None
    assert retraining.news() == []


def test_a_retrain_that_fails_ends_the_wait_with_the_end_of_its_log(world: World, retraining: Retraining) -> None:
    work(ask(world, "print('the checkpoint was not kept'); raise SystemExit(2)"), world)
    with pytest.raises(PlumblineError, match=r"the retrain failed \(exit code 2\); the end of .*-1\.log:\n  the check"):
        retraining.published()


def test_one_that_cannot_start_too(world: World, retraining: Retraining) -> None:
    store = StateStore(world.state)
    with store.transaction():
        enqueue(store, retrain_event(data(), 0.0), [Target("retrain-command", "/no/such/program")], 0.0)
    work(store, world)
    with pytest.raises(PlumblineError, match=r"could not be started"):
        retraining.published()


def test_one_that_publishes_nothing_too(world: World, retraining: Retraining) -> None:
    work(ask(world, "print('nothing to do')"), world)
    with pytest.raises(PlumblineError, match=r"published nothing; .*\n  nothing to do"):
        retraining.published()


def test_one_that_published_is_waited_for_until_the_monitor_tells(world: World, retraining: Retraining) -> None:
    store = ask(world, "")
    world.publish(seed=2)
    work(store, world)
    assert retraining.published() is None
    retraining._receiver.events.append({"type": "plumbline.model.published", "data": {}})
    assert retraining.published() == {"type": "plumbline.model.published", "data": {}}


def test_a_rejection_is_the_end_with_its_reasons(world: World, retraining: Retraining) -> None:
    store = ask(world, "raise SystemExit(3)")
    world.publish(seed=2, live=False)
    work(store, world)
    assert retraining.published() is None
    retraining._receiver.events.append({"type": "plumbline.model.rejected", "data": {"reasons": ["worse", "slower"]}})
    with pytest.raises(PlumblineError, match="rejected: worse; slower"):
        retraining.published()


def test_progress_is_passed_on_while_it_runs(world: World, retraining: Retraining, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = (
        "import pathlib, time\n"
        "line = '2026-01-31 07:00:00,000 INFO export.progress: training: step {} of 2'\n"
        "print(line.format(1), 'a library says something', line.format(2)[:30], sep='\\n', end='', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "print(line.format(2)[30:])\n"
    )
    thread = threading.Thread(target=work, args=(ask(world, code), world))
    thread.start()
    told: list[str] = []
    while not told:
        told += retraining.news()
    assert told == ["training: step 1 of 2"]
    go.touch()
    thread.join()
    assert retraining.news() == ["training: step 2 of 2"]
    assert retraining.news() == []
