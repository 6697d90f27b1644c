"""The search for the highest rate, against servers whose maximum is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from loadtest.load.result import StageResult
from loadtest.load.search import search
from loadtest.load.stage import Stage
from tests.loadtest.load.results import stage_result


def server(capacity: float, rng: np.random.Generator, **other: float) -> Callable[[Stage], StageResult]:
    """Waits of a queue: exponential, longer the nearer the rate is to the capacity; beyond it they grow (M/M/1)."""

    def measure(stage: Stage) -> StageResult:
        rate = stage.rate or 0.0
        requests = int(rate * stage.seconds)
        mean = 1 / (capacity - rate) if rate < 0.999 * capacity else 10.0
        return stage_result(rng.exponential(mean, requests), rate=rate, seconds=stage.seconds, **other)

    return measure


def highest(capacity: float, objective: float) -> float:
    """Where the p99 of an M/M/1 queue is the objective (milliseconds)."""
    return capacity - np.log(100) / (objective / 1000)


@pytest.mark.parametrize("reached", [200, 500, 900])
def test_the_highest_rate_is_found_within_its_interval(reached: float) -> None:
    inside = 0
    for seed in range(6):
        measure = server(500, np.random.default_rng(seed))
        maximum, tried = search(measure, 50, reached, 10, 1)
        assert maximum.rate == pytest.approx(highest(500, 50), rel=0.08)
        assert maximum.high is not None
        inside += maximum.low <= highest(500, 50) <= maximum.high
        rates = [one.stage.rate or 0 for one in tried]
        assert rates == sorted(rates)
    assert inside >= 4


def test_where_no_rate_keeps_it_the_answer_is_none() -> None:
    maximum, tried = search(server(500, np.random.default_rng(0)), 5, 500, 5, 1)
    assert maximum.rate == maximum.low == 0
    assert maximum.high == tried[0].stage.rate


def test_an_unclear_rate_is_run_again() -> None:
    asked: list[float] = []
    measure = server(500, np.random.default_rng(0))

    def counted(stage: Stage) -> StageResult:
        asked.append(stage.rate or 0.0)
        return measure(stage)

    _, tried = search(counted, 50, 500, 2, 0)
    assert len(asked) > len(set(asked)) == len(tried)
    assert all(len(one.rounds) == asked.count(one.stage.rate or 0) for one in tried)


def test_a_generator_that_is_late_once_is_asked_again() -> None:
    rng = np.random.default_rng(0)
    quiet, busy = server(500, rng), server(500, rng, cpu=0.95)
    seen: set[float] = set()

    def measure(stage: Stage) -> StageResult:
        rate = stage.rate or 0.0
        first = rate not in seen
        seen.add(rate)
        return (busy if first else quiet)(stage)

    maximum, tried = search(measure, 50, 500, 10, 1)
    assert maximum.rate == pytest.approx(highest(500, 50), rel=0.08)
    assert maximum.high is not None
    assert all(one.keeps(50) is not None for one in tried)


def test_a_generator_that_is_the_limit_leaves_the_upper_end_open() -> None:
    maximum, tried = search(server(500, np.random.default_rng(0), cpu=0.95), 50, 500, 5, 1)
    assert maximum.rate == pytest.approx(highest(500, 50), rel=0.08)  # busy, and yet kept
    assert maximum.high is None
    assert not any(one.counts for one in tried)
