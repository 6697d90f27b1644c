"""The log on disk: append-only JSON lines while open, Parquet once sealed.

    LOG/<model>/date=2026-01-31/hour=07/<writer>-<sequence>.jsonl     open, locked by its writer
    LOG/<model>/date=2026-01-31/hour=07/<writer>-<sequence>.parquet   sealed, never changed again
    LOG/<model>/feedback/date=…/hour=…/…                              the same for feedback

Readers read sealed segments only. A writer holds an exclusive ``flock`` on its open segment, so a segment that can
be locked belongs to a dead writer and may be sealed by anyone: see :func:`seal_orphans`.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from service.contract.files import fsync_path
from service.contract.record import FEEDBACK_SCHEMA, RECORD_SCHEMA, parse_line
from service.contract.repository import check_name

Kind = Literal["predictions", "feedback"]
SCHEMAS: dict[Kind, pa.Schema] = {"predictions": RECORD_SCHEMA, "feedback": FEEDBACK_SCHEMA}
_FOLDERS: dict[Kind, str] = {"predictions": ".", "feedback": "feedback"}
_HOURS = "date=*/hour=*"
_PART = 500  # lines of a segment that are parsed at a time

logger = logging.getLogger(__name__)


def segment_path(root: Path, model: str, kind: Kind, opened: datetime, writer: str, sequence: int) -> Path:
    """Where an open segment goes; ``opened`` is in UTC, ``writer`` must be unique for ever (host, process, random)."""
    hour = root / check_name(model) / _FOLDERS[kind] / f"date={opened:%Y-%m-%d}" / f"hour={opened:%H}"
    return hour / f"{writer}-{sequence:06d}.jsonl"


def sealed_segments(root: Path, model: str, kind: Kind) -> list[Path]:
    """Sealed segments of a model, oldest hour first."""
    return sorted((root / check_name(model) / _FOLDERS[kind]).glob(f"{_HOURS}/*.parquet"))


def read_segment(path: Path, kind: Kind) -> pa.Table:
    """The rows of one sealed segment, in the order they were answered."""
    return pq.read_table(path, schema=SCHEMAS[kind], partitioning=None)


def seal(segment: Path, kind: Kind) -> Path | None:
    """Turn an open segment into Parquet, then remove it; returns the sealed file, or None if no row was whole.

    A line that was not completely written is cut; a line that is damaged in the middle is skipped and logged. The
    Parquet file appears by a rename after an fsync, so a crash at any point loses nothing that was in the segment
    and never shows a row twice.
    """
    sealed = segment.with_suffix(".parquet")
    if not sealed.exists():
        table = _parse(segment, SCHEMAS[kind])
        if not table.num_rows:
            segment.unlink()
            return None
        temporary = segment.with_suffix(".parquet.tmp")
        try:
            pq.write_table(table, temporary, compression="zstd")
            fsync_path(temporary)
            temporary.replace(sealed)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_path(sealed.parent)
        del table
        pa.default_memory_pool().release_unused()  # else a server keeps what its fullest minute took
    segment.unlink()
    return sealed


def _parse(segment: Path, schema: pa.Schema) -> pa.Table:
    """The whole lines of a segment; the others are logged. In parts, for rows take ten times their lines' memory."""
    tables = []
    with segment.open("rb") as file:
        numbered = enumerate(file, start=1)
        while lines := list(itertools.islice(numbered, _PART)):
            rows = []
            for number, line in lines:
                if line == b"\n":
                    continue
                try:
                    rows.append(parse_line(line))
                except (ValueError, TypeError):
                    logger.warning("%s line %d is torn or damaged and was left out", segment, number)
            tables.append(_table(rows, schema, segment))
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def _table(rows: list[dict[str, Any]], schema: pa.Schema, segment: Path) -> pa.Table:
    """Rows as a table; those that do not fit the schema are logged and left out."""
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, OverflowError):
        pass  # some row does not fit the schema: find it, one by one
    tables = []
    for row in rows:
        try:
            tables.append(pa.Table.from_pylist([row], schema=schema))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            logger.warning("%s: record %s does not fit the schema and was left out: %s", segment, row.get("id"), error)
    return pa.concat_tables(tables) if tables else schema.empty_table()


def seal_orphans(root: Path) -> int:
    """Seal the segments that dead writers left open, of every model; returns how many were sealed."""
    count = 0
    for kind, folder in _FOLDERS.items():
        for segment in sorted(root.glob(str(Path("*", folder, _HOURS, "*.jsonl")))):
            try:
                descriptor = os.open(segment, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                count += seal(segment, kind) is not None
            except (BlockingIOError, FileNotFoundError):
                continue  # its writer lives, or someone else was quicker
            except (OSError, pa.ArrowException) as error:
                logger.error("%s cannot be sealed: %s", segment, error)
            finally:
                os.close(descriptor)
    return count


def uploaded_marker(sealed: Path) -> Path:
    """The empty file beside a sealed segment that says that it has a copy in another place."""
    return sealed.with_name(f".{sealed.name}.uploaded")


def without_copy(root: Path) -> list[Path]:
    """Sealed segments of every model and kind that have no copy yet."""
    found: list[Path] = []
    for folder in _FOLDERS.values():
        for hour in root.glob(str(Path("*", folder, _HOURS))):
            files = set(hour.iterdir())  # one look, not one for each file
            found += [one for one in files if one.suffix == ".parquet" and uploaded_marker(one) not in files]
    return found


def drop_oldest(root: Path, quota: int) -> dict[str, int]:
    """Delete sealed predictions of all models until sealed files take at most ``quota`` bytes.

    Files with a copy elsewhere go first, then the others; the oldest first. The newest file always stays, and so does
    feedback, which is small and dear. Returns the rows that are lost by it, by model: those that had no copy.
    """
    found = []
    for path in root.glob(str(Path("*", _HOURS, "*.parquet"))):
        try:
            found.append((path.stat().st_mtime, path.stat().st_size, path))
        except FileNotFoundError:
            continue
    excess = sum(size for _, size, _ in found) - quota
    lost: dict[str, int] = {}
    if excess <= 0:
        return lost
    candidates = [(not uploaded_marker(path).exists(), time, size, path) for time, size, path in sorted(found)[:-1]]
    for alone, _, size, path in sorted(candidates):
        if excess <= 0:
            break
        rows = _rows(path) if alone else 0
        uploaded_marker(path).unlink(missing_ok=True)
        excess -= size
        try:
            path.unlink()
        except FileNotFoundError:  # another writer had the same thought, and counts it
            continue
        if rows:
            model = path.relative_to(root).parts[0]
            lost[model] = lost.get(model, 0) + rows
    return lost


def _rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 0
