"""Export: a checkpoint becomes the next version of a model in the repository, or nothing does."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from pydantic import JsonValue

from export.build import Order, build, libraries, manifest, write_card
from export.checkpoint import Checkpoint, checkpoint_digest, keep_checkpoint, read_checkpoint
from export.clean import normalise, take
from export.errors import disk_full_named
from export.finetune import silence
from export.gate import refuse_unless_published
from export.hardware import instruction_set
from export.labels import check_labels, task_of
from export.preflight import preflight
from export.reference import MAX_ROWS, choose_rows
from export.search.store import Store, search_folder
from export.search.variant import Wish
from export.variants import Target
from service.contract.bundle import Bundle
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError
from service.contract.repository import check_name, publish, set_live, staging

logger = logging.getLogger(__name__)

_SEARCH_SHARE = 0.9  # of the time budget; the gate and the last measurements need the rest
_SEARCH_ROWS = 1_000


@dataclass(frozen=True)
class Exported:
    """A version that was published, and whether it is live."""

    bundle: Bundle
    live: bool


@dataclass(frozen=True)
class Options:
    """How to export. ``time_budget`` is for everything, in seconds; ``max_drop`` in points of accuracy.

    ``target_speedup`` is against the unpruned int8 model: without it the fastest within ``max_drop`` is taken.
    ``max_length`` in tokens is as ``wanted`` of :func:`export.reading.read_texts`.
    """

    target: Target = "cpu"
    max_drop: float = 0.5
    time_budget: float = 600.0
    target_speedup: float | None = None
    prune: bool = True
    allow_inconclusive: bool = False
    seed: int = 0
    max_length: int | None = None


def export_checkpoint(
    path: Path,
    train: Dataset,
    evaluation: Dataset,
    repo: Path,
    name: str,
    options: Options = Options(),
    *,
    search_rows: Dataset | None = None,
    live: bool = True,
) -> Exported:
    """Search for the best form of the checkpoint in ``path``, gate it, publish it and make it live.

    ``train`` is what the checkpoint was trained on: it ranks what to prune, teaches recovery, and eval rows that occur
    in it do not enter the reference profile. Candidates are compared on ``search_rows``; without them on a third of
    ``evaluation``, which the gate then does not judge by. On any failure the repository is as it was; an interrupted
    or refused search is kept in a hidden folder, and the same call goes on from there.

    :raises Refused: if a variant is not shown to be non-inferior, or pruning cannot give the speed-up; nothing is
        published.
    :raises InvalidInput: if the checkpoint cannot be used or pruned, or its labels disagree with the data.
    """
    check_name(name)
    checkpoint = read_checkpoint(path)
    check_data(checkpoint, train, "training")
    check_data(checkpoint, evaluation, "eval")
    if search_rows is not None:
        check_data(checkpoint, search_rows, "search")
    silence()
    reading = preflight(checkpoint, train, evaluation, max_length=options.max_length)
    gate_rows = evaluation
    if options.target != "cuda" and search_rows is None:
        search_rows, gate_rows = split_rows(evaluation)
    seconds = _SEARCH_SHARE * options.time_budget
    wish = Wish(
        search_rows or evaluation, len(gate_rows), seconds, options.target_speedup, options.prune,
        must_prove=not options.allow_inconclusive,
    )  # fmt: skip
    order = Order(
        checkpoint, reading, checkpoint_digest(path), train, gate_rows,
        untrained_rows(train, evaluation, options.seed), wish,
        options.target, options.max_drop, options.allow_inconclusive, options.seed,
        data_arguments(train=train, eval=evaluation, search=search_rows) | asdict(options),
    )  # fmt: skip
    bundle = _publish(repo, name, path, order)
    if live:
        set_live(repo, name, bundle.manifest.version)
    logger.info("published %s version %s%s", name, bundle.manifest.version, ", live" if live else ", not live")
    return Exported(bundle, live)


def _publish(repo: Path, name: str, path: Path, order: Order) -> Bundle:
    with disk_full_named(repo), search_folder(repo, name, _search_key(order)) as folder, staging(repo, name) as stage:
        draft = build(stage, Store(folder), order, gate=refuse_unless_published)
        files = write_card(stage, draft, name)
        keep_checkpoint(repo, name, path, order.digest)
        return publish(repo, name, stage, lambda version: manifest(draft, files, name, version))


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


def split_rows(evaluation: Dataset) -> tuple[Dataset, Dataset]:
    """(search rows, gate rows): a third, at most 1,000, by the hash of the text, and the others.

    :raises DatasetError: if there are fewer than three rows.
    """
    if len(evaluation) < 3:
        raise DatasetError(f"the eval data has {len(evaluation)} rows; at least 3 are needed, and hundreds prove more.")
    hashes = [hashlib.sha256(normalise(text).encode()).digest() for text in evaluation.texts]
    order = sorted(range(len(hashes)), key=lambda row: hashes[row])
    searched = set(order[: min(_SEARCH_ROWS, len(order) // 3)])
    both = [[row for row in range(len(order)) if (row in searched) is wanted] for wanted in (True, False)]
    return take(evaluation, both[0]), take(evaluation, both[1])


def data_arguments(**data: Dataset | None) -> dict[str, JsonValue]:
    """What identifies the data in a manifest: rows and a digest of their content."""
    found: dict[str, JsonValue] = {}
    for what, rows in data.items():
        if rows is not None:
            digest = hashlib.sha256()
            for text, label in zip(rows.texts, rows.targets, strict=True):
                digest.update(f"{text}\0{label}\n".encode())
            found |= {f"{what}_rows": len(rows), f"{what}_sha256": digest.hexdigest()}
    return found


def _search_key(order: Order) -> str:
    """The same for calls that search the same: how long it may take and what is accepted later do not matter."""
    kept = {key: value for key, value in order.arguments.items() if key not in ("time_budget", "allow_inconclusive")}
    parts = {"checkpoint": order.digest, "on": instruction_set(), "libraries": libraries(), **kept}
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
