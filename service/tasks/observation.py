"""The model's view of one text, as records and reference rows both keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from service.contract.features import project
from service.tasks.task import Task
from service.tasks.tokenizer import Tokens

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Observations:
    """Columns over n texts, all float32.

    ``probs`` are (n, labels), ``confidence`` (n,), ``embedding`` (n, hidden). ``logits`` are (units, labels), and
    ``starts`` (n + 1,) says which of its rows are whose.
    """

    labels: list[str]
    probs: Floats
    confidence: Floats
    embedding: Floats
    logits: Floats
    starts: Sequence[int]
    tokens: Sequence[Tokens]

    @cached_property
    def projected(self) -> npt.NDArray[np.float16]:
        """(n, 32), made when first asked for: answers need no projection, and go out before records are made."""
        return project(self.embedding)

    def logits_of(self, row: int) -> Floats:
        """(units, labels) of one text."""
        return self.logits[self.starts[row] : self.starts[row + 1]]


def observe(
    logits: Floats, embedding: Floats, labels: Sequence[str], task: Task, tokens: Sequence[Tokens]
) -> Observations:
    """Everything that is kept of the outputs for n texts: logits (units, labels), embedding (n, hidden)."""
    probs = task.probabilities(logits)
    return Observations(
        labels=task.logged(probs, labels, tokens),
        probs=task.by_text(probs, tokens),
        confidence=task.confidences(probs, tokens),
        embedding=embedding,
        logits=logits,
        starts=list(accumulate(map(len, tokens), initial=0)) if task.per_token else range(len(tokens) + 1),
        tokens=tokens,
    )
