"""Arrivals, rates that change, durations and bursts as they are written."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.load.stage import Burst, Stage, arrivals, read_burst, read_duration
from service.contract.errors import InvalidInput


def moments(share: float = 1.0, seed: int = 0, **stage: object) -> np.ndarray:
    return arrivals(Stage.model_validate({"seconds": 100, "warm_up": 10, **stage}), share, np.random.default_rng(seed))


def test_arrivals_are_a_poisson_process_of_the_rate_from_the_warm_up_on() -> None:
    found = moments(rate=200)
    assert found[0] < -9.5
    assert found[-1] < 100
    assert (np.diff(found) >= 0).all()
    counted = found[found >= 0]
    assert len(counted) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    gaps = np.diff(counted)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an exponential distribution both are the same
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.03)


def test_generators_share_a_rate() -> None:
    found = [moments(share=1 / 4, seed=seed, rate=200) for seed in range(4)]
    assert sum((one >= 0).sum() for one in found) == pytest.approx(20_000, abs=5 * 20_000**0.5)


def test_a_ramp_goes_from_one_rate_to_the_other() -> None:
    found = moments(rate=10, ramp_to=500)
    assert (found < 0).sum() == pytest.approx(100, abs=50)
    first, last = ((begin <= found) & (found < begin + 10) for begin in (0, 90))
    assert first.sum() == pytest.approx(10 * (10 + 24.5), rel=0.3)
    assert last.sum() == pytest.approx(10 * (500 - 24.5), rel=0.1)


def test_a_burst_ends_each_cycle() -> None:
    found = moments(rate=100, burst=Burst(factor=5, seconds=2, every=10))
    into = found[found >= 0] % 10
    assert (into >= 8).sum() / 20 == pytest.approx(500, rel=0.05)
    assert (into < 8).sum() / 80 == pytest.approx(100, rel=0.1)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    assert np.array_equal(moments(rate=50), moments(rate=50))
    assert not np.array_equal(moments(rate=50)[:10], moments(rate=50, seed=1)[:10])


@pytest.mark.parametrize(("given", "seconds"), [("50ms", 0.05), ("30s", 30), ("1.5m", 90), (".5s", 0.5), ("1h", 3600)])
def test_durations(given: str, seconds: float) -> None:
    assert read_duration(given) == pytest.approx(seconds)


def test_only_a_warm_up_may_be_nothing() -> None:
    assert read_duration("0s", none=True) == 0


@pytest.mark.parametrize("given", ["", "50", "ms", "-1s", "0s", "1d", "1s 2s", "nan s"])
def test_what_is_no_duration_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="is not a duration; give a number and a unit"):
        read_duration(given)


def test_bursts() -> None:
    assert read_burst("5x2s/10s") == Burst(factor=5, seconds=2, every=10)
    with pytest.raises(InvalidInput, match="5x2s/10s is five times"):
        read_burst("5")
    with pytest.raises(InvalidInput, match="never end"):
        read_burst("5x10s/10s")


def test_names() -> None:
    times = {"seconds": 1, "warm_up": 0}
    assert Stage(clients=1, **times).name == "1 client"
    assert Stage(clients=16, **times).name == "16 clients"
    ramp = Stage(rate=1000, ramp_to=2000, burst=Burst(factor=3, seconds=1, every=2), **times)
    assert ramp.name == "1,000 to 2,000/s, bursts of 3x"
