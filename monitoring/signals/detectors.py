"""Two-sample tests for the signals of :mod:`monitoring.signals.registry`: pure functions of two sides' columns.

A test returns None where it cannot be made (a column is missing, empty, or the same everywhere). Rows with the same
input are one observation made many times, so a window of 500 rows that repeats 50 texts counts as 50 rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from scipy.stats import beta, binom, chi2_contingency, kstwobign

from monitoring.signals.classifier import Separation, separation
from monitoring.signals.columns import Columns

Doubles = npt.NDArray[np.float64]

MIN_LABELS = 30  # below which no accuracy is worth showing
_STAKES = np.array([0.1, 0.25, 0.5, 0.9])  # shares of what may be lost; their gains are averaged
_MOST_LOG = 600.0
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
    before = Counter(label for label in reference.labels if label is not None)
    after = Counter(label for label in window.labels if label is not None)
    names = sorted(before.keys() | after.keys())
    if not before or not after or len(names) < 2:
        return None
    rows = (reference.effective_rows, window.effective_rows)
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
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    if not len(before) or not len(after):
        return None
    points = np.unique(np.concatenate([before, after]))
    if len(points) < 2:
        return None
    distance = float(np.abs(_cumulative(before, points) - _cumulative(after, points)).max())
    first = len(before) / reference.rows * reference.effective_rows
    second = len(after) / window.rows * window.effective_rows
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
    """Binomial test on the share of rows that say nothing new: of one and the same input, or without a value.

    The other tests leave such rows out, or count them once, so that a window of nothing else would look like no window
    at all. The effect is how much larger the share is than in the reference.
    """
    if not reference.rows or not window.rows:
        return None
    before, after = _constants(reference), _constants(window)
    name = max(after.keys() & before.keys(), key=lambda one: (after[one] - before[one], one))
    expected = (before[name] * reference.rows + 1) / (reference.rows + 2)
    effect = max(0.0, after[name] - before[name])
    p_value = float(binom.sf(round(after[name] * window.rows) - 1, window.rows, expected))
    return Test("constant", "binomial", after[name], p_value, effect, f"more {name}" if effect else "same")


def accuracy_test(reference: Columns, window: Columns) -> Test | None:
    """Whether answers are less often right than they were on the reference, by the labels that came back.

    A test by betting (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"): stakes
    on each next answer being wrong, whose gains stay small on average as long as the accuracy is at least the lower
    95 % bound of the reference's (Clopper and Pearson). The p-value is one over the gain, and holds however often one
    looks while labels come in. Gains shrink again when answers are right again. The effect is the accuracy lost.
    """
    if reference.outcomes is None or window.outcomes is None:
        return None
    if min(len(reference.outcomes), len(window.outcomes)) < MIN_LABELS:
        return None
    right, rows = int(reference.outcomes.sum()), len(reference.outcomes)
    least = float(beta.ppf(0.05, right, rows - right + 1)) if right else 0.0
    before, now = right / rows, float(window.outcomes.mean())
    effect, gain = max(0.0, before - now), 1.0
    if least:
        stakes = _STAKES[:, None] / (1 - least)
        logs = np.log1p(stakes * (least - window.outcomes[None, :])).sum(axis=1)
        gain = float(np.exp(min(_MOST_LOG, logsumexp(logs) - math.log(len(_STAKES)))))
    direction = f"{now:.3f} by {len(window.outcomes)} labels, {before:.3f} on the reference"
    return Test("accuracy", "betting", now, min(1.0, 1 / gain), effect, direction)


def _constants(side: Columns) -> dict[str, float]:
    """Shares of rows, by what is the same in them."""
    known = side.known_bags
    found = {
        "of one input": float(side.repeats[known].max()) / side.rows if known.any() else 0.0,
        "without a text": 1 - float(known.mean()),
    }
    if side.labels is not None:
        found["without a label"] = sum(label is None for label in side.labels) / side.rows
    if side.confidence is not None:
        found["without a confidence"] = float(np.isnan(side.confidence).mean())
    return found


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
