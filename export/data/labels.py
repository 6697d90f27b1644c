"""The labels of labelled data: their set and order, the task they make, and whether two files agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.checkpoint.load import Checkpoint
from service.contract.dataset import Dataset, read_datasets
from service.contract.errors import DatasetError
from service.contract.labels import similar_labels, split_labels
from service.contract.spans import kinds
from service.tasks import MULTI_LABEL, SINGLE_LABEL, TOKENS, Task


def read_labelled(
    paths: Iterable[Path],
    *,
    text_column: str,
    label_column: str,
    pair_column: str | None = None,
    allow_similar: bool = False,
    several_labels: bool = False,
) -> list[Dataset]:
    """Read the data files of one model, and see that together they name their labels in one way.

    :raises DatasetError: as :func:`read_datasets`, or if labels differ by case, Unicode form or spaces only, unless
        ``allow_similar``.
    """
    files = read_datasets(
        paths,
        text_column=text_column,
        label_column=label_column,
        pair_column=pair_column,
        several_labels=several_labels,
    )
    entities = any(data.spans for data in files)
    counts = label_counts((target for data in files for target in data.targets), entities=entities)
    if (similar := similar_labels(counts)) and not allow_similar:
        pairs = "; ".join(
            f"{label!r} ({in_rows(counts[label])}, first in {_first(files, label, entities=entities)}) and {other!r} "
            f"({in_rows(counts[other])})"
            for label, other in list(similar.items())[:5]
        )
        more = f"; and {len(similar) - 5} more" if len(similar) > 5 else ""
        raise DatasetError(
            f"labels that differ only by case, spaces or Unicode form: {pairs}{more}. Write them in one way, or add "
            "--allow-similar-labels if they are classes of their own."
        )
    return files


def read_unlabelled(paths: Iterable[Path], *, text_column: str) -> list[Dataset]:
    """Texts for a model that nobody tells the true answers of; each has the empty target.

    :raises DatasetError: as :func:`read_datasets`.
    """
    files = read_datasets(paths, text_column=text_column, label_column=None)
    return [replace(data, labels=[""] * len(data)) for data in files]


def _named(target: str, *, entities: bool) -> Sequence[str]:
    """The labels in a target, or the kinds of its entities."""
    return kinds(target) if entities else split_labels(target)


def label_counts(targets: Iterable[str], *, entities: bool = False) -> Counter[str]:
    """How many rows carry each label, or how many entities are of each kind."""
    return Counter(label for target in targets for label in _named(target, entities=entities))


def in_rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def label_set(targets: Iterable[str], *, entities: bool = False) -> tuple[str, ...]:
    """Every single label, or kind of entity, that occurs, sorted."""
    return tuple(sorted(label_counts(targets, entities=entities)))


def task_of(*datasets: Dataset) -> Task:
    """The task that has several labels in a row if in any file a row may have them."""
    if any(data.spans for data in datasets):
        return TOKENS
    if any(data.several_labels for data in datasets):
        return MULTI_LABEL
    for data in datasets:
        if (row := _fraction(data.targets)) is not None:
            raise DatasetError(
                f"the labels are numbers, as {data.targets[row]} in {data.place(row)}. If they are to be predicted as "
                "numbers, add --task regression; if each is a class of its own, --task single-label."
            )
    return SINGLE_LABEL


def _fraction(targets: Sequence[str]) -> int | None:
    """The first row with a number that is not whole, if all rows have numbers."""
    try:
        given = [float(target) for target in targets]
    except ValueError:
        return None
    return next((row for row, one in enumerate(given) if not one.is_integer()), None)


def check_labels(known: Sequence[str], task: Task, data: Dataset, *, what: str, source: str) -> None:
    """:raises DatasetError: if ``data`` (``what``) has a label that ``source`` does not know, or a target that is none
    of the task's, as several labels where there is to be one, or a word where there is to be a number.
    """
    classes = task.classes(known)
    named = label_set(data.targets, entities=task.per_token) if classes else ()
    unknown = [label for label in named if label not in set(classes)]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        near = similar_labels(dict.fromkeys(unknown, 0), known).get(unknown[0])
        hint = f" It differs from {near!r} only by case, spaces or Unicode form." if near is not None else ""
        raise DatasetError(
            f"the {what} data has {len(unknown)} label(s) that {source} does not know: {shown} (first in "
            f"{_first([data], unknown[0], entities=task.per_token)}).{hint} "
            f"Known: {', '.join(map(repr, classes[:10]))}{', …' if len(classes) > 10 else ''}."
        )
    for row, (target, given) in enumerate(zip(data.targets, data.texts, strict=True)):
        if wrong := task.problem(target, given):
            raise DatasetError(f"the {what} data does not fit {source}: {data.place(row)} {wrong}.")


def _first(files: Iterable[Dataset], label: str, *, entities: bool) -> str:
    return next(
        data.place(row)
        for data in files
        for row, target in enumerate(data.targets)
        if label in _named(target, entities=entities)
    )


def check_classes(labels: Sequence[str]) -> None:
    """:raises DatasetError: if there are not at least two labels."""
    if len(labels) < 2:
        found = f"a single class, {labels[0]!r}" if labels else "no labels"
        raise DatasetError(f"the training data has {found}; at least two are needed.")


def one_hot(targets: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n, labels), True for each label of a target; a target of none is a row of False."""
    index = {label: number for number, label in enumerate(labels)}
    matrix = np.zeros((len(targets), len(labels)), dtype=np.bool_)
    for row, target in enumerate(targets):
        matrix[row, [index[label] for label in split_labels(target)]] = True
    return matrix


def check_data(checkpoint: Checkpoint, data: Dataset, what: str) -> None:
    """:raises DatasetError: if the data does not fit the checkpoint's labels or task, or has single texts for pairs."""
    if checkpoint.paired not in (None, data.paired):
        kinds = ("single texts", "pairs of texts")
        raise DatasetError(
            f"{checkpoint.path} was trained on {kinds[checkpoint.paired is True]}, and the {what} data has "
            f"{kinds[data.paired]}. Give rows as it was trained on; "
            "the second text is the column text_pair, or what --pair-column names."
        )
    check_labels(checkpoint.labels, checkpoint.task, data, what=what, source=f"the checkpoint {checkpoint.path}")
