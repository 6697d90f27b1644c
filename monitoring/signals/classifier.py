"""The classifier two-sample test: can a classifier tell the window's rows from the reference's?

Lopez-Paz and Oquab 2017 ("Revisiting classifier two-sample tests") with two changes that make its p-value exact.
The classifier is a ridge regression, so that every row's leave-one-out score has a closed form
(``(Hy - hy) / (1 - h)``), also for permuted labels; and the p-value comes from permutations, of the difference of
the two samples' mean scores. A Mann-Whitney p-value on cross-fitted scores is too small: the same pairs of rows count
twice, once as training and once as test, which makes its z-score about sqrt(2) too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.stats import rankdata

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

MAX_ROWS = 1000  # used of each side; more cost time (cubic in their sum) and add little power
MIN_ROWS = 20
RIDGE = 1.0
_BATCH = 200
_ENOUGH = 20  # exceedances after which more permutations cannot change the verdict (Besag and Clifford 1991)


@dataclass(frozen=True)
class Separation:
    """How well the samples can be told apart: leave-one-out AUC (0.5: not at all) and its permutation p-value."""

    auc: float
    p_value: float


@dataclass(frozen=True)
class _Smoother:
    """The hat matrix of a ridge regression on centred features, as a product and a diagonal."""

    apply: Callable[[Floats], Floats]
    diagonal: Floats

    def leave_one_out(self, targets: Floats) -> Floats:
        """Scores (n, k) of each row by the model fitted to all other rows, for targets (n, k)."""
        own = self.diagonal[:, None]
        return np.asarray((self.apply(targets) - own * targets) / (1 - own), dtype=np.float32)


def separation(reference: Any, window: Any, *, permutations: int, seed: int) -> Separation | None:
    """Test whether rows of ``reference`` (m, d) and ``window`` (n, d), both dense or both sparse, can be told apart.

    Of each side at most 1,000 rows are used, evenly spaced. Returns None if a side has fewer than 20 rows or no
    feature varies.
    """
    reference, window = _thin(reference), _thin(window)
    if min(reference.shape[0], window.shape[0]) < MIN_ROWS:
        return None
    if sparse.issparse(reference):
        smoother = _sparse_smoother(sparse.vstack([reference, window]).tocsr())
    else:
        smoother = _dense_smoother(np.vstack([reference, window]))
    if smoother is None:
        return None
    member = np.concatenate([np.zeros(reference.shape[0]), np.ones(window.shape[0])]).astype(np.float32)
    targets = (member - member.mean())[:, None]
    scores = smoother.leave_one_out(targets)
    p_value = _p_value(smoother, targets, float((scores * targets).sum()), permutations, np.random.default_rng(seed))
    return Separation(_auc(scores[:, 0], member == 1), p_value)


def _p_value(
    smoother: _Smoother, targets: Floats, observed: float, permutations: int, random: np.random.Generator
) -> float:
    """Share of permutations whose scores separate their labels as well; stops early once that is plainly common."""
    exceeding = drawn = 0
    while drawn < permutations and exceeding < _ENOUGH:
        size = min(_BATCH, permutations - drawn)
        permuted = random.permuted(np.repeat(targets, size, axis=1), axis=0)
        statistics = (smoother.leave_one_out(permuted) * permuted).sum(axis=0)
        exceeding += int(np.count_nonzero(statistics >= observed))
        drawn += size
    return (exceeding + 1) / (drawn + 1)


def _auc(scores: Floats, member: npt.NDArray[np.bool_]) -> float:
    ranks = rankdata(scores)
    ones = int(member.sum())
    return float((ranks[member].sum() - ones * (ones + 1) / 2) / (ones * (len(member) - ones)))


def _dense_smoother(rows: Doubles) -> _Smoother | None:
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0)
    varying = spread > 1e-9
    if not varying.any():
        return None
    features = centred[:, varying] / spread[varying] / np.sqrt(varying.sum())
    gram = features.T @ features + RIDGE * np.eye(features.shape[1])
    solved = np.linalg.solve(gram, features.T).astype(np.float32)
    features = features.astype(np.float32)
    return _Smoother(lambda targets: features @ (solved @ targets), np.einsum("ij,ji->i", features, solved))


def _sparse_smoother(rows: Any) -> _Smoother | None:
    kernel = (rows @ rows.T).toarray()
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    size = len(kernel)
    if float(np.trace(kernel)) < 1e-9 * size:
        return None
    kernel[np.diag_indices(size)] += RIDGE
    hat = (-RIDGE * np.linalg.inv(kernel)).astype(np.float32)
    hat[np.diag_indices(size)] += 1
    return _Smoother(lambda targets: hat @ targets, np.diag(hat).copy())


def _thin(rows: Any) -> Any:
    """At most 1,000 rows, evenly spaced."""
    if rows.shape[0] <= MAX_ROWS:
        return rows
    return rows[np.linspace(0, rows.shape[0] - 1, MAX_ROWS).astype(int)]
