"""Labelled data files: CSV, JSONL or Parquet with a text column and a label column.

Labels are strings; several labels in one cell are separated by ``|`` and make the task multi-label.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from service.contract.errors import DatasetError

SEPARATOR = "|"
_MAX_CELL = 64 * 2**20


@dataclass(frozen=True)
class Dataset:
    """Texts and their labels, row by row; ``labels`` is None for a file that was read without them."""

    texts: list[str]
    labels: list[str] | None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def targets(self) -> list[str]:
        """The labels. :raises DatasetError: if the file was read without them."""
        if self.labels is None:
            raise DatasetError("this step needs labels and the data has none.")
        return self.labels


def read_dataset(path: Path, *, text_column: str = "text", label_column: str | None = "label") -> Dataset:
    """Read a data file. With ``label_column=None`` only texts are read.

    :raises DatasetError: if the file is missing, empty, not UTF-8, malformed, of an unknown kind, lacks a column, or
        has a row without text or label; the message names the row or byte.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(
            f"{path}: files of kind {path.suffix or 'unknown'!r} are not read; give .csv, .jsonl or .parquet."
        )
    wanted = [text_column] if label_column is None else [text_column, label_column]
    try:
        rows = list(reader(path, wanted))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise DatasetError(f"{path} has no rows.")
    for number, row in enumerate(rows, start=1):
        for column, value in zip(wanted, row, strict=True):
            if value is None or (column == label_column and not value.strip()):
                raise DatasetError(f"{path}: row {number} has no {column!r}. Fill it in or remove the row.")
    texts = [str(row[0]) for row in rows]
    return Dataset(texts, None if label_column is None else [str(row[1]).strip() for row in rows])


def write_jsonl(path: Path, data: Dataset) -> None:
    """Write a data file that :func:`read_dataset` reads back unchanged."""
    labels: Iterable[str | None] = data.labels if data.labels is not None else [None] * len(data)
    with path.open("wb") as file:
        for text, label in zip(data.texts, labels, strict=True):
            file.write(orjson.dumps({"text": text} if label is None else {"text": text, "label": label}) + b"\n")


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}. Convert it, for example with "
            "`iconv -f WINDOWS-1252 -t UTF-8`."
        ) from error


def _columns(path: Path, wanted: list[str], present: list[str]) -> None:
    for column in wanted:
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DatasetError(
                f"{path} has no column {column!r}; it has {', '.join(map(repr, present)) or 'none'}.{hint}"
            )


def _csv_rows(path: Path, wanted: list[str]) -> Iterable[list[str | None]]:
    csv.field_size_limit(_MAX_CELL)
    reader = csv.DictReader(io.StringIO(_decode(path), newline=""), strict=True)
    try:
        _columns(path, wanted, list(reader.fieldnames or []))
        for row in reader:
            if None in row:
                raise DatasetError(f"{path}: line {reader.line_num} has more cells than the header. Quote the commas.")
            yield [row[column] for column in wanted]
    except csv.Error as error:
        raise DatasetError(f"{path}: line {reader.line_num} is not valid CSV: {error}.") from error


def _jsonl_rows(path: Path, wanted: list[str]) -> Iterable[list[str | None]]:
    checked = False
    for number, line in enumerate(_decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DatasetError(f"{path}: line {number} is not valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}: line {number} is not a JSON object.")
        if not checked:
            _columns(path, wanted, list(row))
            checked = True
        yield [_scalar(path, number, column, row.get(column)) for column in wanted]


def _parquet_rows(path: Path, wanted: list[str]) -> Iterable[list[str | None]]:
    try:
        _columns(path, wanted, list(pq.read_schema(path).names))
        table = pq.read_table(path, columns=wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DatasetError(f"{path} is not a Parquet file: {error}.") from error
    columns = [table.column(column).to_pylist() for column in wanted]
    return [
        [_scalar(path, number, column, value) for column, value in zip(wanted, row, strict=True)]
        for number, row in enumerate(zip(*columns, strict=True), start=1)
    ]


def _scalar(path: Path, row: int, column: str, value: object) -> str | None:
    """A cell of a typed file as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise DatasetError(f"{path}: row {row} has a {type(value).__name__} for {column!r}; it must be a string.")
