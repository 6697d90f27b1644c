"""Two-sample tests for the signals of :mod:`monitoring.signals.registry`: pure functions of two sides' columns.

A test returns None where it cannot be made (a column is missing, empty, or the same everywhere). Rows with the same
input are one observation made many times, so a window of 500 rows that repeats 50 texts counts as 50 rows: health
probes neither make a difference nor hide one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from scipy.stats import beta, chi2_contingency, kstwobign

from monitoring.signals.classifier import Separation, separation
from monitoring.signals.columns import Booleans, Columns
from monitoring.signals.constants import most_constant

Doubles = npt.NDArray[np.float64]

MIN_LABELS = 30  # below which no accuracy is worth showing
_STAKES = np.array([0.1, 0.25, 0.5, 0.9])  # shares of what may be lost; their gains are averaged
_MOST_LOG = 600.0
_PRECISION = 1e-4  # of a bound on an accuracy
MIN_EXPECTED = 5.0  # of a cell in the contingency table; rarer classes are pooled


@dataclass(frozen=True)
class Test:
    """One signal's answer, before correction for the number of signals; ``effect`` is 0 for no difference."""

    __test__ = False  # not one for pytest

    name: str
    method: str
    statistic: float
    p_value: float
    effect: float
    direction: str


@dataclass(frozen=True)
class Chance:
    """What a test by permutation may use: how many, and a seed that makes them the same again."""

    permutations: int
    seed: int


def label_test(reference: Columns, window: Columns) -> Test | None:
    """Chi-square of homogeneity on label counts; the effect is the total variation beyond what chance gives."""
    if reference.labels is None or window.labels is None:
        return None
    before, after = (
        Counter(label for index in side.distinct if (label := labels[index]) is not None)
        for side, labels in ((reference, reference.labels), (window, window.labels))
    )
    names = sorted(before.keys() | after.keys())
    if not before or not after or len(names) < 2:
        return None
    rows = (before.total(), after.total())
    shares = np.array([[counts[name] / counts.total() for name in names] for counts in (before, after)])
    counts = pool_sparse(shares * np.array(rows)[:, None])
    if counts.shape[1] < 2:
        return None
    chi2, p_value, _, _ = chi2_contingency(counts, correction=False)
    return Test("label", "chi-square", float(chi2), float(p_value), _excess_variation(counts), _mover(names, shares))


def number_test(name: str, reference: Columns, window: Columns) -> Test | None:
    """Kolmogorov-Smirnov on one numeric column; the effect is the largest distance of the distributions."""
    before, after = getattr(reference, name), getattr(window, name)
    if before is None or after is None:
        return None
    before, after = before[reference.distinct], after[window.distinct]
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    if not len(before) or not len(after):
        return None
    points = np.unique(np.concatenate([before, after]))
    if len(points) < 2:
        return None
    distance = float(np.abs(_cumulative(before, points) - _cumulative(after, points)).max())
    first, second = len(before), len(after)
    p_value = float(kstwobign.sf(distance * np.sqrt(first * second / (first + second))))
    direction = "higher" if after.mean() > before.mean() else "lower"
    return Test(name, "Kolmogorov-Smirnov", distance, p_value, distance, direction)


def embedding_test(reference: Columns, window: Columns, chance: Chance) -> Test | None:
    """Classifier two-sample test on the projected embeddings of distinct inputs."""
    if reference.embedding is None or window.embedding is None:
        return None
    sides = []
    for side, matrix in ((reference, reference.embedding), (window, window.embedding)):
        rows = matrix[side.distinct]
        sides.append(rows[~np.isnan(rows).any(axis=1)])
    return _classifier_test(
        "embedding", separation(sides[0], sides[1], permutations=chance.permutations, seed=chance.seed)
    )


def tokens_test(reference: Columns, window: Columns, chance: Chance) -> Test | None:
    """Classifier two-sample test on the words of distinct inputs."""
    sides = [side.bags[side.distinct[side.known_bags[side.distinct]]] for side in (reference, window)]
    seed = chance.seed + 1  # not the permutations of the embeddings
    return _classifier_test("tokens", separation(sides[0], sides[1], permutations=chance.permutations, seed=seed))


