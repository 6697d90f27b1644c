"""The generator in its own process: what it sends, from when latency counts, and what it calls a failure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

from loadtest.load.generator import Generator, Target, generating
from loadtest.load.measure import calibrate
from loadtest.load.protocols import Request
from loadtest.load.samples import OK, Samples
from loadtest.load.stage import Stage
from service.contract.errors import PlumblineError
from tests.loadtest.load.stub import Asked, ok, stub
from tests.processes import free_port


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with generating() as it:
        yield it


def target(url: str, *texts: str, timeout: float = 10.0) -> Target:
    requests = [Request(json.dumps({"inputs": text}).encode()) for text in texts or ("a",)]
    return Target(url, "/predict", requests, {"x-mine": "yes"}, timeout)


def kinds(samples: Samples) -> dict[str, int]:
    counted = np.bincount(samples.kind, minlength=len(samples.kinds))
    return {kind: int(count) for kind, count in zip(samples.kinds, counted, strict=True) if count}


def test_clients_wait_for_their_answers_and_send_every_text(generator: Generator) -> None:
    with stub() as server:
        found = generator.run(target(server.url, "a", "b", "c"), Stage(clients=2, seconds=0.5, warm_up=0.2), 0)
    assert {one.body for one in server.posts} == {f'{{"inputs": "{text}"}}'.encode() for text in "abc"}
    assert all(one.headers["x-mine"] == "yes" and one.path == "/predict" for one in server.posts)
    assert kinds(found).keys() == {OK}
    assert 0 < len(found.intended) < len(server.posts)  # the warm-up is sent and not counted
    assert ((found.intended >= 0) & (found.intended <= 0.5)).all()
    assert len(found.late) == 50  # every 10 ms


def test_arrivals_come_at_the_rate_whatever_is_answered(generator: Generator) -> None:
    with stub() as server:
        found = generator.run(target(server.url), Stage(rate=100, seconds=2, warm_up=0.2), 0)
    assert len(found.intended) == pytest.approx(200, abs=75)
    assert len(found.late) == len(found.intended)


@pytest.mark.parametrize(("stage", "behind"), [({"rate": 100.0}, True), ({"clients": 1}, False)])
def test_what_a_stalled_server_keeps_waiting_counts_from_its_intended_start(
    generator: Generator, stage: dict[str, float], behind: bool
) -> None:
    """For 1.2 of 2 seconds nothing is answered. All that arrives meanwhile has waited; one client has waited once."""
    stall: list[float] = []

    def answer(asked: Asked) -> tuple[int, bytes]:
        if not stall:
            stall.append(time.monotonic() + 1.2)
        time.sleep(max(0, stall[0] - time.monotonic()))
        return ok(asked)

    with stub(answer) as server:
        found = generator.run(target(server.url), Stage(**stage, seconds=2, warm_up=0), 0)
    slow = int((found.latency > 0.4).sum())
    if behind:
        assert slow > 40  # of the 80 or so that were meant for the first 0.8 s
        assert found.latency.max() > 1.0
    else:
        assert slow <= 5
    assert kinds(found).keys() == {OK}


def test_each_way_to_fail_has_its_name(generator: Generator) -> None:
    answers = [
        (429, b'{"error": "the queue is full", "code": "overloaded"}'),
        (500, b"<html>oops</html>"),
        (302, b""),
        None,
    ]

    def answer(asked: Asked) -> tuple[int, bytes] | None:
        return answers[len(server.posts) % len(answers)]

    with stub(answer) as server:
        found = generator.run(target(server.url), Stage(rate=100, seconds=1, warm_up=0), 0)
    assert kinds(found).keys() == {"HTTP 429 overloaded", "HTTP 500", "HTTP 302", "connection closed without an answer"}
    assert "the queue is full" in found.examples["HTTP 429 overloaded"]
    assert found.examples["HTTP 500"] == "<html>oops</html>"
    assert not found.ok.any()


def test_a_server_that_is_gone_refuses(generator: Generator) -> None:
    found = generator.run(target(f"http://127.0.0.1:{free_port()}"), Stage(rate=50, seconds=0.5, warm_up=0), 0)
    assert kinds(found).keys() == {"connection refused"}


def test_what_is_not_answered_in_time_has_failed(generator: Generator) -> None:
    def answer(asked: Asked) -> tuple[int, bytes]:
        time.sleep(1)
        return ok(asked)

    with stub(answer) as server:
        found = generator.run(target(server.url, timeout=0.3), Stage(rate=30, seconds=0.5, warm_up=0), 0)
    assert kinds(found).keys() == {"timeout"}
    assert (found.latency >= 0.299).all()


def test_its_own_limit_is_found_with_a_server_that_does_nothing(generator: Generator) -> None:
    found = calibrate(generator, target("http://127.0.0.1:1"), 0)
    assert found.rate > 100
    assert 0 < found.cpu <= 1.2


def test_workers_share_the_load() -> None:
    with generating(workers=2) as generator, stub() as server:
        assert generator.workers == 2
        for stage in (Stage(clients=3, seconds=0.5, warm_up=0), Stage(rate=200, seconds=1, warm_up=0)):
            found = generator.run(target(server.url), stage, 0)
            assert kinds(found).keys() == {OK}
            assert len(found.cpu) == 2
    assert len(found.intended) == pytest.approx(200, abs=75)


def test_a_generator_that_ends_is_told() -> None:
    with generating() as generator, stub() as server:
        generator._orders.write(b"no json\n")
        with pytest.raises(PlumblineError, match="the load generator ended: the end of"):
            generator.run(target(server.url), Stage(clients=1, seconds=0.1, warm_up=0), 0)
