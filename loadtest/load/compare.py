"""Two results compared: better, worse or no difference, with intervals.

Stages are matched by how requests arrived. For each figure the ratio of the second to the first has an interval by the
hierarchical block bootstrap of ``histogram`` (Carlstein 1986; Kalibera and Jones 2013). The intervals hold together:
with m figures each has a confidence of 1 - 0.05/m (Bonferroni). A figure is better or worse if its whole interval is
on one side of 1 and the ratio itself is more than the tolerance away: with enough requests the smallest difference can
be shown, and a machine's mood alone makes some percent. What differs from one run to the next is in the interval only
where there are several rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loadtest.load.histogram import BUCKETS, Counts, Estimate, answered, draws, interval, quantile, totals
from loadtest.load.result import Result, StageResult
from loadtest.load.stage import Floats
from service.contract.errors import InvalidInput

Verdict = Literal["better", "worse", "no difference"]
_SEEDS = 1, 2
_FEWEST = 100  # requests of a stage from which its p99 says something


@dataclass(frozen=True)
class Compared:
    """One figure of one stage; ``ratio`` is the second result's over the first's, with its interval."""

    stage: str
    figure: str
    before: float
    after: float
    ratio: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class _Figure:
    name: str
    more_is_better: bool
    of: Callable[[StageResult], Callable[[Counts], Floats]]


def _share_answered(found: StageResult) -> Callable[[Counts], Floats]:
    return lambda counts: counts[..., :BUCKETS].sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)


_FIGURES = (
    _Figure("p50", False, lambda found: lambda counts: quantile(counts, 0.5)),
    _Figure("p99", False, lambda found: lambda counts: quantile(counts, 0.99)),
)
_RATE = _Figure("answers a second", True, lambda found: answered(found.rounds))
_ANSWERED = _Figure("share answered", True, _share_answered)


def compare(first: Result, second: Result, tolerance: float) -> list[Compared]:
    """Every figure of every stage that both have, and the maxima if both looked for one.

    :param tolerance: ratios nearer to 1 than this are no difference, whatever can be shown.
    :raises InvalidInput: if they have nothing in common, or a stage measured the generator.
    """
    found = list(_maxima(first, second, tolerance))
    others = {_key(stage): stage for stage in second.stages}
    pairs = [] if found else [(one, others[_key(one)]) for one in first.stages if _key(one) in others]
    if not found and not pairs:
        raise InvalidInput("the two results have no stage in common: give both the same --rate, --clients and --batch.")
    if (first.protocol, first.batch, first.texts) != (second.protocol, second.batch, second.texts):
        raise InvalidInput(
            "the two results are of different requests: give both the same texts, --protocol and --batch."
        )
    for one in (stage for pair in pairs for stage in pair):
        if not one.counts:
            raise InvalidInput(
                f"{one.stage.name} does not count: the generator was the limit ({one.generator.limits[0]})."
            )
        if one.requests < _FEWEST:
            raise InvalidInput(
                f"{one.stage.name} has {one.requests} requests; at least {_FEWEST} are needed. Run longer."
            )
    asked = [
        (one, other, figure)
        for one, other in pairs
        for figure in (*_FIGURES, _ANSWERED if one.stage.open else _RATE)
        if (one.latency_ms and other.latency_ms) or figure is _ANSWERED
    ]
    return found + [_compared(one, other, figure, tolerance, 1 - 0.05 / len(asked)) for one, other, figure in asked]


def overall(found: Sequence[Compared]) -> Verdict:
    """Worse if anything is, else better if anything is."""
    verdicts = {one.verdict for one in found}
    return next((verdict for verdict in ("worse", "better") if verdict in verdicts), "no difference")


def _key(stage: StageResult) -> str:
    """How requests arrived."""
    return stage.stage.model_dump_json(exclude={"seconds", "warm_up"})


def _compared(one: StageResult, other: StageResult, figure: _Figure, tolerance: float, confidence: float) -> Compared:
    of = figure.of(one), figure.of(other)
    before, after = (float(f(totals(stage.rounds)[None])[0]) for f, stage in zip(of, (one, other), strict=True))
    drawn = [
        f(draws(stage.rounds, np.random.default_rng(seed)))
        for f, stage, seed in zip(of, (one, other), _SEEDS, strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = interval(np.divide(drawn[1], drawn[0]), confidence)
        ratio = float(np.divide(after, before))
    estimated = Estimate(value=ratio, low=low, high=high)
    return Compared(
        one.stage.name, figure.name, before, after, estimated, _verdict(estimated, figure.more_is_better, tolerance)
    )


def _verdict(ratio: Estimate, more_is_better: bool, tolerance: float) -> Verdict:
    if ratio.low > 1 and ratio.value > 1 + tolerance:
        return "better" if more_is_better else "worse"
    if ratio.high < 1 and ratio.value < 1 / (1 + tolerance):
        return "worse" if more_is_better else "better"
    return "no difference"


def _maxima(first: Result, second: Result, tolerance: float) -> Iterator[Compared]:
    """Maxima of which the intervals do not meet differ."""
    if first.maximum is None or second.maximum is None:
        return
    if first.p99_objective_ms != second.p99_objective_ms:
        raise InvalidInput("the two results looked for the maximum of different objectives: give both the same --p99.")
    one, other = first.maximum, second.maximum
    infinite = float("inf")
    ratio = Estimate(
        value=other.rate / one.rate if one.rate else infinite,
        low=other.low / one.high if one.high else 0.0,
        high=other.high / one.low if other.high and one.low else infinite,
    )
    name = f"p99 within {first.p99_objective_ms:g} ms"
    yield Compared(name, "highest rate", one.rate, other.rate, ratio, _verdict(ratio, True, tolerance))
