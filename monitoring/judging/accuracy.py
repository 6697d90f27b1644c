"""Estimated accuracy without labels, with an interval and whether it can be trusted.

Confidence-based performance estimation: if a calibrated confidence is the probability of being right, its mean is
the expected accuracy. It holds while the relation of confidence to being right holds (covariate shift); on texts of
another kind it does not, and the estimate is off in either direction. ``python -m loadtest.bench_accuracy``
shows where; the limits below are read off that table, and docs/monitoring.md has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from monitoring.signals.columns import Columns
from service.contract.events import Signal
from service.tasks.classification import correct

Doubles = npt.NDArray[np.float64]

MIN_LABELLED = 30  # reference rows below which no calibration is worth showing
FAR = 0.9  # effect of the embeddings (AUC 0.95) from which hardly a row is like those that calibrated
OTHER_ANSWERS = 0.15  # total variation of the labels: P(right | confidence) depends on their mix (Lipton et al. 2018)
FALL = 0.03  # estimated loss beyond which an estimate on inputs that moved was 2 to 19 points off
INPUTS = ("embedding", "tokens", "n_tokens", "n_words", "unk_share")
_RESAMPLES = 100
_Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """Accuracy expected of a window with its 95 % interval; ``doubt`` says why it cannot be trusted, None if it can."""

    accuracy: float
    low: float
    high: float
    doubt: str | None

    @property
    def trusted(self) -> bool:
        return self.doubt is None


def estimate_accuracy(
    reference: Columns, window: Columns, signals: Sequence[Signal] = ()
) -> tuple[float | None, Estimate | None]:
    """(accuracy measured on the reference's labelled rows, what is expected on the window); None if unknown."""
    if reference.answers is None or reference.targets is None:
        return None, None
    labelled = [
        (index, label, target)
        for index, (label, target) in enumerate(zip(reference.answers, reference.targets, strict=True))
        if label is not None and target is not None
    ]
    if len(labelled) < MIN_LABELLED:
        return None, None
    right = correct([label for _, label, _ in labelled], [target for _, _, target in labelled]).astype(np.float64)
    measured = float(right.mean())
    if reference.confidence is None or window.confidence is None:
        return measured, None
    known = reference.confidence[[index for index, _, _ in labelled]]
    usable = ~np.isnan(known)
    seen = window.confidence[window.distinct]
    seen = seen[~np.isnan(seen)]
    if usable.sum() < MIN_LABELLED or not len(seen):
        return measured, None
    accuracy = expected_accuracy(known[usable], right[usable], seen)
    error = _Z * _standard_error(known[usable], right[usable], seen)
    doubt = doubt_of(signals, measured - accuracy)
    return measured, Estimate(accuracy, max(0.0, accuracy - error), min(1.0, accuracy + error), doubt)


def expected_accuracy(confidence: Doubles, right: Doubles, seen: Doubles) -> float:
    """Mean over ``seen`` (k,) of confidence calibrated by isotonic regression on ``confidence`` and ``right`` (n,).

    Rows of the same confidence are one point: in any order among themselves they would be made an increasing line, and
    the highest of them would be taken for all.
    """
    points, place = np.unique(confidence, return_inverse=True)
    weights = np.bincount(place).astype(np.float64)
    fitted = isotonic_regression(np.bincount(place, right) / weights, weights=weights).x
    return float(np.interp(seen, points, fitted).mean())


def doubt_of(signals: Sequence[Signal], fall: float) -> str | None:
    """Why an estimate that lies ``fall`` below the reference cannot be trusted, or None."""
    effects = {signal.name: signal.effect for signal in signals if signal.drifted}
    if effects.get("embedding", 0.0) >= FAR:
        return "hardly an input is like those that it was calibrated on"
    if effects.get("label", 0.0) >= OTHER_ANSWERS:
        return "the mix of answers is not the one that it was calibrated on"
    if fall > FALL and effects.keys() & set(INPUTS):
        return "inputs have moved and answers are less sure, and then nobody can tell how many are wrong"
    return None


def _standard_error(confidence: Doubles, right: Doubles, seen: Doubles) -> float:
    """By the bootstrap over the rows of both sides (Efron 1979)."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES):
        rows = random.integers(0, len(confidence), len(confidence))
        drawn.append(expected_accuracy(confidence[rows], right[rows], seen[random.integers(0, len(seen), len(seen))]))
    return float(np.std(drawn))
