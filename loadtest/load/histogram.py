"""Latencies in buckets, block by block, and intervals of what is estimated of them.

Buckets grow by 1.2 %, as in Gil Tene's HdrHistogram: small files, and quantiles that are right to within that. What
failed is in a last bucket of its own, so that it can be counted as never answered.

Requests that follow each other meet the same queue, so intervals that take them for independent are far too narrow.
Here whole blocks of time are drawn with replacement (the block bootstrap: Carlstein, "The use of subseries values for
estimating the variance of a general statistic from a stationary sequence", Annals of Statistics 14, 1986), and where
there are several rounds, rounds first (hierarchically: Kalibera and Jones, "Rigorous benchmarking in reasonable time",
ISMM 2013). Intervals are of the bootstrap's quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from loadtest.load.samples import Samples
from loadtest.load.stage import Floats

Counts = npt.NDArray[np.int64]

LOWEST, PER_DECADE, DECADES = 1e-5, 200, 8  # seconds: from 10 microseconds to 1,000 seconds
BUCKETS = PER_DECADE * DECADES
FAILED = BUCKETS
DRAWS = 1000
_BLOCK, _FEWEST, _MOST = 1.0, 10, 120  # seconds of a block, and how many there may be


class Estimate(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class Round(BaseModel):
    """One run of a stage: the counts of each block of time, without the empty buckets."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    blocks: list[dict[int, int]]

    def counts(self) -> Counts:
        """(blocks, buckets)."""
        counts = np.zeros((len(self.blocks), BUCKETS + 1), dtype=np.int64)
        for block, found in enumerate(self.blocks):
            counts[block, list(found)] = list(found.values())
        return counts


def round_of(samples: Samples, seconds: float) -> Round:
    """The histogram of what a stage of so many seconds saw."""
    blocks = int(np.clip(seconds / _BLOCK, _FEWEST, _MOST))
    block = np.clip(samples.intended / seconds * blocks, 0, blocks - 1).astype(int)
    with np.errstate(divide="ignore"):
        bucket = np.floor(np.log10(np.maximum(samples.latency, LOWEST) / LOWEST) * PER_DECADE)
    bucket = np.where(samples.ok, np.clip(bucket, 0, BUCKETS - 1), FAILED).astype(int)
    counts = np.bincount(block * (BUCKETS + 1) + bucket, minlength=blocks * (BUCKETS + 1)).reshape(blocks, -1)
    return Round(seconds=seconds, blocks=[{int(one): int(row[one]) for one in np.flatnonzero(row)} for row in counts])


def totals(rounds: Sequence[Round]) -> Counts:
    """(buckets,): all counts together."""
    total: Counts = sum(one.counts().sum(axis=0) for one in rounds) + np.zeros(BUCKETS + 1, dtype=np.int64)
    return total


def draws(rounds: Sequence[Round], rng: np.random.Generator, number: int = DRAWS) -> Counts:
    """(number, buckets): totals as they might have been, for intervals."""
    counts = [one.counts().astype(float) for one in rounds]  # products of integers are slow
    drawn = np.zeros((number, BUCKETS + 1))
    for _ in counts:
        chosen = rng.integers(len(counts), size=number)
        for place, one in enumerate(counts):
            rows = np.flatnonzero(chosen == place)
            blocks = len(one)
            drawn[rows] += rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=len(rows)).astype(float) @ one
    return drawn.astype(np.int64)


def quantile(counts: Counts, share: float, *, with_failures: bool = False) -> Floats:
    """Milliseconds below which a share of the answers came, for each row of counts; NaN where there are none.

    :param with_failures: of all requests, those that failed taken as never answered (infinite).
    """
    counted = counts if with_failures else counts[..., :BUCKETS]
    cumulated = np.cumsum(counted, axis=-1)
    wanted = share * cumulated[..., -1:]
    place = np.argmax(cumulated >= wanted, axis=-1)
    below = np.take_along_axis(cumulated, np.maximum(place - 1, 0)[..., None], -1)[..., 0] * (place > 0)
    within = np.take_along_axis(counted, place[..., None], -1)[..., 0]
    into = (wanted[..., 0] - below) / np.maximum(within, 1)
    value = 1000 * LOWEST * 10 ** ((place + into) / PER_DECADE)
    value = np.where(place == FAILED, np.inf, value)
    return np.where(cumulated[..., -1] == 0, np.nan, value)


def estimates(
    rounds: Sequence[Round], figures: Mapping[str, Callable[[Counts], Floats]], seed: int = 0
) -> dict[str, Estimate]:
    """Figures of the counts with their intervals."""
    total, drawn = totals(rounds)[None], draws(rounds, np.random.default_rng(seed))
    found = {}
    for name, of in figures.items():
        low, high = interval(of(drawn))
        found[name] = Estimate(value=float(of(total)[0]), low=low, high=high)
    return found


def interval(drawn: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The middle of what was drawn; what is infinite stays so."""
    tail = (1 - confidence) / 2
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


def answered(rounds: Sequence[Round]) -> Callable[[Counts], Floats]:
    """Answers a second, of counts of these rounds."""
    seconds = sum(one.seconds for one in rounds)
    return lambda counts: counts[..., :BUCKETS].sum(axis=-1) / seconds


def timeline(one: Round) -> list[dict[str, Any]]:
    """Block by block: its begin in seconds, requests and answers a second, p50 and p99 in milliseconds."""
    counts = one.counts()
    length = one.seconds / len(counts)
    p50, p99 = quantile(counts, 0.5), quantile(counts, 0.99)
    return [
        {
            "second": place * length,
            "offered": float(row.sum() / length),
            "answered": float(row[:BUCKETS].sum() / length),
            "p50_ms": float(p50[place]),
            "p99_ms": float(p99[place]),
        }
        for place, row in enumerate(counts)
    ]
