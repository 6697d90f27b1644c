"""The highest rate that keeps an objective, with an interval.

Rates are halved in on by their logarithms, between one that kept the objective and one that missed it. A p99 has an
interval of its own, so each rate has one of three answers: surely kept (the interval is below the objective), surely
missed (above it), or unclear, and then it is run again and what was seen is put together, up to four times. A machine
that stalls once makes a rate unclear, not missed. The answer is the highest rate that kept it by the estimate; its
interval reaches from the highest rate that surely kept it to the lowest that surely missed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from loadtest.load.measure import pooled
from loadtest.load.result import Maximum, StageResult
from loadtest.load.stage import Stage

PRECISION = 1.05  # ratio of the two rates at which the search ends
_LEAST, _FIRST, _ABOVE = 0.05, 0.7, 1.1  # shares of what clients in a closed loop reached
_TURNS, _MOST_STEPS = 4, 14

Answer = Literal["kept", "missed", "unclear"]


def judged(found: StageResult, objective: float) -> Answer:
    """Whether the p99 of a stage is surely within the objective (milliseconds), surely not, or neither."""
    _, low, high = found.objective_ms
    if high is not None and high <= objective:
        return "kept"
    if low is None or low > objective:
        return "missed"
    return "unclear"


def search(
    measure: Callable[[Stage], StageResult], objective: float, reached: float, seconds: float, warm_up: float
) -> tuple[Maximum, list[StageResult]]:
    """Find the maximum; also gives what was measured on the way, by rate.

    Where the generator is the limit, as it is where a busy server leaves it no processor, the rate is run again, and
    if it stays so lower ones are tried; then the maximum is what was kept below, and may have no upper end.

    :param measure: runs a stage.
    :param reached: requests a second that clients in a closed loop were answered.
    """
    tried: list[StageResult] = []

    def holds(rate: float) -> bool | None:
        """None if the generator was the limit."""
        stage = Stage(rate=rate, seconds=seconds, warm_up=warm_up)
        found = measure(stage)
        for _ in range(_TURNS - 1):
            if found.keeps(objective) is None:
                found = measure(stage)  # what does not count is not put together with what may
            elif judged(found, objective) == "unclear":
                found = pooled(found, measure(stage))
            else:
                break
        tried.append(found)
        return found.keeps(objective)

    low, high = 0.0, 0.0
    rate, least = _FIRST * reached, _LEAST * reached
    for _ in range(_MOST_STEPS):
        if holds(float(f"{rate:.3g}")):
            low = rate
        else:
            high = rate
        if high and (high <= least or (low and high / low <= PRECISION)):
            break
        if not high:
            rate *= 1.5 if rate > _ABOVE * reached else _ABOVE / _FIRST * 1.01
        elif not low:
            rate /= 2
        else:
            rate = (low * high) ** 0.5
    tried.sort(key=lambda one: one.stage.rate or 0.0)
    return _maximum(tried, objective), tried


def _maximum(tried: list[StageResult], objective: float) -> Maximum:
    counting = [one for one in tried if one.keeps(objective) is not None]
    rates = {answer: [one.stage.rate or 0.0 for one in counting if judged(one, objective) == answer] for answer in _ALL}
    kept = [one.stage.rate or 0.0 for one in counting if one.keeps(objective)]
    missed = [one.stage.rate or 0.0 for one in counting if not one.keeps(objective)]
    # A rate above one that missed it was lucky.
    rate = max((one for one in kept if not missed or one < min(missed)), default=0.0)
    return Maximum(
        rate=rate,
        low=max((one for one in rates["kept"] if one <= rate), default=0.0),
        high=min((one for one in rates["missed"] if one > rate), default=None),
    )


_ALL: tuple[Answer, ...] = ("kept", "missed", "unclear")
