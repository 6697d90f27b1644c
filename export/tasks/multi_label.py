"""Training and judging of classifiers that give any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_expit
from torch.nn import functional

from export.data.labels import one_hot
from export.tasks.classification import ClassifierTraining
from export.tasks.training import TEMPERATURE, Booleans, Doubles, Likelihood, Logits
from service.tasks import MULTI_LABEL, Task
from service.tasks.tokenizer import Tokens


@dataclass(frozen=True)
class MultiLabelTraining(ClassifierTraining):
    """Encoded targets are (n, labels) of 0.0 and 1.0."""

    task: Task = MULTI_LABEL

    @property
    def likelihood(self) -> Likelihood:
        return self

    def encode(
        self, targets: Sequence[str], labels: Sequence[str], tokens: Sequence[Tokens]
    ) -> npt.NDArray[np.int64 | np.float32]:
        return one_hot(targets, labels).astype(np.float32)

    def as_shares(self, truth: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
        return np.asarray(truth, dtype=np.float32)

    def quality(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        return float(((logits > 0) == (truth > 0)).all(axis=1).mean())

    def summed_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")

    def hard_loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits, shares)

    def softened_loss(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        target = torch.sigmoid(teacher / TEMPERATURE)
        return functional.binary_cross_entropy_with_logits(logits / TEMPERATURE, target) * TEMPERATURE**2

    def divergence(self, logits: Logits, wanted: Logits) -> float:
        """The mean over labels of each label's own."""
        given, shown = logits.astype(np.float64), wanted.astype(np.float64)
        both = [(sign * given, sign * shown) for sign in (1, -1)]
        return float(sum(np.exp(log_expit(q)) * (log_expit(q) - log_expit(p)) for p, q in both).mean())

    def log_chances(self, scaled: Doubles, has: Booleans) -> Doubles:
        """Labels taken to be independent."""
        return np.asarray(np.where(has, log_expit(scaled), log_expit(-scaled)).sum(axis=1))
