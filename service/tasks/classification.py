"""What the classification tasks have in common: logits to probabilities, and whether an answer is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from service.contract.inputs import Input
from service.contract.labels import split_labels
from service.tasks.task import Booleans, Doubles, Floats
from service.tasks.tokenizer import Tokens
from service.tasks.told import Told

_SHOWN_LABELS = 12


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


def majority(targets: Sequence[str]) -> tuple[str, float]:
    """The most frequent label, or set of labels, and its share of the rows: what always answering it would score."""
    spelt = {frozenset(split_labels(target)): target for target in targets}
    label, rows = Counter(frozenset(split_labels(target)) for target in targets).most_common(1)[0]
    return spelt[label], rows / len(targets)


class Classification(Told):
    """The half of a task that both kinds of classification share: an answer is right or wrong, and nothing between."""

    name: str

    @property
    def categorical(self) -> bool:
        return True

    @property
    def trivial(self) -> str:
        return "Always answering the most frequent label"

    @property
    def settings(self) -> Mapping[str, float | bool | str]:
        return {}

    def described(self, labels: Sequence[str]) -> str:
        more = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
        return f"{self.name} text classifier for {len(labels)} labels ({', '.join(labels[:_SHOWN_LABELS])}{more})"

    @property
    def per_token(self) -> bool:
        return False

    def fitted(self, targets: Sequence[str]) -> Self:
        return self

    def classes(self, labels: Sequence[str]) -> Sequence[str]:
        return labels

    def outputs_of(self, classes: Sequence[str]) -> Sequence[str]:
        return classes

    def as_labels(self, answer: str) -> str:
        return answer

    def by_text(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        return probs

    def correct(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans:
        return correct(predicted, targets)

    def same(self, answers: Sequence[str], others: Sequence[str]) -> Booleans:
        return correct(answers, others)

    def merits(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans | Doubles:
        return correct(predicted, targets)

    def score(self, merits: Booleans | Doubles) -> float:
        return float(merits.mean())

    def trivial_score(self, targets: Sequence[str], inputs: Sequence[Input]) -> tuple[str, float]:
        label, share = majority(targets)
        return f"always answering {label!r}", share
