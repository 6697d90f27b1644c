"""What a task decides about a model's outputs, in numpy: one object for each, and nothing else asks for its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]


class Task(Protocol):
    """How logits become answers; the same in the gate, the reference and the service.

    ``name`` is what manifests store, ``problem_type`` what transformers calls it in a checkpoint's config.json,
    ``metric`` what the share of right answers is called, and ``several`` whether a row may have several labels, or
    none.
    """

    @property
    def name(self) -> str: ...

    @property
    def problem_type(self) -> str: ...

    @property
    def metric(self) -> str: ...

    @property
    def several(self) -> bool: ...

    def probabilities(self, logits: Floats) -> Floats:
        """(n, labels) of the (n, labels) logits."""
        ...

    def decided(self, probs: Floats) -> Booleans:
        """(n, labels), whether each label is in the answer."""
        ...

    def answers(self, probs: Floats, labels: Sequence[str]) -> list[str]:
        """The answer to each row, as it is logged, compared and sent."""
        ...

    def confidences(self, probs: Floats) -> Floats:
        """(n,) probability that the answer is right."""
        ...

    def named(self, answer: str) -> Sequence[str]:
        """The labels in an answer, each of which counts by itself in metrics."""
        ...
