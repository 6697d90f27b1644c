"""Sentence embeddings: a vector for each text, near to those of texts that mean the like."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.contract.inputs import Input
from service.tasks.task import Booleans, Doubles, Floats
from service.tasks.tokenizer import Tokens
from service.tasks.told import Classless

NEIGHBOURS = 10
LABEL = "embedding"  # the name of the one output, which is a vector
_ALIKE = 0.99  # the least cosine of two vectors that are one answer
_ROWS = 1_000  # of the similarities that are in memory at a time


def normalized(vectors: Floats) -> Floats:
    """(n, dimensions) of length 1; a zero vector stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def shortened(vectors: Floats, dimensions: int | None) -> Floats:
    """The first ``dimensions`` of each (Kusupati et al. 2022, "Matryoshka Representation Learning")."""
    return vectors if dimensions is None else vectors[:, :dimensions]


def as_text(vector: Floats) -> str:
    """Base64 of half floats: precise enough for neighbours."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def from_texts(answers: Sequence[str]) -> Floats:
    """(n, dimensions), of length 1."""
    rows = [np.frombuffer(base64.b64decode(one), dtype="<f2") for one in answers]
    return normalized(np.stack(rows).astype(np.float32))


def neighbours(vectors: Floats, count: int) -> np.ndarray:
    """(n, count) indices of the nearest other rows by cosine; of equally near ones the first."""
    found = []
    for start in range(0, len(vectors), _ROWS):
        near = vectors[start : start + _ROWS] @ vectors.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        found.append(np.argsort(-near, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)


@dataclass(frozen=True)
class Embeddings(Classless):
    """The outputs are the pooled vector, of length 1 if it is ``normalized``.

    What is served is judged by recall@10: how many of a text's ten nearest neighbours among the eval texts, by the
    checkpoint's own vectors, are its nearest by those that are served.
    """

    pooling: str = "mean"
    normalized: bool = True
    dimensions: int = 0
    name: str = "embeddings"
    problem_type: str | None = None
    metric: str = f"recall@{NEIGHBOURS}"
    categorical: bool = False
    several: bool = False
    per_token: bool = False
    vector: bool = True
    trivial: str = "Neighbours by chance"

    @property
    def settings(self) -> Mapping[str, float | bool | str]:
        return {"pooling": self.pooling, "normalized": self.normalized, "dimensions": self.dimensions}

    def described(self, labels: Sequence[str]) -> str:
        return f"sentence embedding model of {self.dimensions} dimensions ({self.pooling} pooling)"

    def fitted(self, targets: Sequence[str]) -> Embeddings:
        return self

    def problem(self, target: str, given: Input) -> str | None:
        return None if isinstance(given, str) else "is a pair of texts, and each text has a vector of its own"

    def logged(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        return [""] * len(probs)  # a thousand characters each would say what the text and the projection say

    def truth(self, targets: Sequence[str], answers: Sequence[str]) -> Sequence[str]:
        return answers

    def probabilities(self, logits: Floats) -> Floats:
        return normalized(logits) if self.normalized else logits

    def answers(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        return [as_text(vector) for vector in normalized(probs)]  # others may be beyond half floats

    def confidences(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        return np.full(len(probs), np.nan, dtype=np.float32)

    def by_text(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        return np.empty((len(probs), 0), dtype=np.float32)

    def correct(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans:
        return self.same(predicted, targets)

    def same(self, answers: Sequence[str], others: Sequence[str]) -> Booleans:
        equal = np.array([one == other for one, other in zip(answers, others, strict=True)], dtype=np.bool_)
        if equal.all():
            return equal
        return np.asarray((from_texts(answers) * from_texts(others)).sum(axis=1) >= _ALIKE)

    def merits(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans | Doubles:
        """(n, 1): the share of each text's neighbours that are found."""
        count = min(NEIGHBOURS, len(targets) - 1)
        if count < 1:
            return np.ones((len(targets), 1), dtype=np.float64)
        found, wanted = (neighbours(from_texts(side), count) for side in (predicted, targets))
        shared = (found[:, :, None] == wanted[:, None, :]).any(axis=2)
        return np.asarray(shared.mean(axis=1, keepdims=True), dtype=np.float64)

    def score(self, merits: Booleans | Doubles) -> float:
        return float(merits.mean())

    def trivial_score(self, targets: Sequence[str], inputs: Sequence[Input]) -> tuple[str, float]:
        return "neighbours by chance", min(1.0, NEIGHBOURS / max(1, len(targets) - 1))
