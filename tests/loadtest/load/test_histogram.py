"""Quantiles within the buckets' width, and intervals that hold as often as they say."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from loadtest.load.histogram import BUCKETS, Round, answered, estimates, quantile, round_of, timeline, totals
from loadtest.load.samples import OK, Samples

MEDIAN = {"p50": partial(quantile, share=0.5)}


def samples(latency: np.ndarray, seconds: float = 10.0, failed: np.ndarray | None = None) -> Samples:
    return Samples(
        intended=np.linspace(0, seconds, len(latency), endpoint=False),
        latency=latency,
        kind=(np.zeros(len(latency)) if failed is None else failed).astype(np.uint16),
        kinds=[OK, "timeout"],
        late=np.zeros(1),
        cpu=[0.1],
        examples={},
    )


def one_round(latency: np.ndarray, seconds: float = 10.0, failed: np.ndarray | None = None) -> Round:
    return round_of(samples(latency, seconds, failed), seconds)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_quantiles_are_right_to_the_width_of_a_bucket(share: float) -> None:
    latency = np.random.default_rng(0).lognormal(-4, 0.7, 50_000)
    found = float(quantile(totals([one_round(latency)]), share))
    assert found == pytest.approx(1000 * np.quantile(latency, share), rel=0.015)


def test_failures_are_left_out_or_taken_as_never_answered() -> None:
    latency = np.full(1000, 0.01)
    found = totals([one_round(latency, failed=np.arange(1000) % 50 == 0)])  # 2 %
    assert quantile(found, 0.99) == pytest.approx(10, rel=0.02)
    assert quantile(found, 0.99, with_failures=True) == np.inf
    assert quantile(found, 0.97, with_failures=True) == pytest.approx(10, rel=0.02)


def test_nothing_answered_has_no_latency() -> None:
    found = one_round(np.full(100, 0.01), failed=np.ones(100))
    assert np.isnan(quantile(totals([found]), 0.5))
    assert estimates([found], {"rate": answered([found])})["rate"].value == 0
    assert timeline(found)[0]["answered"] == 0


def test_latencies_outside_the_buckets_are_in_the_last_ones() -> None:
    found = totals([one_round(np.array([0.0, 1e-9, 5000.0]))])
    assert found[0] == 2
    assert found[BUCKETS - 1] == 1


def test_a_round_is_kept_without_loss() -> None:
    found = one_round(np.random.default_rng(0).lognormal(-4, 0.7, 500))
    assert Round.model_validate_json(found.model_dump_json()) == found
    assert found.counts().sum() == 500
    assert len(found.blocks) == 10


def queue(rng: np.random.Generator, seconds: int = 40) -> np.ndarray:
    """Waits in a queue: what follows each other is alike (Lindley's recursion, 80 % busy, 50 requests a second)."""
    steps = rng.exponential(0.016, 50 * seconds) - rng.exponential(0.02, 50 * seconds)
    path = np.concatenate([[0.0], np.cumsum(steps)])
    return path - np.minimum.accumulate(path) + 0.005


def test_intervals_hold_about_as_often_as_they_say_where_requests_wait_for_each_other() -> None:
    rng = np.random.default_rng(0)
    true = 1000 * float(np.median(np.concatenate([queue(rng) for _ in range(500)])))
    inside = 0
    for seed in range(60):
        found = estimates([one_round(queue(rng), 40.0)], MEDIAN, seed)["p50"]
        inside += found.low <= true <= found.high
    assert inside >= 48  # of independent requests it would be about 30


def test_more_rounds_that_differ_make_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    latency = rng.lognormal(-4, 0.2, (3, 2000))
    alike = [one_round(one) for one in latency]
    moody = [one_round(one * factor) for one, factor in zip(latency, (0.8, 1.0, 1.25), strict=True)]
    widths = []
    for rounds in (alike, moody):
        found = estimates(rounds, MEDIAN)["p50"]
        widths.append(found.high / found.low)
    assert widths[1] > 1.2 > widths[0]
