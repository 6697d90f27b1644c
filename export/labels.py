"""The labels of labelled data: their set and order, the task they make, and whether two files agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from service.contract.bundle import Task
from service.contract.dataset import SEPARATOR, Dataset
from service.contract.errors import DatasetError


def label_set(targets: Iterable[str]) -> tuple[str, ...]:
    """Every single label that occurs, sorted."""
    return tuple(sorted({label for target in targets for label in target.split(SEPARATOR)}))


def task_of(*datasets: Dataset) -> Task:
    """Multi-label if any row of any file has several labels."""
    several = any(SEPARATOR in target for data in datasets for target in data.targets)
    return "multi-label" if several else "single-label"


def check_labels(known: Sequence[str], data: Dataset, *, what: str, source: str) -> None:
    """:raises DatasetError: if ``data`` (``what``) has a label that ``source`` does not know."""
    unknown = [label for label in label_set(data.targets) if label not in set(known)]
    if unknown:
        first = next(row for row, target in enumerate(data.targets, 1) if unknown[0] in target.split(SEPARATOR))
        shown = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise DatasetError(
            f"the {what} data has {len(unknown)} label(s) that {source} does not know: {shown} (first in row {first}). "
            f"Known: {', '.join(map(repr, known[:10]))}{', …' if len(known) > 10 else ''}."
        )


def check_classes(labels: Sequence[str]) -> None:
    """:raises DatasetError: if there are not at least two labels, none of them empty."""
    if len(labels) < 2:
        raise DatasetError(f"the training data has a single class, {labels[0]!r}; at least two are needed.")
    if "" in labels:
        raise DatasetError("a row of the training data has an empty label beside a '|'. Remove the stray separator.")


def encode(targets: Sequence[str], labels: Sequence[str], task: Task) -> npt.NDArray[np.int64 | np.float32]:
    """Targets as the loss wants them: (n,) label indices, or (n, labels) of 0.0 and 1.0 for multi-label."""
    index = {label: number for number, label in enumerate(labels)}
    if task == "single-label":
        return np.array([index[target] for target in targets], dtype=np.int64)
    return one_hot(targets, labels).astype(np.float32)


def one_hot(targets: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n, labels), True for the label of each target, or for each of its labels."""
    index = {label: number for number, label in enumerate(labels)}
    matrix = np.zeros((len(targets), len(labels)), dtype=np.bool_)
    for row, target in enumerate(targets):
        matrix[row, [index[label] for label in target.split(SEPARATOR)]] = True
    return matrix
