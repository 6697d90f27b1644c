"""Classification with any number of labels for each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.contract.inputs import Input
from service.contract.labels import SEPARATOR
from service.tasks.classification import Classification, sigmoid
from service.tasks.task import Booleans, Floats
from service.tasks.tokenizer import Tokens

THRESHOLD = 0.5


@dataclass(frozen=True)
class MultiLabel(Classification):
    """Every label of at least 0.5 is in the answer, joined by ``|``; maybe none."""

    name: str = "multi-label"
    problem_type: str = "multi_label_classification"
    metric: str = "exact match"
    several: bool = True

    def problem(self, target: str, given: Input) -> str | None:
        return None

    def probabilities(self, logits: Floats) -> Floats:
        return sigmoid(logits)

    def decided(self, probs: Floats) -> Booleans:
        return np.asarray(probs >= THRESHOLD)

    def answers(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        rows = self.decided(probs).tolist()
        return [SEPARATOR.join(label for label, has in zip(labels, row, strict=True) if has) for row in rows]

    def confidences(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        """That the whole set is right, labels taken to be independent."""
        return np.asarray(np.maximum(probs, 1 - probs).prod(axis=1), dtype=np.float32)

    def named(self, answer: str) -> Sequence[str]:
        return answer.split(SEPARATOR)
