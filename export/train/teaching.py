"""What a student is trained towards: a teacher's softened answers, and beside them the true labels.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from service.contract.bundle import Task
from service.tasks.classification import Floats

TEMPERATURE = 2.0


@dataclass(frozen=True)
class Teaching:
    """A teacher's (n, labels) logits of the training and of the eval rows, in the order of the student's labels.

    ``label_share`` of the loss comes from the true labels, the rest from the teacher. ``teacher`` is for the record.
    """

    train: Floats
    evaluation: Floats
    label_share: float
    teacher: dict[str, Any]


def joined_targets(truth: npt.NDArray[Any], logits: Floats, task: Task) -> Floats:
    """(n, 2 * labels) targets: the true labels as 0 and 1, then the teacher's logits.

    ``truth`` is as of ``labels.encode``. In one array they pass through the Trainer as labels do.
    """
    hard = np.eye(logits.shape[1], dtype=np.float32)[truth] if task == "single-label" else truth
    return np.concatenate([hard, logits], axis=1, dtype=np.float32)


def true_part(targets: npt.NDArray[Any], labels: int) -> npt.NDArray[Any]:
    """The (n, labels) true labels of joined targets."""
    return targets[:, :labels]


def taught_loss(given: torch.Tensor, targets: torch.Tensor, task: Task, label_share: float) -> torch.Tensor:
    """The loss of (n, labels) logits against joined targets."""
    truth, shown = targets.float().chunk(2, dim=1)
    given = given.float()
    hard = (
        functional.cross_entropy(given, truth)
        if task == "single-label"
        else functional.binary_cross_entropy_with_logits(given, truth)
    )
    return label_share * hard + (1 - label_share) * softened_loss(given, shown, task)


def softened_loss(given: torch.Tensor, shown: torch.Tensor, task: Task) -> torch.Tensor:
    """Divergence of softened answers, times the squared temperature so that its gradients keep their size."""
    if task == "single-label":
        one, other = (functional.log_softmax(logits / TEMPERATURE, dim=-1) for logits in (given, shown))
        return functional.kl_div(one, other, reduction="batchmean", log_target=True) * TEMPERATURE**2
    target = torch.sigmoid(shown / TEMPERATURE)
    return functional.binary_cross_entropy_with_logits(given / TEMPERATURE, target) * TEMPERATURE**2
