"""Training and judging of models that find entities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from export.checkpoint.weights import Head
from export.tasks.scores import ClassScore, Scores
from export.tasks.softmax import SoftmaxLosses
from export.tasks.training import IGNORED, Likelihood
from service.contract.errors import DatasetError
from service.contract.spans import Span, join_spans, kinds, split_spans
from service.tasks import TOKENS, Task
from service.tasks.entities import OUTSIDE
from service.tasks.tokenizer import Tokens


@dataclass(frozen=True)
class TokenClassificationTraining(SoftmaxLosses):
    """Encoded targets are (tokens,) label indices: ``B-`` for the first token of an entity, ``I-`` for its others.

    A token belongs to the entity that it shares a character with. Special tokens are ignored.
    """

    task: Task = TOKENS
    head: Head = "ForTokenClassification"
    likelihood: Likelihood | None = None  # an answer is right or wrong as a whole, tokens are not independent

    def label_names(self, targets: Sequence[str]) -> tuple[str, ...]:
        found = sorted({kind for target in targets for kind in kinds(target)})
        if not found:
            raise DatasetError("the training data has no entity in any row; there is nothing to learn.")
        return (OUTSIDE, *self.task.outputs_of(found))

    def encode(
        self, targets: Sequence[str], labels: Sequence[str], tokens: Sequence[Tokens]
    ) -> npt.NDArray[np.int64 | np.float32]:
        index = {label: number for number, label in enumerate(labels)}
        rows = [
            number
            for target, one in zip(targets, tokens, strict=True)
            for number in _numbers(split_spans(target), one, index)
        ]
        return np.array(rows, dtype=np.int64)

    def as_shares(self, truth: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
        shares = np.eye(labels, dtype=np.float32)[np.maximum(truth, 0)]
        return np.asarray(np.where(truth[:, None] == IGNORED, np.float32(IGNORED), shares))

    def quality(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        """The share of tokens that are tagged rightly."""
        return float((logits.argmax(axis=1) == (truth.argmax(axis=1) if truth.ndim == 2 else truth)).mean())

    def summed_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

    def scores(self, predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
        merits = self.task.merits(predicted, targets)
        right, found, wanted = merits.sum(axis=0).tolist()
        figures = {
            self.task.metric: self.task.score(merits),
            "precision": right / found if found else 0.0,
            "recall": right / wanted if wanted else 0.0,
        }
        each = {kind: self._score_of(kind, predicted, targets) for kind in self.task.classes(labels)}
        return Scores(len(targets), figures, each)

    def _score_of(self, kind: str, predicted: Sequence[str], targets: Sequence[str]) -> ClassScore:
        """``support`` and ``predicted`` count entities."""
        only = [[_only(kind, one) for one in side] for side in (predicted, targets)]
        merits = self.task.merits(*only)
        right, found, wanted = merits.sum(axis=0).tolist()
        return ClassScore(
            precision=right / found if found else 0.0,
            recall=right / wanted if wanted else 0.0,
            f1=self.task.score(merits) if found + wanted else 0.0,
            support=int(wanted),
            predicted=int(found),
        )


def _only(kind: str, answer: str) -> str:
    return join_spans(one for one in split_spans(answer) if one.kind == kind)


def _numbers(spans: Sequence[Span], tokens: Tokens, index: Mapping[str, int]) -> Iterator[int]:
    """Of each token the number of its label. :raises DatasetError: if there is no label for an entity."""
    assert tokens.places is not None, "tokens were read with their places"
    begun: set[Span] = set()
    for (start, end), word in zip(tokens.places.spans, tokens.places.words, strict=True):
        if word < 0:
            yield IGNORED
            continue
        span = next((one for one in spans if start < one.end and one.start < end), None)
        if span is None:
            yield _number(index, (OUTSIDE,))
        elif span in begun:
            yield _number(index, (f"I-{span.kind}", span.kind, f"B-{span.kind}"))
        else:
            begun.add(span)
            yield _number(index, (f"B-{span.kind}", f"I-{span.kind}", span.kind))


def _number(index: Mapping[str, int], names: Sequence[str]) -> int:
    for name in names:
        if name in index:
            return index[name]
    raise DatasetError(f"the model has no label for what is {names[-1]!r}; it has {', '.join(list(index)[:20])}.")
