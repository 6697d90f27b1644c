"""Losses of outputs that are one distribution: over the labels of a text, or of a token."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn import functional

from export.tasks.training import TEMPERATURE, Logits


class SoftmaxLosses:
    """The part of a training task that compares such outputs; each is a row of logits."""

    def hard_loss(self, logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, shares)

    def softened_loss(self, logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        one, other = (functional.log_softmax(each / TEMPERATURE, dim=-1) for each in (logits, teacher))
        return functional.kl_div(one, other, reduction="batchmean", log_target=True) * TEMPERATURE**2

    def divergence(self, logits: Logits, wanted: Logits) -> float:
        log_given, log_shown = (log_softmax(each.astype(np.float64), axis=1) for each in (logits, wanted))
        return float((np.exp(log_shown) * (log_shown - log_given)).sum(axis=1).mean())
