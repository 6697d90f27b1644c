"""Labelled data files: CSV, JSONL or Parquet with a text column and a label column.

Labels are strings; several in one cell, separated by ``|`` or given as a list, make the task multi-label. In such a
file an empty cell or list is a row with none of the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from service.contract.dataset_rows import Wanted, is_missing, reader_of
from service.contract.errors import DatasetError
from service.contract.labels import SEPARATOR, clean_target, join_labels, split_labels


@dataclass(frozen=True)
class Origin:
    """Where rows were read: the file, what it is counted in, and the number of each row there."""

    path: Path
    unit: str
    numbers: Sequence[int]


@dataclass(frozen=True)
class Dataset:
    """Texts and their labels, row by row; ``labels`` is None for a file that was read without them.

    A label is clean (see ``service.contract.labels``). ``sets`` says that each row has a set of them, however
    small all are.
    """

    texts: list[str]
    labels: list[str] | None
    sets: bool = field(default=False, compare=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def targets(self) -> list[str]:
        """The labels. :raises DatasetError: if the file was read without them."""
        if self.labels is None:
            raise DatasetError("this step needs labels and the data has none.")
        return self.labels

    @property
    def several_labels(self) -> bool:
        """Whether a row may have several labels, or none."""
        return self.sets or any(SEPARATOR in target for target in self.labels or ())

    def place(self, row: int) -> str:
        """Where a row, counted from 0, is found by the person who has the data."""
        if self.origin is None:
            return f"row {row + 1}"
        return f"{self.origin.unit} {self.origin.numbers[row]} of {self.origin.path}"


def read_dataset(
    path: Path, *, text_column: str = "text", label_column: str | None = "label", several_labels: bool = False
) -> Dataset:
    """Read one data file; see :func:`read_datasets`."""
    return read_datasets([path], text_column=text_column, label_column=label_column, several_labels=several_labels)[0]


def read_datasets(
    paths: Iterable[Path],
    *,
    text_column: str = "text",
    label_column: str | None = "label",
    several_labels: bool = False,
) -> list[Dataset]:
    """Read the data files of one task. With ``label_column=None`` only texts are read.

    If any of them is multi-label, or the task is known to be, a row without a label has none of the labels in all of
    them.

    :raises DatasetError: if a file is missing, empty, not text, malformed, of an unknown kind, lacks a column, or has a
        row without text, or without label though every row has one; the message names the line, row or byte.
    """
    files = [_read(path, text_column, label_column) for path in paths]
    if not several_labels and not any(data.several_labels for data in files):
        for data in files:
            if data.labels is not None and "" in data.labels:
                raise _missing(data, data.labels.index(""), str(label_column))
    return files


def write_jsonl(path: Path, data: Dataset) -> None:
    """Write a data file that :func:`read_dataset` reads back unchanged."""
    with path.open("wb") as file:
        file.writelines(jsonl_lines(data))


def jsonl_lines(data: Dataset) -> Iterable[bytes]:
    """The lines of such a file."""
    several = data.several_labels
    for row, text in enumerate(data.texts):
        line: dict[str, object] = {"text": text}
        if data.labels is not None:
            line["label"] = split_labels(data.labels[row]) if several else data.labels[row]
        yield orjson.dumps(line) + b"\n"


def _read(path: Path, text_column: str, label_column: str | None) -> Dataset:
    reader, unit = reader_of(path)
    wanted: Wanted = {"--text-column": text_column} | ({"--label-column": label_column} if label_column else {})
    texts: list[str] = []
    labels: list[str] = []
    numbers: list[int] = []
    sets = False
    for number, cells in reader(path, wanted):
        for column, value in zip(wanted.values(), cells, strict=True):
            if is_missing(value):
                why = "" if value is None else " (nan is a missing value)"
                raise DatasetError(f"{path}: {unit} {number} has no {column!r}{why}. Fill it in or remove the row.")
        texts.append(_scalar(path, f"{unit} {number}", text_column, cells[0]))
        if label_column is not None:
            labels.append(_target(path, f"{unit} {number}", label_column, cells[1]))
            sets = sets or isinstance(cells[1], list) or SEPARATOR in str(cells[1])
        numbers.append(number)
    if not texts:
        raise DatasetError(f"{path} has no rows.")
    return Dataset(texts, labels if label_column else None, sets, Origin(path, unit, numbers))


def _target(path: Path, place: str, column: str, value: object) -> str:
    try:
        if isinstance(value, list):
            return join_labels(_scalar(path, place, column, one) for one in value)
        return clean_target(_scalar(path, place, column, value))
    except ValueError as error:
        raise DatasetError(f"{path}: {place} {error}.") from error


def _scalar(path: Path, place: str, column: str, value: object) -> str:
    """A cell of a typed file as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise DatasetError(f"{path}: {place} has a {type(value).__name__} for {column!r}; it must be a string.")


def _missing(data: Dataset, row: int, column: str) -> DatasetError:
    assert data.origin is not None
    return DatasetError(
        f"{data.origin.path}: {data.origin.unit} {data.origin.numbers[row]} has no {column!r}. Fill it in or remove "
        f"the row. (Where rows have several labels, separated by {SEPARATOR!r}, an empty one means none of them.)"
    )
