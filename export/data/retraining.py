"""The rows of a retrain: which of the new ones can be learnt, which judge, and which old ones go with them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from export.checkpoint.load import Checkpoint
from export.data.clean import clean, normalise, take
from export.data.harvest import Harvest
from export.data.labels import in_rows, label_counts
from export.inference.reference import choose_rows
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError
from service.contract.inputs import Input
from service.contract.labels import similar_labels, split_labels

HELD_OUT = 0.25
NEW_CLASS_ROWS = 10
REPLAY_SHARE = 4
REPLAY_LEAST = 2_000
_NAMED = 20  # labels left out for one reason that are kept on record

logger = logging.getLogger(__name__)

_REASONS = {
    "similar_label": "it differs from another label only by case, spaces or Unicode form",
    "rare_new_label": f"a new label needs {NEW_CLASS_ROWS} rows",
    "refused_new_label": "new labels are not wanted",
}


@dataclass(frozen=True)
class Rows:
    """What to train on, what the new rows are judged on, and what may stand in the reference beside both.

    ``added`` are the labels that the champion does not know, with their rows; ``labels`` ends with them. ``counts``
    says where all rows went, and which labels were added and left out.
    """

    train: Dataset
    held_out: Dataset
    unlabelled: list[Input]
    labels: tuple[str, ...]
    added: dict[str, int]
    counts: dict[str, JsonValue]


@dataclass(frozen=True)
class Policy:
    """Which unknown labels may become classes: new ones, and known ones but for case, spaces or Unicode form."""

    new_labels: bool = True
    similar_labels: bool = False


OPEN = Policy()


@dataclass(frozen=True)
class _Fitting:
    """The rows whose labels can be learnt, the number left out for each reason, and the labels that were the reason."""

    data: Dataset
    dropped: dict[str, int]
    labels: dict[str, dict[str, int]]


def prepare(
    found: Harvest,
    train: Dataset,
    evaluation: Dataset,
    base: Checkpoint,
    *,
    min_labels: int,
    seed: int,
    policy: Policy = OPEN,
) -> Rows:
    """Clean the new rows, hold a quarter of them out, and mix the others with a replay of base rows.

    Which rows are held out depends on their text only, so a row once held out is so in every later retrain. Replay
    is four base rows for each new one, at least 2,000, drawn at random: enough to keep what was known, in a fraction
    of the time.

    :raises DatasetError: if fewer than ``min_labels`` new rows are left, or none to train on or to judge by.
    """
    categorical = base.task.categorical
    shaped, misshapen = _fitting_targets(found.labelled, base)
    cleaned = clean(shaped, evaluation.texts, categorical=categorical)
    fitting = _learnable(cleaned.data, base, policy) if categorical else _Fitting(cleaned.data, {}, {})
    new = fitting.data
    dropped = misshapen | cleaned.dropped | fitting.dropped
    known = base.task.classes(base.labels)
    counted = label_counts(map(base.task.as_labels, new.targets)) if categorical else {}
    added = {label: rows for label, rows in counted.items() if label not in known}
    _say_labels(added, fitting.labels)
    if len(new) < min_labels:
        raise DatasetError(
            f"{len(new)} new labelled rows are left of {len(found.labelled)} after cleaning, and {min_labels} are "
            f"needed (dropped: {_listed(dropped)}). {_said(fitting.labels)}Send more feedback, or give a "
            "file with --labels."
        )
    held = [row for row, text in enumerate(new.texts) if is_held_out(text)]
    held_out = take(new, held)
    learn = take(new, sorted(set(range(len(new))) - set(held)))
    both = Dataset([*learn.texts, *train.texts], [*learn.targets, *train.targets], base.task.several, train.spans)
    mixed = clean(both, [*evaluation.texts, *held_out.texts], categorical=categorical)
    fresh = [place for place, row in enumerate(mixed.kept) if row < len(learn)]
    old = [place for place, row in enumerate(mixed.kept) if row >= len(learn)]
    replay = choose_rows(len(old), max(REPLAY_LEAST, REPLAY_SHARE * len(fresh)), seed)
    if not fresh or not held_out.texts:
        raise DatasetError(
            f"of {len(new)} new labelled rows {len(fresh)} are left to train on and {len(held_out)} to judge by; "
            "both are needed. Send more feedback."
        )
    seen = {normalise(text) for text in (*both.texts, *held_out.texts, *evaluation.texts)}
    counts: dict[str, JsonValue] = {
        **found.counts,
        **dropped,
        "new_train": len(fresh),
        "new_held_out": len(held_out),
        "base_train": len(old),
        "base_replayed": len(replay),
        "base_dropped": len(both) - len(mixed.kept) - (len(learn) - len(fresh)),
        "new_labels": _on_record(added),
        **{f"{why}s": _on_record(labels) for why, labels in fitting.labels.items()},
    }
    chosen = take(mixed.data, [*fresh, *(old[row] for row in replay)])
    unlabelled = [text for text in found.unlabelled if normalise(text) not in seen]
    return Rows(chosen, held_out, unlabelled, (*base.labels, *base.task.outputs_of(sorted(added))), added, counts)


def is_held_out(text: Input) -> bool:
    """A quarter of all texts, by the hash of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).digest()[0] < 256 * HELD_OUT


