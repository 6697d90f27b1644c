"""The rows of a CSV, JSONL or Parquet file: the cells of the columns wanted, and where each row stands."""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import itertools
import json
import logging
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from service.contract import conll
from service.contract.errors import DatasetError
from service.contract.labels import is_nan
from service.contract.text_file import PARQUET, read_bytes, read_text, refuse_foreign

# Option of the command line: the column that it names.
Wanted = Mapping[str, str]
# Line or row, counted from 1, and its cells: those wanted, in their order, then those of the columns that a file need
# not have. A missing value is None, or NaN.
Row = tuple[int, list[object]]
Reader = Callable[[Path, Wanted, Sequence[str]], Iterator[Row]]

logger = logging.getLogger(__name__)

_MAX_CELL = 64 * 2**20
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_HEAD, _ROWS = 2**20, 200  # what is looked at to find the delimiter and the header: characters, rows
_SENTENCE = 4


@dataclass(frozen=True)
class _Layout:
    """Where the cells wanted stand in rows of ``width`` cells, and whether the first row is a header.

    ``more`` is the same for columns that need not be there: None where one is not.
    """

    delimiter: str
    width: int
    places: list[int]
    header: bool
    more: list[int | None]


def reader_of(path: Path) -> tuple[Reader, str]:
    """How to read a file by its name, and what its rows are counted in.

    :raises DatasetError: if the name ends in none of the known kinds.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if kind in (".csv", ".tsv"):
        return csv_rows, "line"
    if kind == ".jsonl":
        return jsonl_rows, "line"
    if kind == ".parquet":
        return parquet_rows, "row"
    if kind in conll.SUFFIXES:
        return conll_rows, "line"
    raise DatasetError(
        f"{path}: files of kind {path.suffix or 'unknown'!r} are not read; give .csv, .jsonl, .parquet or .conll."
    )


def csv_rows(path: Path, wanted: Wanted, optional: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a CSV file, by the line on which each begins.

    The delimiter is the one by which the header has the columns. Numbers for columns are places in a file without one.
    The cell ``nan`` is a missing value, which CSV cannot say otherwise.
    """
    csv.field_size_limit(_MAX_CELL)
    text = read_text(path)
    layout = _layout(path, text[:_HEAD], wanted, optional)
    for line, row in itertools.islice(_records(path, text, layout.delimiter), int(layout.header), None):
        if len(row) > layout.width:
            raise DatasetError(
                f"{path}: line {line} has more cells than the header ({len(row)}, not {layout.width}). Quote the "
                f"{_DELIMITERS[layout.delimiter]} inside cells."
            )
        if len(row) <= max(layout.places):
            lacking = next(column for column, at in zip(wanted.values(), layout.places, strict=True) if at >= len(row))
            raise DatasetError(
                f"{path}: line {line} has no {lacking!r}: it has {len(row)} cell{'s' * (len(row) > 1)} of "
                f"{layout.width}. Fill it in or remove the row."
            )
        given = [
            row[place] if place is not None and place < len(row) else None for place in (*layout.places, *layout.more)
        ]
        yield line, [math.nan if cell is not None and is_nan(cell) else cell for cell in given]


def jsonl_rows(path: Path, wanted: Wanted, optional: Sequence[str] = ()) -> Iterator[Row]:
    """Objects by line; ``NaN``, which is no JSON but is written by many, is a missing value."""
    checked = False
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        if not line.strip():
            continue
        row = _json(path, number, line)
        if not checked:
            _refuse_missing(path, list(row), wanted)
            checked = True
        yield number, [row.get(column) for column in (*wanted.values(), *optional)]


def parquet_rows(path: Path, wanted: Wanted, optional: Sequence[str] = ()) -> Iterator[Row]:
    raw = read_bytes(path)
    refuse_foreign(path, raw, but=PARQUET)
    if not raw.startswith(PARQUET):
        raise DatasetError(f"{path} is not a Parquet file. If it is text, give it the suffix .csv or .jsonl.")
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        names = list(file.schema_arrow.names)
        _refuse_missing(path, names, wanted)
        there = [*wanted.values(), *(column for column in optional if column in names)]
        for column in there:
            _only(path, column, names)
        table = file.read(columns=there)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is a damaged Parquet file: {error}. Write it again.") from error
    columns = [
        table.column(column).to_pylist() if column in there else [None] * table.num_rows
        for column in (*wanted.values(), *optional)
    ]
    yield from enumerate(map(list, zip(*columns, strict=True)), start=1)


def conll_rows(path: Path, wanted: Wanted, optional: Sequence[str] = ()) -> Iterator[Row]:
    """Sentences by their first line; the label column is the last one, unless it is wanted by its number."""
    column = wanted.get("--label-column", "")
    for line, text, found in conll.sentences(path, int(column) if column.isdecimal() else None):
        spans: list[object] = [[one.start, one.end, one.kind] for one in found]
        yield line, [text, *([spans] if column else []), *(None for _ in optional)]


