"""Confidence bounds for the difference of two accuracies measured on the same rows.

The score interval of Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17:891-908. Unlike a Wald or bootstrap interval it stays honest where no
row, or hardly any, is discordant: with none among n rows the lower bound is -z^2 / (n + z^2), not 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from service.tasks import Task
from service.tasks.task import Booleans, Doubles

ONE_SIDED = 0.95
_EDGE = 1e-12
_MOST_ROWS = 1e5
_DRAWS = 4_000
_POWER = 0.8
_RESAMPLES = 2_000
_LEAST_LOSS = 0.1  # of a row that loses anything, where all had the same before: one neighbour of ten


@dataclass(frozen=True)
class Paired:
    """Two models on the same ``rows``: ``gained`` rows only the new one has right, ``lost`` only the old one.

    Both are None where rows are not right or wrong. ``difference`` (new minus old) and its one-sided 95 % bounds are
    shares, not points.
    """

    rows: int
    gained: int | None
    lost: int | None
    difference: float
    lower: float
    upper: float


def paired_difference(old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> Paired:
    """Compare two (n,) arrays of whether each row is right. :raises ValueError: if their lengths differ or are 0."""
    if old.shape != new.shape or old.size == 0:
        raise ValueError(f"paired arrays must be alike and not empty, got {old.shape} and {new.shape}")
    gained, lost, rows = int((new & ~old).sum()), int((old & ~new).sum()), int(old.size)
    return Paired(
        rows, gained, lost, (gained - lost) / rows, lower_bound(gained, lost, rows), -lower_bound(lost, gained, rows)
    )


def compared(task: Task, old: Booleans | Doubles, new: Booleans | Doubles) -> Paired:
    """Compare two models' merits of the same rows, see :meth:`service.tasks.Task.merits`.

    Where rows are right or wrong by :func:`paired_difference`, otherwise by the bootstrap over rows (Efron 1979,
    percentiles). What no row shows may still be in so many as Tango's bound has it, which the bounds leave room for:
    few rows that agree prove little.
    """
    if old.dtype == np.bool_:
        return paired_difference(old.astype(np.bool_), new.astype(np.bool_))
    rows, difference = len(old), task.score(new) - task.score(old)
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES) / rows
    before, after = drawn @ old, drawn @ new
    spread = np.array([task.score(b[None]) - task.score(a[None]) for a, b in zip(before, after, strict=True)])
    unseen = -lower_bound(0, 0, rows) * (float(np.std(old)) or _LEAST_LOSS)
    low, high = np.quantile(spread, (1 - ONE_SIDED, ONE_SIDED))
    return Paired(
        rows, None, None, difference, min(float(low), difference) - unseen, max(float(high), difference) + unseen
    )


def standard_error(paired: Paired) -> float:
    """Of the difference, as a share: what its lower bound would be made of if it were normal."""
    return (paired.difference - paired.lower) / NormalDist().inv_cdf(ONE_SIDED)


def lower_bound(gained: float, lost: float, rows: float, confidence: float = ONE_SIDED) -> float:
    """Tango's one-sided lower bound of (gained - lost) / rows; the counts need not be whole (for planning)."""
    quantile = NormalDist().inv_cdf(confidence)
    estimate = (gained - lost) / rows
    if estimate <= -1 + _EDGE:
        return -1.0

    def excess(candidate: float) -> float:
        return _score(candidate, gained, lost, rows) - quantile

    near = estimate - _EDGE
    if excess(near) >= 0:
        return estimate
    return float(brentq(excess, -1 + _EDGE, near, xtol=1e-10))


def rows_needed(paired: Paired, margin: float) -> tuple[int, int | None] | None:
    """How many rows may, and how many probably will, put the whole interval on one side of ``-margin``.

    None where rows are not right or wrong.

    For each of many rates of gain and loss that these counts leave possible (draws from Jeffreys' posterior), the rows
    that settle it in four cases of five; of those the 10th and the 90th percentile. The latter is None beyond 100,000
    rows: the rate may lie on the margin itself, and then no number is sure to do.
    """
    gained, lost, rows = paired.gained, paired.lost, paired.rows
    if gained is None or lost is None:
        return None
    rates = np.random.default_rng(0).dirichlet((gained + 0.5, lost + 0.5, rows - gained - lost + 0.5), _DRAWS)
    discordant, difference = rates[:, 0] + rates[:, 1], rates[:, 0] - rates[:, 1]
    on_margin = np.sqrt(
        np.maximum(discordant, margin) - margin**2
    )  # the deviation of a row that the bound reckons with
    normal = NormalDist()
    spread = normal.inv_cdf(ONE_SIDED) * on_margin + normal.inv_cdf(_POWER) * np.sqrt(discordant - difference**2)
    needed = np.square(spread / np.maximum(np.abs(difference + margin), _EDGE))
    low, high = np.quantile(needed, (0.1, 0.9))
    return math.ceil(max(low, rows + 1)), math.ceil(max(high, rows + 1)) if high <= _MOST_ROWS else None


def _score(candidate: float, gained: float, lost: float, rows: float) -> float:
    """Tango's score statistic for a true difference of ``candidate`` (his equation 6)."""
    a = 2 * rows
    b = -gained - lost + (2 * rows - gained + lost) * candidate
    c = -lost * candidate * (1 - candidate)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = rows * (2 * share + candidate * (1 - candidate))
    return (gained - lost - rows * candidate) / math.sqrt(max(variance, 1e-300))


def as_points(paired: Paired) -> dict[str, Any]:
    """For people and manifests: differences in points, rounded to what they can mean."""
    discordant = {} if paired.gained is None else {"gained": paired.gained, "lost": paired.lost}
    return {
        "rows": paired.rows,
        **discordant,
        "difference": round(100 * paired.difference, 4),
        "lower_bound": round(100 * paired.lower, 4),
        "upper_bound": round(100 * paired.upper, 4),
    }
