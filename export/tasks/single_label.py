"""Training and judging of classifiers that give one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from torch.nn import functional

from export.tasks.classification import ClassifierTraining
from export.tasks.softmax import SoftmaxLosses
from export.tasks.training import Booleans, Doubles, Likelihood
from service.tasks import SINGLE_LABEL, Task
from service.tasks.tokenizer import Tokens


@dataclass(frozen=True)
class SingleLabelTraining(SoftmaxLosses, ClassifierTraining):
    """Encoded targets are (n,) label indices."""

    task: Task = SINGLE_LABEL

    @property
    def likelihood(self) -> Likelihood:
        return self

    def encode(
        self, targets: Sequence[str], labels: Sequence[str], tokens: Sequence[Tokens]
    ) -> npt.NDArray[np.int64 | np.float32]:
        index = {label: number for number, label in enumerate(labels)}
        return np.array([index[target] for target in targets], dtype=np.int64)

    def as_shares(self, truth: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
        return np.asarray(np.eye(labels, dtype=np.float32)[truth])

    def quality(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        return float((logits.argmax(axis=1) == (truth.argmax(axis=1) if truth.ndim == 2 else truth)).mean())

    def summed_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, targets, reduction="sum")

    def log_chances(self, scaled: Doubles, has: Booleans) -> Doubles:
        return np.asarray((log_softmax(scaled, axis=1) * has).sum(axis=1))
