"""Rows with their targets as a Trainer takes them: one target for each text, or for each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from transformers import DataCollatorWithPadding

from export.checkpoint.tokenizer import CheckpointTokenizer
from export.errors import CheckpointError
from export.tasks.training import IGNORED
from service.contract.dataset import Dataset
from service.tasks import Task
from service.tasks.task import Floats

Array = TypeVar("Array", torch.Tensor, npt.NDArray[Any])
_PER_ROW = 2  # axes of logits that say one thing of each row


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized rows as the Trainer takes them."""

    def __init__(self, hf_tokenizer: CheckpointTokenizer, data: Dataset, targets: npt.NDArray[Any], task: Task) -> None:
        self._encoded = hf_tokenizer.encode(data.texts)
        ends = np.cumsum([len(ids) for ids in self._encoded["input_ids"]])
        self._targets: Any = np.split(targets, ends[:-1]) if task.per_token else targets

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._encoded.items()} | {"labels": self._targets[index]}


def padded(rows: Sequence[dict[str, Any]], collator: DataCollatorWithPadding, task: Task) -> dict[str, Any]:
    """A batch as long as its longest row, the targets of tokens included."""
    if not task.per_token:
        return dict(collator(list(rows)))
    batch = dict(collator([{name: value for name, value in row.items() if name != "labels"} for row in rows]))
    targets = [torch.as_tensor(row["labels"]) for row in rows]
    length = batch["input_ids"].shape[1]
    batch["labels"] = torch.stack(
        [torch.cat([one, one.new_full((length - len(one), *one.shape[1:]), IGNORED)]) for one in targets]
    )
    return batch


def counted(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Logits and targets of what counts, (units, labels) and (units, …)."""
    if logits.ndim == _PER_ROW:
        return logits, targets
    counts = (targets if targets.ndim == _PER_ROW else targets[..., 0]) != IGNORED
    return logits[counts], targets[counts]


def check_units(where: str, targets: Sequence[npt.NDArray[Any]], shown: Sequence[Floats]) -> None:
    """:raises CheckpointError: if a teacher of tokens reads texts as others than its student."""
    if any(len(own) != len(other) for own, other in zip(targets, shown, strict=True)):
        raise CheckpointError(
            f"{where} reads the texts as other tokens than the teacher does, and what is learnt is an answer for each "
            "token. Choose a student with the teacher's tokenizer and --max-length."
        )
