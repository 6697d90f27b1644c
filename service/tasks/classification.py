"""What the classification tasks have in common: logits to probabilities, and whether an answer is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.contract.labels import split_labels
from service.tasks.task import Floats


def softmax(logits: Floats) -> Floats:
    """(n, labels) probabilities that sum to 1 over the labels of a row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def sigmoid(logits: Floats) -> Floats:
    """(n, labels) probabilities, each by itself."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)


def correct(predicted: Sequence[str], targets: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n,) whether each prediction is its target: the same labels in any order, or none in both."""
    return np.array(
        [set(split_labels(one)) == set(split_labels(other)) for one, other in zip(predicted, targets, strict=True)],
        dtype=np.bool_,
    )
