"""Estimated accuracy without labels: confidence calibrated on the reference, averaged over the window.

Confidence-based performance estimation: if a calibrated confidence is the probability of being right, its mean is
the expected accuracy. It holds while the relation of confidence to being right holds (covariate shift); on
texts of another kind a model is often confidently wrong, and the estimate is then too high.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression

from monitoring.signals.columns import Columns
from service.tasks.classification import correct

MIN_LABELLED = 30  # reference rows below which no calibration is worth showing


def estimate_accuracy(reference: Columns, window: Columns) -> tuple[float | None, float | None]:
    """(accuracy measured on the reference's labelled rows, accuracy estimated on the window); None if unknown."""
    if reference.labels is None or reference.targets is None:
        return None, None
    labelled = [
        (index, label, target)
        for index, (label, target) in enumerate(zip(reference.labels, reference.targets, strict=True))
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
    seen = window.confidence[~np.isnan(window.confidence)]
    if usable.sum() < MIN_LABELLED or not len(seen):
        return measured, None
    order = np.argsort(known[usable], kind="stable")
    fitted = isotonic_regression(right[usable][order]).x
    return measured, float(np.interp(seen, known[usable][order], fitted).mean())
