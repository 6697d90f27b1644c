"""Labelled data files: CSV, JSONL or Parquet with a text column and a label column.

With a column for second texts as well, ``text_pair`` unless another is named, each row is a pair.

Labels are strings; several in one cell, separated by ``|`` or given as a list, make the task multi-label. In such a
file an empty cell or list is a row with none of the labels. Entities are a list of objects with ``start``, ``end`` and
``label``, or the tags of a CoNLL file (:mod:`service.contract.conll`), or of a list of words in place of a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from service.contract.conll import is_tag, spans_of
from service.contract.dataset_rows import Wanted, conll_rows, is_missing, reader_of
from service.contract.errors import DatasetError
from service.contract.inputs import Input, TextPair, parts
from service.contract.labels import SEPARATOR, clean_target, join_labels, split_labels
from service.contract.spans import join_spans, problem, span_of, split_spans

PAIR_COLUMN = "text_pair"


@dataclass(frozen=True)
class Origin:
    """Where rows were read: the file, what it is counted in, and the number of each row there."""

    path: Path
    unit: str
    numbers: Sequence[int]


@dataclass(frozen=True)
class Dataset:
    """Inputs and their labels, row by row; ``labels`` is None for a file that was read without them.

    ``texts`` are texts or pairs of texts, all of one kind. A label is clean (see ``service.contract.labels``).
    ``sets`` says that each row has a set of them, however small all are, and ``spans`` that these are entities, as
    :mod:`service.contract.spans` writes them.
    """

    texts: Sequence[Input]
    labels: list[str] | None
    sets: bool = field(default=False, compare=False)
    spans: bool = field(default=False, compare=False)
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
    def paired(self) -> bool:
        """Whether each row is a pair of texts."""
        return bool(self.texts) and isinstance(self.texts[0], TextPair)

    @property
    def single_texts(self) -> list[str]:
        """The texts, where each row is one. :raises DatasetError: if rows are pairs."""
        single = [text for text in self.texts if isinstance(text, str)]
        if len(single) < len(self.texts):
            raise DatasetError("this step reads single texts and the data has pairs.")
        return single

    @property
    def several_labels(self) -> bool:
        """Whether a row may have several labels, or none."""
        return self.sets or self.spans or any(SEPARATOR in target for target in self.labels or ())

    def place(self, row: int) -> str:
        """Where a row, counted from 0, is found by the person who has the data."""
        if self.origin is None:
            return f"row {row + 1}"
        return f"{self.origin.unit} {self.origin.numbers[row]} of {self.origin.path}"


def read_dataset(
    path: Path,
    *,
    text_column: str = "text",
    label_column: str | None = "label",
    pair_column: str | None = None,
    several_labels: bool = False,
) -> Dataset:
    """Read one data file; see :func:`read_datasets`."""
    return read_datasets(
        [path],
        text_column=text_column,
        label_column=label_column,
        pair_column=pair_column,
        several_labels=several_labels,
    )[0]


def read_datasets(
    paths: Iterable[Path],
    *,
    text_column: str = "text",
    label_column: str | None = "label",
    pair_column: str | None = None,
    several_labels: bool = False,
) -> list[Dataset]:
    """Read the data files of one task. With ``label_column=None`` only texts are read.

    If any of them is multi-label, or the task is known to be, a row without a label has none of the labels in all of
    them.

    :param pair_column: where second texts are; without it ``text_pair``, in files that have such a column.
    :raises DatasetError: if a file is missing, empty, not text, malformed, of an unknown kind, lacks a column, or has a
        row without text, or without label though every row has one; the message names the line, row or byte.
    """
    files = [_read(path, text_column, label_column, pair_column) for path in paths]
    _check_alike(files)
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
        line: dict[str, object] = dict(zip(("text", PAIR_COLUMN), parts(text), strict=False))
        if data.labels is not None:
            line["label"] = _as_json(data.labels[row], spans=data.spans, several=several)
        yield orjson.dumps(line) + b"\n"


def _joined(path: Path, place: str, words: list[object], tags: object) -> list[object]:
    """The text that words make, and the entities that a tag for each makes, as CoNLL files have them."""
    spelt = [word for word in words if isinstance(word, str) and word]
    if len(spelt) < len(words) or not words:
        raise DatasetError(f"{path}: {place} has a list for a text that is not one of words.")
    if tags is None:
        return [" ".join(spelt), None]
    named = [tag for tag in tags if isinstance(tag, str) and is_tag(tag)] if isinstance(tags, list) else []
    if len(named) != len(spelt):
        raise DatasetError(
            f"{path}: {place} has {len(spelt)} words, and not as many tags. Give a tag for each, as O or B-PER, not a "
            "number."
        )
    return [" ".join(spelt), [[one.start, one.end, one.kind] for one in spans_of(spelt, named)]]


def _as_json(target: str, *, spans: bool, several: bool) -> object:
    if spans:
        return [{"start": one.start, "end": one.end, "label": one.kind} for one in split_spans(target)]
    return split_labels(target) if several else target


def _read(path: Path, text_column: str, label_column: str | None, pair_column: str | None) -> Dataset:
    reader, unit = reader_of(path)
    wanted: Wanted = {
        option: column
        for option, column in {
            "--text-column": text_column,
            "--label-column": label_column,
            "--pair-column": pair_column,
        }.items()
        if column
    }
    texts: list[str] = []
    seconds: list[object] = []
    labels: list[str] = []
    numbers: list[int] = []
    sets, entities = False, reader is conll_rows
    for number, cells in reader(path, wanted, () if pair_column else (PAIR_COLUMN,)):
        for column, value in zip(wanted.values(), cells, strict=False):
            if is_missing(value):
                why = "" if value is None else " (nan is a missing value)"
                raise DatasetError(f"{path}: {unit} {number} has no {column!r}{why}. Fill it in or remove the row.")
        if isinstance(cells[0], list):
            cells = [*_joined(path, f"{unit} {number}", cells[0], cells[1] if label_column else None), *cells[2:]]
            entities = True
        texts.append(_scalar(path, f"{unit} {number}", text_column, cells[0]))
        if label_column is not None:
            labels.append(_target(path, f"{unit} {number}", label_column, cells[1], texts[-1]))
            sets = sets or isinstance(cells[1], list) or SEPARATOR in str(cells[1])
            entities = entities or _holds_entities(cells[1])
        seconds.append(cells[-1])
        numbers.append(number)
    if not texts:
        raise DatasetError(f"{path} has no rows.")
    origin = Origin(path, unit, numbers)
    return Dataset(
        _paired(texts, seconds, pair_column or PAIR_COLUMN, origin),
        labels if label_column else None,
        sets,
        entities,
        origin,
    )


def _paired(texts: Sequence[str], seconds: Sequence[object], column: str, origin: Origin) -> Sequence[Input]:
    """The texts with the second ones, if there are any: then all must have one."""
    if all(second is None for second in seconds):
        return texts
    found: list[Input] = []
    for text, second, number in zip(texts, seconds, origin.numbers, strict=True):
        if is_missing(second):
            raise DatasetError(
                f"{origin.path}: {origin.unit} {number} has no {column!r}, the second text of its pair. Fill it in or "
                "remove the row."
            )
        found.append(TextPair(text, _scalar(origin.path, f"{origin.unit} {number}", column, second)))
    return found


def _check_alike(files: Sequence[Dataset]) -> None:
    """:raises DatasetError: if some files have pairs of texts and others single ones."""
    paired = [data for data in files if data.paired]
    single = [data for data in files if not data.paired]
    if paired and single:
        one, other = (data.origin.path if data.origin else "the data" for data in (paired[0], single[0]))
        raise DatasetError(
            f"{one} has pairs of texts (column {PAIR_COLUMN!r}), and {other} has no second text. Give both files the "
            "column, or name another with --pair-column."
        )


def _holds_entities(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict | list) for one in value)


def _target(path: Path, place: str, column: str, value: object, text: str) -> str:
    try:
        if isinstance(value, list) and _holds_entities(value):
            found = [span_of(one) for one in value]
            if wrong := problem(found, text):
                raise ValueError(wrong)
            return join_spans(found)
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
