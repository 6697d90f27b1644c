"""Distillation: a smaller student, given by the user, learns what a fine-tuned teacher answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from export.checkpoint.load import Checkpoint, checkpoint_digest, read_checkpoint, resolve_base
from export.checkpoint.tokenizer import read_texts
from export.data.labels import check_data
from export.graph.onnx import load_model
from export.inference.predict import own_logits, own_tokens
from export.judge.paired import Paired, as_points, compared
from export.preconditions import check_out
from export.train.finetune import Finetuned, Recipe, finetune, half_precision, silence
from export.train.teaching import Teaching
from service.contract.dataset import Dataset
from service.tasks.task import Floats
from service.tasks.tokenizer import Tokens

logger = logging.getLogger(__name__)

DEFAULT = Recipe(epochs=5, learning_rate=1e-4)


@dataclass(frozen=True)
class Model:
    """A checkpoint's score on the eval rows, its parameters, and the size of its weights in bytes."""

    score: float
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Distilled:
    """A student that was written, beside its teacher. ``paired`` is student minus teacher on the eval rows."""

    made: Finetuned
    teacher: Model
    student: Model
    paired: Paired

    def to_dict(self) -> dict[str, Any]:
        both = {"teacher": asdict(self.teacher), "student": asdict(self.student)}
        return self.made.to_dict() | both | {"paired": as_points(self.paired)}


def distill(
    teacher: Path,
    student: str,
    train: Dataset,
    evaluation: Dataset,
    out: Path,
    recipe: Recipe = DEFAULT,
    *,
    label_share: float = 0.1,
    resumable: bool = False,
) -> Distilled:
    """Train ``student``, a folder or a hub name, towards the answers of the checkpoint ``teacher``; written to ``out``.

    Labels, their order and the task are the teacher's; each model reads the texts with its own tokenizer. A student
    that already classifies keeps its head for the labels that it shares. ``label_share`` of the loss comes from the
    true labels. The folder is an ordinary checkpoint and appears whole or not at all. ``resumable`` as in ``finetune``.

    :raises DatasetError: if the data has labels that the teacher does not give.
    :raises CheckpointError: for a teacher or a student that cannot be loaded.
    :raises InvalidInput: if ``out`` exists and is not an empty folder.
    """
    check_out(out)
    resolve_base(student)  # a name that leads nowhere must not wait for the teacher
    known = read_checkpoint(teacher)
    check_data(known, train, "training")
    check_data(known, evaluation, "eval")
    silence()
    model = load_model(known)
    if torch.cuda.is_available():
        model.to(torch.device("cuda"))  # type: ignore[arg-type]  # its decorator loses the signature
    started = time.monotonic()
    logger.info("teacher: answering %d training and %d eval rows", len(train), len(evaluation))
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half_precision()):
        shown, _ = _answers(model, known, train)
    exact, tokens = _answers(model, known, evaluation)
    logger.info("teacher: answered, %.0f s", time.monotonic() - started)
    record = {"checkpoint_sha256": checkpoint_digest(teacher), "base_model": known.base_model}
    teaching = Teaching(shown, exact, label_share, record | {"label_share": label_share})
    made = finetune(
        student,
        train,
        evaluation,
        out,
        recipe,
        labels=known.labels,
        task=known.task,
        teaching=teaching,
        resumable=resumable,
    )
    learnt = read_checkpoint(out)
    pupil = load_model(learnt)
    task = known.task.fitted(train.targets)
    merits = [
        task.merits(task.answers(task.probabilities(logits), known.labels, read), evaluation.targets)
        for logits, read in ((exact, tokens), _answers(pupil, learnt, evaluation))
    ]
    both = [
        Model(task.score(one), sum(weight.numel() for weight in each.parameters()), _weights(where))
        for one, each, where in zip(merits, (model, pupil), (teacher, out), strict=True)
    ]
    return Distilled(made, both[0], both[1], compared(task, merits[0], merits[1]))


def _answers(model: PreTrainedModel, checkpoint: Checkpoint, data: Dataset) -> tuple[Floats, Sequence[Tokens]]:
    """(units, labels) logits, by the checkpoint's own tokenizer, and what that reads."""
    reading = read_texts(checkpoint.path, model, data.texts)
    return own_logits(model, reading, data.texts), own_tokens(reading, data, checkpoint.task)


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