def constant_test(reference: Columns, window: Columns) -> Test | None:
    """Binomial test on the share of rows that say nothing: of one and the same input, placeholders, or without a value.

    The effect is how much larger the share is than in the reference; see :mod:`monitoring.signals.constants`.
    """
    found = most_constant(reference, window)
    if found is None:
        return None
    effect = max(0.0, found.share - found.before)
    direction = f"more {found.what}" if effect else "same"
    return Test("constant", "binomial", found.share, found.p_value, effect, direction)


def accuracy_test(reference: Columns, window: Columns) -> Test | None:
    """Whether answers are less often right than they were on the reference, by the labels that came back.

    A test by betting (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"): stakes
    on each next answer being wrong, whose gains stay small on average as long as the accuracy is at least the lower
    95 % bound of the reference's (Clopper and Pearson). The p-value is one over the gain, and holds however often one
    looks while labels come in. Gains shrink again when answers are right again. The effect is the accuracy lost.
    Where inputs have moved, only labels of answers since then count, if there are 30: older ones say nothing of it.
    """
    outcomes = window.outcomes
    if window.recent_outcomes is not None and len(window.recent_outcomes) >= MIN_LABELS:
        outcomes = window.recent_outcomes
    if reference.outcomes is None or outcomes is None:
        return None
    if min(len(reference.outcomes), len(outcomes)) < MIN_LABELS:
        return None
    right, rows = int(reference.outcomes.sum()), len(reference.outcomes)
    least = float(beta.ppf(0.05, right, rows - right + 1)) if right else 0.0
    before, now = right / rows, float(outcomes.mean())
    effect, gain = max(0.0, before - now), 1.0
    if least:
        gain = _gain(~outcomes, 1 - least)
    direction = f"{now:.3f} by {len(outcomes)} labels, {before:.3f} on the reference"
    return Test("accuracy", "betting", now, min(1.0, 1 / gain), effect, direction)


def accuracy_bound(outcomes: Booleans, alpha: float = 0.05) -> float:
    """A lower confidence bound of the accuracy that holds however often one looks: the inverse of the test by betting.

    The smallest accuracy against which stakes on right answers have not gained ``1 / alpha``; 0 without outcomes.
    """
    low, high = 0.0, float(outcomes.mean()) if len(outcomes) else 0.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if _gain(outcomes, middle) >= 1 / alpha else (low, middle)
    return low


def _gain(outcomes: Booleans, most: float) -> float:
    """What stakes on outcomes being true have gained; its mean is at most 1 if their share is at most ``most``."""
    logs = np.log1p(_STAKES[:, None] / most * (outcomes[None, :] - most)).sum(axis=1)
    return float(np.exp(min(_MOST_LOG, logsumexp(logs) - math.log(len(_STAKES)))))


def pool_sparse(counts: Doubles) -> Doubles:
    """Merge the rarest classes of a (2, k) table until each column is expected at least 5 times in both samples."""
    shares = counts.sum(axis=0) / counts.sum()
    expected = shares * counts.sum(axis=1).min()
    order = np.argsort(expected, kind="stable")
    pools: list[list[int]] = [[]]
    for index in order:
        if pools[-1] and expected[pools[-1]].sum() >= MIN_EXPECTED:
            pools.append([])
        pools[-1].append(int(index))
    if len(pools) > 1 and expected[pools[-1]].sum() < MIN_EXPECTED:
        pools[-2].extend(pools.pop())
    return np.stack([counts[:, pool].sum(axis=1) for pool in pools], axis=1)


def _excess_variation(counts: Doubles) -> float:
    totals = counts.sum(axis=1)
    shares = counts / totals[:, None]
    pooled = counts.sum(axis=0) / counts.sum()
    by_chance = np.sqrt(2 / np.pi * pooled * (1 - pooled) * (1 / totals).sum()).sum() / 2
    return max(0.0, float(np.abs(shares[0] - shares[1]).sum() / 2 - by_chance))


def _mover(names: Sequence[str], shares: Doubles) -> str:
    change = shares[1] - shares[0]
    return f"more of: {names[int(change.argmax())]}"


def _cumulative(values: Doubles, points: Doubles) -> Doubles:
    return np.asarray(np.searchsorted(np.sort(values), points, side="right") / len(values))


def _classifier_test(name: str, found: Separation | None) -> Test | None:
    if found is None:
        return None
    effect = max(0.0, 2 * found.auc - 1)
    return Test(name, "classifier two-sample", found.auc, found.p_value, effect, "different" if effect else "same")
