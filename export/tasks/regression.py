"""Training and judging of models that give a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import pearsonr, spearmanr
from torch.nn import functional

from export.checkpoint.weights import Head
from export.tasks.scores import Scores
from export.tasks.training import Doubles, Likelihood, Logits
from service.tasks import REGRESSION, Task
from service.tasks.regression import numbers
from service.tasks.tokenizer import Tokens

LABEL = "score"


@dataclass(frozen=True)
class RegressionTraining:
    """Encoded targets are (n, 1) numbers; the loss is the mean squared error."""

    task: Task = REGRESSION
    head: Head = "ForSequenceClassification"
    likelihood: Likelihood | None = None

    def label_names(self, targets: Sequence[str]) -> tuple[str, ...]:
        return (LABEL,)

    def encode(
        self, targets: Sequence[str], labels: Sequence[str], tokens: Sequence[Tokens]
    ) -> npt.NDArray[np.int64 | np.float32]:
        return numbers(targets).astype(np.float32)[:, None]

    def as_shares(self, truth: npt.NDArray[Any], labels: int) -> npt.NDArray[np.float32]:
        return np.asarray(truth, dtype=np.float32)

    def quality(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        return 1.0 - float(np.square(self._values(logits) - truth).mean() / (truth.var() or 1.0))

    def summed_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(self._squashed(logits), targets, reduction="sum")

    def hard_loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(self._squashed(logits), shares)

    def softened_loss(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(self._squashed(logits), self._squashed(teacher))

    def divergence(self, logits: Logits, wanted: Logits) -> float:
        return float(np.square(self._values(logits) - self._values(wanted)).mean())

    def scores(self, predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
        given, wanted = numbers(predicted), numbers(targets)
        figures = {
            "R2": self.task.score(self.task.merits(predicted, targets)),
            "mean squared error": float(np.square(given - wanted).mean()),
            "Pearson": _correlation(float(pearsonr(given, wanted).statistic)) if len(given) > 1 else 0.0,
            "Spearman": _correlation(float(spearmanr(given, wanted).statistic)) if len(given) > 1 else 0.0,
        }
        return Scores(len(targets), figures, {})

    def _values(self, logits: npt.NDArray[Any]) -> Doubles:
        return np.asarray(self.task.probabilities(logits.astype(np.float32)), dtype=np.float64)

    def _squashed(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) if self.task.settings["squashed"] else logits


def _correlation(found: float) -> float:
    """0 where one side is the same everywhere."""
    return found if math.isfinite(found) else 0.0
