"""The model's view of one text, as records and reference rows both keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from service.contract.features import project
from service.tasks.task import Task

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Observations:
    """Columns over n texts, all float32.

    ``probs`` and ``logits`` are (n, labels), ``confidence`` (n,), ``embedding`` (n, hidden).
    """

    labels: list[str]
    probs: Floats
    confidence: Floats
    embedding: Floats
    logits: Floats

    @cached_property
    def projected(self) -> npt.NDArray[np.float16]:
        """(n, 32), made when first asked for: answers need no projection, and go out before records are made."""
        return project(self.embedding)


def observe(logits: Floats, embedding: Floats, labels: Sequence[str], task: Task) -> Observations:
    """Everything that is kept of the outputs for n texts: logits (n, labels), embedding (n, hidden)."""
    probs = task.probabilities(logits)
    return Observations(task.answers(probs, labels), probs, task.confidences(probs), embedding, logits)
