"""Pruning, recovery and judging of models that give vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from export.checkpoint.weights import Head
from export.tasks.scores import Scores
from export.tasks.training import Likelihood, Logits
from service.tasks import EMBEDDINGS, Task
from service.tasks.embeddings import LABEL
from service.tasks.tokenizer import Tokens

_SEED = 0


@dataclass(frozen=True)
class EmbeddingsTraining:
    """Encoded targets are (n, dimensions) directions in which a vector may move.

    A unit matters as much as vectors move without it. So the loss that ranks units is the vector along a random
    direction: the mean square of its gradients is the diagonal of the Gauss-Newton matrix of the squared distance
    (Hutchinson 1989, "A stochastic estimator of the trace of the influence matrix").
    """

    task: Task = EMBEDDINGS
    head: Head = "Model"
    likelihood: Likelihood | None = None

    def label_names(self, targets: Sequence[str]) -> tuple[str, ...]:
        return (LABEL,)

    def encode(
        self, targets: Sequence[str], labels: Sequence[str], tokens: Sequence[Tokens]
    ) -> npt.NDArray[np.int64 | np.float32]:
        shape = (len(targets), int(self.task.settings["dimensions"]))
        return np.random.default_rng(_SEED).standard_normal(shape, dtype=np.float32)

    def as_shares(self, truth: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
        return np.asarray(truth, dtype=np.float32)

    def quality(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        return -self.divergence(logits, truth)

    def summed_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (functional.normalize(logits, dim=1) * targets).sum()

    def hard_loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return self.softened_loss(logits, shares)

    def softened_loss(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The mean of 1 less the cosine."""
        return (1 - functional.cosine_similarity(logits, teacher, dim=1)).mean()

    def divergence(self, logits: Logits, wanted: Logits) -> float:
        """The mean of 1 less the cosine."""
        return float(self.softened_loss(torch.from_numpy(logits), torch.from_numpy(wanted)))

    def scores(self, predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
        return Scores(len(targets), {self.task.metric: self.task.score(self.task.merits(predicted, targets))}, {})
