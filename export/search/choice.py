"""Which candidates are worth having, and which one is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from export.judge.gate import MAX_BATCH_FLIPS
from export.judge.paired import lower_bound
from export.measure.latency import Timed
from export.search.trial import Trial
from service.contract.errors import Refused

LIKELY = 0.431  # the quantile of the normal distribution for odds of two to one
_REACHED = 0.97  # a speed-up is measured to a few percent


def front(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of (cost, other cost) no other one beats in one and equals or beats in the other: the Pareto front."""
    return [
        not any(a <= x and b <= y and (a, b) != (x, y) for a, b in costs) and costs.index((x, y)) == index
        for index, (x, y) in enumerate(costs)
    ]


def choose(
    trials: Sequence[Trial],
    timed: Mapping[str, Timed],
    *,
    max_drop: float,
    target_speedup: float | None,
    unpruned: str,
    provable: Callable[[Trial], bool] | None = None,
) -> Trial:
    """The :func:`fastest` trial that is expected to lose at most ``max_drop`` points.

    ``timed`` is by the trials' files.

    With ``provable``, which says what the gate can probably show (see :func:`is_provable`), the fastest of those that
    it is true of and that are likely inside, by odds of two to one; or of the latter, if there are none.

    With ``target_speedup`` the fastest of those that are so many times as fast as ``unpruned`` and whose accuracy is
    within a standard error of the best such one's (Breiman et al. 1984).

    :raises Refused: if none is as fast as that.
    """
    if target_speedup is None:
        inside = [one for one in trials if is_inside(one, max_drop, errors=LIKELY if provable else 0.0)]
        shown = [one for one in inside if provable and provable(one)]
        return fastest(shown or inside or [max(trials, key=lambda one: one.estimate)], timed)
    speedups = {one.file: timed[unpruned].p50 / timed[one.file].p50 for one in trials}
    quick = [one for one in trials if speedups[one.file] >= _REACHED * target_speedup]
    if not quick:
        raise Refused(
            f"no candidate is {target_speedup:g} times as fast as the unpruned int8 model on this machine; the fastest "
            f"is {max(speedups.values()):.2f} times. Give a lower --target-speedup or a longer --time-budget."
        )
    best = max(quick, key=lambda one: one.estimate)
    return fastest([one for one in quick if one.estimate >= best.estimate - best.error], timed)


def fastest(trials: Sequence[Trial], timed: Mapping[str, Timed]) -> Trial:
    """The fastest trial, or rather the most faithful of those whose times cannot be told from the fastest one's.

    They cannot if the 95 % intervals of the medians overlap; faithful is what diverges least from the checkpoint.
    """
    first = timed[min(trials, key=lambda one: timed[one.file].p50).file]
    alike = [one for one in trials if timed[one.file].p50_range[0] <= first.p50_range[1]]
    return most_faithful(alike, timed)


def most_faithful(trials: Sequence[Trial], timed: Mapping[str, Timed]) -> Trial:
    return min(trials, key=lambda one: (one.divergence, timed[one.file].p50))


def is_inside(trial: Trial, max_drop: float, *, errors: float) -> bool:
    """Whether its labels hardly depend on their neighbours and it is expected to lose at most ``max_drop`` points.

    That is expected on new rows, by :mod:`export.search.estimate`, even if it is ``errors`` standard errors worse.
    """
    if trial.batch_flip_rate > MAX_BATCH_FLIPS:
        return False
    return trial.estimate - errors * trial.error >= -max_drop


def is_provable(trial: Trial, max_drop: float, *, gate_rows: int) -> bool:
    """Whether the gate's 95 % bound would be inside, too, if its rows turned out as is estimated for them."""
    scale = gate_rows / trial.rows
    if trial.gained is None or trial.lost is None:
        doubt = (trial.difference - trial.lower_bound) / math.sqrt(scale)
    else:
        doubt = trial.difference - 100 * lower_bound(scale * trial.gained, scale * trial.lost, gate_rows)
    return trial.estimate - doubt >= -max_drop
