"""Which candidates are worth having, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt

from export.gate import MAX_BATCH_FLIPS
from export.latency import Timed
from export.search.trial import Trial
from service.contract.errors import Refused

_REACHED = 0.97  # a speed-up is measured to a few percent
_NORMAL_ODDS = 0.431  # the quantile of the normal distribution for odds of two to one


def front(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of (cost, other cost) no other one beats in one and equals or beats in the other: the Pareto front."""
    return [
        not any(a <= x and b <= y and (a, b) != (x, y) for a, b in costs) and costs.index((x, y)) == place
        for place, (x, y) in enumerate(costs)
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
    """The fastest trial that is inside the tolerance, see :func:`is_inside`, and that the gate is likely to pass.

    ``provable`` says the latter, see :func:`is_provable`; if nothing is, or without it, being inside is enough.

    With ``target_speedup``, of those that are so many times as fast as ``unpruned`` the one that lost least instead.
    ``timed`` is by the trials' files.

    :raises Refused: if none is as fast as that.
    """
    if target_speedup is None:
        inside = [one for one in trials if is_inside(one, max_drop)]
        candidates = (
            [one for one in inside if provable and provable(one)]
            or inside
            or [max(trials, key=lambda one: (one.estimate, -one.divergence))]
        )
        return min(candidates, key=lambda one: timed[one.file].p50)
    speedups = {one.file: timed[unpruned].p50 / timed[one.file].p50 for one in trials}
    fast = [one for one in trials if speedups[one.file] >= _REACHED * target_speedup]
    if not fast:
        raise Refused(
            f"no candidate is {target_speedup:g} times as fast as the unpruned int8 model on this machine; the fastest "
            f"is {max(speedups.values()):.2f} times. Give a lower --target-speedup or a longer --time-budget."
        )
    return max(fast, key=lambda one: (one.estimate, -one.divergence))


def is_inside(trial: Trial, max_drop: float) -> bool:
    """Whether its labels hardly depend on their neighbours and it probably loses at most ``max_drop`` points.

    Probably means odds of two to one on new rows, by :mod:`export.search.estimate`. That the estimate is inside would
    not do: the fastest of many estimates is among the luckiest, too.
    """
    if trial.batch_flip_rate > MAX_BATCH_FLIPS:
        return False
    return trial.estimate - _NORMAL_ODDS * trial.error >= -max_drop


def is_provable(trial: Trial, max_drop: float, *, search_rows: int, gate_rows: int) -> bool:
    """Whether the gate's 95 % bound would be inside, too, if its rows turned out as is estimated for them."""
    doubt = (trial.difference - trial.lower_bound) * sqrt(search_rows / gate_rows)
    return trial.estimate - doubt >= -max_drop