def is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _layout(path: Path, text: str, wanted: Wanted, optional: Sequence[str]) -> _Layout:
    """:raises DatasetError: if the beginning of the file has not the columns wanted."""
    samples = {delimiter: _sample(text, delimiter) for delimiter in _DELIMITERS}
    headers = {delimiter: [cell.strip() for cell in rows[0]] if rows else [] for delimiter, rows in samples.items()}
    fits = [delimiter for delimiter, header in headers.items() if set(wanted.values()) <= set(header)]
    widths = {delimiter: {len(row) for row in rows} for delimiter, rows in samples.items()}
    even = [delimiter for delimiter, found in widths.items() if len(found) == 1 and found != {1}]
    delimiter = (fits or even or [","])[0]
    header = headers[delimiter]
    if delimiter != ",":
        logger.info("%s: its columns are separated by %s", path, _DELIMITERS[delimiter])
    if not fits and all(column.isdecimal() for column in wanted.values()):
        places = [_place(path, column, header) for column in wanted.values()]
        return _Layout(delimiter, len(header), places, header=False, more=[None for _ in optional])
    if not fits:
        _refuse_header(path, header, samples[delimiter][1:], wanted)
    places = [_only(path, column, header) for column in wanted.values()]
    more = [_only(path, column, header) if column in header else None for column in optional]
    return _Layout(delimiter, len(header), places, header=True, more=more)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DatasetError(
                f"{path}: the row that begins in line {line} is not valid CSV: {error}. Double a quote inside quotes."
            ) from error
        if row is None:
            return
        if row:
            yield line, row


def _sample(text: str, delimiter: str) -> list[list[str]]:
    """The first rows that are not blank, as far as they are valid."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            if row:
                rows.append(row)
            if len(rows) == _ROWS:
                break
    return rows


def _place(path: Path, column: str, header: Sequence[str]) -> int:
    if not 1 <= int(column) <= len(header):
        raise DatasetError(f"{path} has no column {column}: its first row has {len(header)} cells.")
    return int(column) - 1


def _only(path: Path, column: str, header: Sequence[str]) -> int:
    """Where the column stands. :raises DatasetError: if it stands there twice."""
    places = [place for place, name in enumerate(header) if name == column]
    if len(places) > 1:
        where = " and ".join(str(place + 1) for place in places)
        raise DatasetError(
            f"{path} has the column {column!r} {len(places)} times, as columns {where}. Rename all but one."
        )
    return places[0]


def _refuse_header(path: Path, header: list[str], below: list[list[str]], wanted: Wanted) -> None:
    """:raises DatasetError: that says what the first line is instead of a header with the columns."""
    if header and header[0].startswith("{"):
        raise DatasetError(
            f"{path} begins with {header[0][:20]!r}, as JSON lines do. Name it so: "
            f"`mv {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.jsonl')))}`."
        )
    if _is_data(header, below):
        text_place, label_place = _guess(len(header), [header, *below])
        numbers = dict(zip(wanted, (text_place, label_place), strict=False))
        options = " ".join(f"{option} {place + 1}" for option, place in numbers.items())
        raise DatasetError(
            f"{path} has no column {next(iter(wanted.values()))!r}, and its first line looks like data: "
            f"{', '.join(repr(cell[:40]) for cell in header)}. If it has no header, name the columns by their place: "
            f"{options}"
        )
    _refuse_missing(path, header, wanted)


def _is_data(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether a first row is like those below it: a sentence, a number, or what its column says again."""
    if any(len(cell.split()) >= _SENTENCE or cell.replace(".", "", 1).isdecimal() for cell in first):
        return True
    return any(
        len(row) > place and row[place].strip() == cell for row in below for place, cell in enumerate(first) if cell
    )


def _guess(width: int, rows: Sequence[Sequence[str]]) -> tuple[int, int]:
    """The places of the texts, which are the longest cells, and of the labels, which repeat most."""
    columns = [[row[place] for row in rows if len(row) > place] for place in range(width)]
    texts = max(range(width), key=lambda place: sum(map(len, columns[place])))
    others = [place for place in range(width) if place != texts]
    return texts, min(others, key=lambda place: len(set(columns[place])), default=texts)


def _refuse_missing(path: Path, present: Sequence[str], wanted: Wanted) -> None:
    for option, column in wanted.items():
        if column not in present:
            near = difflib.get_close_matches(column.casefold(), [name.casefold() for name in present], n=1, cutoff=0.5)
            meant = next((name for name in present if near and name.casefold() == near[0]), None)
            hint = (
                f" Did you mean {meant!r}? Then add {option} {shlex.quote(meant)}"
                if meant
                else f"Name it with {option}."
            )
            shown = ", ".join(map(repr, present[:20])) or "none"
            raise DatasetError(f"{path} has no column {column!r}; it has {shown}. {hint}")


def _json(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            row = orjson.loads(orjson.dumps(json.loads(line)))  # the second knows NaN, the first makes it null
        except (ValueError, TypeError, RecursionError):
            hint = "" if line.lstrip()[:1] in ("{", "[") else " If it is CSV, give it the suffix .csv."
            raise DatasetError(f"{path}: line {number} is not valid JSON: {error}.{hint}") from error
    if isinstance(row, dict):
        return row
    hint = ""
    if line.lstrip().startswith("["):
        file, made = (shlex.quote(str(one)) for one in (path, path.with_suffix(f".lines{path.suffix}")))
        hint = f" If the file is one JSON array, write its objects one a line: `jq -c '.[]' {file} > {made}`."
    raise DatasetError(f"{path}: line {number} is not a JSON object.{hint}")
