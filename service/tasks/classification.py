"""Logits to probabilities, labels and confidence: the same arithmetic in the gate, the reference and the service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.contract.bundle import Task
from service.contract.labels import SEPARATOR, split_labels

Floats = npt.NDArray[np.float32]

MULTI_LABEL_THRESHOLD = 0.5


def probabilities(logits: Floats, task: Task) -> Floats:
    """(n, labels) logits to probabilities: softmax over the labels, or a sigmoid for each."""
    if task == "multi-label":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def predicted_labels(probs: Floats, labels: Sequence[str], task: Task) -> list[str]:
    """The most probable label of each row; for multi-label all of at least 0.5, joined with ``|`` (maybe none)."""
    if task == "single-label":
        return [labels[index] for index in probs.argmax(axis=1).tolist()]
    return [
        SEPARATOR.join(label for label, prob in zip(labels, row, strict=True) if prob >= MULTI_LABEL_THRESHOLD)
        for row in probs
    ]


def confidences(probs: Floats, task: Task) -> Floats:
    """(n,) probability that the predicted label, or under independence the whole predicted set, is right."""
    if task == "single-label":
        return np.asarray(probs.max(axis=1), dtype=np.float32)
    return np.asarray(np.maximum(probs, 1 - probs).prod(axis=1), dtype=np.float32)


def correct(predicted: Sequence[str], targets: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n,) whether each prediction is its target: the same labels in any order, or none in both."""
    return np.array(
        [set(split_labels(one)) == set(split_labels(other)) for one, other in zip(predicted, targets, strict=True)],
        dtype=np.bool_,
    )
