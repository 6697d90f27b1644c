"""Export: a checkpoint becomes the next version of a model in the repository, or nothing does."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from export.build import UNPRUNED, Order, Target, build, manifest, write_card
from export.checkpoint import Checkpoint, checkpoint_digest, keep_checkpoint, read_checkpoint
from export.clean import normalise
from export.errors import disk_full_named
from export.finetune import silence
from export.gate import refuse_unless_published
from export.labels import check_labels, task_of
from export.prune.recover import Lesson
from export.prune.stage import Pruning
from export.reference import MAX_ROWS, choose_rows
from service.contract.bundle import Bundle
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError
from service.contract.repository import check_name, publish, set_live, staging

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What the caller wants of pruning, as it stands in a manifest's arguments.

    ``target_speedup`` is against the unpruned int8 model; None means that nothing is pruned. ``no_prune`` says so
    whatever the speed-up, for architectures that cannot be pruned.
    """

    target_speedup: float | None = None
    recovery_minutes: float = Lesson.minutes
    no_prune: bool = False

    @classmethod
    def recorded(cls, arguments: Mapping[str, JsonValue]) -> Wish:
        """The wish that a bundle was made with; bundles older than pruning have none."""
        speedup, minutes = arguments.get("target_speedup"), arguments.get("recovery_minutes")
        return cls(
            float(speedup) if isinstance(speedup, int | float) else None,
            float(minutes) if isinstance(minutes, int | float) else Lesson.minutes,
            arguments.get("no_prune") is True,
        )

    def pruning(self, train: Dataset) -> Pruning | str:
        """What to do with these training rows, or why nothing."""
        if self.no_prune:
            return "--no-prune was given"
        if self.target_speedup is None:
            return UNPRUNED
        return Pruning(train, self.target_speedup, Lesson(minutes=self.recovery_minutes))


@dataclass(frozen=True)
class Exported:
    """A version that was published, and whether it is live."""

    bundle: Bundle
    live: bool


def export_checkpoint(
    path: Path,
    train: Dataset,
    evaluation: Dataset,
    repo: Path,
    name: str,
    *,
    target: Target = "cpu",
    max_drop: float = 0.5,
    allow_inconclusive: bool = False,
    seed: int = 0,
    live: bool = True,
    wish: Wish = Wish(),
) -> Exported:
    """Export the checkpoint in ``path``, gate it on ``evaluation``, publish it and make it live.

    ``train`` is what the checkpoint was trained on: eval rows that occur in it do not enter the reference profile.
    ``max_drop`` is in points of accuracy. On any failure or interruption the repository is as it was.

    :raises Refused: if a variant is not shown to be non-inferior, or pruning cannot give the speed-up; nothing is
        published.
    :raises InvalidInput: if the checkpoint cannot be used or pruned, or its labels disagree with the data.
    """
    check_name(name)
    checkpoint = read_checkpoint(path)
    check_data(checkpoint, train, "training")
    check_data(checkpoint, evaluation, "eval")
    silence()
    with disk_full_named(repo):
        order = Order(
            checkpoint,
            checkpoint_digest(path),
            evaluation,
            untrained_rows(train, evaluation, seed),
            target,
            max_drop,
            allow_inconclusive,
            seed,
            data_arguments(train, evaluation)
            | {"target": target, "max_drop": max_drop, "allow_inconclusive": allow_inconclusive}
            | asdict(wish),
            wish.pruning(train),
        )
        with staging(repo, name) as stage:
            draft = build(stage, order, gate=refuse_unless_published)
            files = write_card(stage, draft, name)
            keep_checkpoint(repo, name, path, order.digest)
            bundle = publish(repo, name, stage, lambda version: manifest(draft, files, name, version))
        if live:
            set_live(repo, name, bundle.manifest.version)
    logger.info("published %s version %s%s", name, bundle.manifest.version, ", live" if live else ", not live")
    return Exported(bundle, live)


def check_data(checkpoint: Checkpoint, data: Dataset, what: str) -> None:
    """:raises DatasetError: if the data does not fit the checkpoint's labels or task."""
    check_labels(checkpoint.labels, data, what=what, source=f"the checkpoint {checkpoint.path}")
    if checkpoint.task == "single-label" and task_of(data) == "multi-label":
        raise DatasetError(f"the {what} data has several labels in a row and the checkpoint gives one.")


def untrained_rows(train: Dataset, evaluation: Dataset, seed: int) -> list[tuple[str, str | None]]:
    """At most 5,000 (text, label) of the eval rows whose text was not trained on.

    :raises DatasetError: if there is no such row.
    """
    trained = {normalise(text) for text in train.texts}
    rows = [
        (text, label)
        for text, label in zip(evaluation.texts, evaluation.targets, strict=True)
        if normalise(text) not in trained
    ]
    if len(rows) < len(evaluation):
        logger.warning("%d of %d eval rows also occur in training", len(evaluation) - len(rows), len(evaluation))
    if not rows:
        raise DatasetError("every eval row also occurs in the training data. Hold some rows back from training.")
    return [rows[row] for row in choose_rows(len(rows), MAX_ROWS, seed)]


def data_arguments(train: Dataset, evaluation: Dataset) -> dict[str, JsonValue]:
    """What identifies the data in a manifest: rows and a digest of their content."""
    found: dict[str, JsonValue] = {}
    for what, data in (("train", train), ("eval", evaluation)):
        digest = hashlib.sha256()
        for text, label in zip(data.texts, data.targets, strict=True):
            digest.update(f"{text}\0{label}\n".encode())
        found |= {f"{what}_rows": len(data), f"{what}_sha256": digest.hexdigest()}
    return found
