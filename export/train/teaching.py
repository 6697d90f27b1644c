"""What a student is trained towards: a teacher's softened answers, and beside them the true labels.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.tasks import training_of
from service.tasks import Task
from service.tasks.task import Floats


@dataclass(frozen=True)
class Teaching:
    """A teacher's (units, labels) logits of the training and of the eval rows, in the order of the student's labels.

    ``label_share`` of the loss comes from the true labels, the rest from the teacher. ``teacher`` is for the record.
    """

    train: Floats
    evaluation: Floats
    label_share: float
    teacher: dict[str, Any]


def joined_targets(truth: npt.NDArray[Any], logits: Floats, task: Task) -> Floats:
    """(units, 2 * labels) targets: the true labels as 0 and 1, then the teacher's logits.

    ``truth`` is encoded. In one array they pass through the Trainer as labels do.
    """
    hard = training_of(task).as_shares(truth, logits.shape[1])
    return np.concatenate([hard, logits], axis=1, dtype=np.float32)


def true_part(targets: npt.NDArray[Any], labels: int) -> npt.NDArray[Any]:
    """The (units, labels) true labels of joined targets."""
    return targets[:, :labels]


def taught_loss(given: torch.Tensor, targets: torch.Tensor, task: Task, label_share: float) -> torch.Tensor:
    """The loss of (units, labels) logits against joined targets."""
    truth, shown = targets.float().chunk(2, dim=1)
    given, training = given.float(), training_of(task)
    hard = training.hard_loss(given, truth)
    return label_share * hard + (1 - label_share) * training.softened_loss(given, shown)
