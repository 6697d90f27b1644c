"""What a task decides about training and judging, in PyTorch and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from export.checkpoint.weights import Head
from export.tasks.scores import Scores
from service.tasks import Task
from service.tasks.tokenizer import Tokens

Logits = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
TEMPERATURE = 2.0
IGNORED = -100  # as PyTorch has it


class Likelihood(Protocol):
    """How likely it is by a model's logits that rows have these labels."""

    def has(self, targets: Sequence[str], labels: Sequence[str]) -> Booleans:
        """(n, labels), whether a target has a label."""
        ...

    def log_chances(self, scaled: Doubles, has: Booleans) -> Doubles:
        """(n,) log-probabilities, by (n, labels) logits, that rows have exactly these labels."""
        ...


class TrainingTask(Protocol):
    """The other half of a :class:`service.tasks.Task`, which it holds."""

    @property
    def task(self) -> Task: ...

    @property
    def likelihood(self) -> Likelihood | None:
        """How likely answers are; None where logits say nothing of that."""
        ...

    @property
    def head(self) -> Head:
        """What transformers calls the models that have the outputs of this task."""
        ...

    def label_names(self, targets: Sequence[str]) -> tuple[str, ...]:
        """What the head's rows are called. :raises DatasetError: if the targets make no such task."""
        ...

    def encode(
        self, targets: Sequence[str], labels: Sequence[str], tokens: Sequence[Tokens]
    ) -> npt.NDArray[np.int64 | np.float32]:
        """Targets as the loss wants them, (units,) or (units, k); what does not count is ``IGNORED``."""
        ...

    def as_shares(self, truth: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
        """Encoded targets as (units, labels) of 0.0 and 1.0, ``IGNORED`` where they are."""
        ...

    def quality(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        """How well (units, labels) logits answer what encoded targets, or their shares, say; the more the better."""
        ...

    def summed_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Summed over units, of encoded targets."""
        ...

    def hard_loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The mean loss of (units, labels) logits against the shares of the true labels."""
        ...

    def softened_loss(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Divergence of softened answers, times the squared temperature so that its gradients keep their size."""
        ...

    def divergence(self, logits: Logits, wanted: Logits) -> float:
        """Mean Kullback-Leibler divergence, in nats, of the answers from the wanted ones; both (n, labels) logits."""
        ...

    def scores(self, predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
        """How good the answers are, in the figures that the field reads."""
        ...