def named(labels: Mapping[str, int]) -> str:
    """Labels with their rows, as people read them."""
    return ", ".join(f"{label[:80]!r} ({in_rows(rows)})" for label, rows in labels.items())


def _fitting_targets(new: Dataset, base: Checkpoint) -> tuple[Dataset, dict[str, int]]:
    """Leave out rows whose label is none of the task's, as several where the model gives one, or no number."""
    pairs = enumerate(zip(new.targets, new.texts, strict=True))
    kept = [row for row, (target, given) in pairs if base.task.problem(target, given) is None]
    return take(new, kept), {"unfit_label": len(new) - len(kept)}


def _learnable(new: Dataset, base: Checkpoint, policy: Policy) -> _Fitting:
    """Leave out rows with a label that is hardly ever seen or not wanted, or only looks like a known one."""
    named, known = list(map(base.task.as_labels, new.targets)), base.task.classes(base.labels)
    counts = label_counts(named)
    unknown = {label for label in counts if label not in known}
    similar = set() if policy.similar_labels else similar_labels(counts, known).keys()
    rare = {label for label in unknown - similar if counts[label] < NEW_CLASS_ROWS}
    refused = set() if policy.new_labels else unknown - similar
    sets = {"similar_label": similar, "refused_new_label": refused, "rare_new_label": rare - refused}
    kept: list[int] = []
    dropped: Counter[str] = Counter()
    for row, target in enumerate(named):
        reason = next((reason for reason, labels in sets.items() if labels & set(split_labels(target))), None)
        if reason is None:
            kept.append(row)
        else:
            dropped[reason] += 1
    labels = {reason: {label: counts[label] for label in sorted(found)} for reason, found in sets.items() if found}
    return _Fitting(take(new, kept), {reason: dropped[reason] for reason in sets}, labels)


def _say_labels(added: Mapping[str, int], left_out: Mapping[str, Mapping[str, int]]) -> None:
    if added:
        logger.warning("new labels become classes: %s", named(added))
    for reason, labels in left_out.items():
        logger.warning("rows are left out, as %s: %s", _REASONS[reason], named(_most(labels)))


def _said(left_out: Mapping[str, Mapping[str, int]]) -> str:
    return "".join(f"Left out, as {_REASONS[why]}: {named(_most(labels))}. " for why, labels in left_out.items())


def _most(labels: Mapping[str, int]) -> dict[str, int]:
    """The labels with the most rows."""
    return dict(sorted(labels.items(), key=lambda one: (-one[1], one[0]))[:_NAMED])


def _on_record(labels: Mapping[str, int]) -> dict[str, JsonValue]:
    return dict(_most(labels).items())


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items() if count) or "none"
