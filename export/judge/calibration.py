"""What a single accuracy hides: whether the confidence can still be believed, and which labels gained or lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.contract.bundle import ClassChange
from service.contract.labels import split_labels
from service.tasks.task import Floats

BINS = 15
MOST_CLASSES = 50


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error over ``bins`` bins of equal width: Guo et al. 2017, "On Calibration of Modern Neural
    Networks", equation 3.

    ``confidence`` (n,) is the probability that the answer is right, ``right`` (n,) whether it is. For several labels
    per row the answer is the whole predicted set, as in the metric, and its probability that of ``confidences``.
    """
    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    sure = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    return float(np.abs(sure - hits).sum() / len(confidence))


def class_changes(
    baseline: Sequence[str], exported: Sequence[str], targets: Sequence[str], most: int = MOST_CLASSES
) -> dict[str, ClassChange]:
    """The recall of each label before and after on the rows that carry it, the ``most`` changed ones, largest first.

    For several labels per row (joined by ``|``) a label is found if it is among those predicted.
    """
    rows = _found(baseline, exported, targets)
    found = {label: np.array(seen, dtype=float).mean(axis=0) for label, seen in rows.items()}
    changed = sorted(found, key=lambda label: (-abs(found[label][1] - found[label][0]), label))
    return {
        label: ClassChange(rows=len(rows[label]), baseline=float(found[label][0]), exported=float(found[label][1]))
        for label in changed[:most]
    }


def missed_labels(answers: Sequence[str], targets: Sequence[str], most: int = MOST_CLASSES) -> dict[str, int]:
    """The labels whose recall is 0, with the rows that carry them: at most the ``most`` most frequent."""
    rows = _found(answers, answers, targets)
    missed = {label: len(seen) for label, seen in rows.items() if not any(found for found, _ in seen)}
    return dict(sorted(missed.items(), key=lambda pair: (-pair[1], pair[0]))[:most])


def _found(
    baseline: Sequence[str], exported: Sequence[str], targets: Sequence[str]
) -> dict[str, list[tuple[bool, bool]]]:
    """For each row of each label: whether the one and the other found it there."""
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for before, after, target in zip(baseline, exported, targets, strict=True):
        one, other = split_labels(before), split_labels(after)
        for label in split_labels(target):
            rows.setdefault(label, []).append((label in one, label in other))
    return rows
