"""Classification with one label for each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.contract.inputs import Input
from service.contract.labels import SEPARATOR
from service.tasks.classification import Classification, softmax
from service.tasks.task import Booleans, Floats
from service.tasks.tokenizer import Tokens


@dataclass(frozen=True)
class SingleLabel(Classification):
    """The most probable label is the answer."""

    name: str = "single-label"
    problem_type: str = "single_label_classification"
    metric: str = "accuracy"
    several: bool = False

    def problem(self, target: str, given: Input) -> str | None:
        if target and SEPARATOR not in target:
            return None
        return "has several labels, and there is one for each row" if target else "has no label"

    def probabilities(self, logits: Floats) -> Floats:
        return softmax(logits)

    def decided(self, probs: Floats) -> Booleans:
        return np.asarray(np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None])

    def answers(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        return [labels[index] for index in probs.argmax(axis=1).tolist()]

    def confidences(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        return np.asarray(probs.max(axis=1), dtype=np.float32)

    def named(self, answer: str) -> Sequence[str]:
        return (answer,)
