"""The log in windows: runs of consecutive rows of one model version, each row in exactly one window.

A segment is indexed once, when it is first seen: how many rows each version has in it, and from when. A cursor for
each model, version and segment says how many of those rows are used up; it moves in the transaction that closes the
window, so a crash between two steps neither skips a row nor counts it twice.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from monitoring.errors import UnreadableNow
from monitoring.state import StateStore
from service.contract.segments import read_segment, sealed_segments
from service.terminal.throttled import ThrottledLogger

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

OnRows = Callable[[str, pa.Table], None]  # digest, its rows in the order they were answered


@dataclass(frozen=True)
class Rules:
    """When a window is complete: at ``rows``, or from ``fewest`` on once its oldest row is ``seconds`` old."""

    rows: int
    seconds: float
    fewest: int


@dataclass(frozen=True)
class Pending:
    """Rows of one version that are in no window yet; ``oldest`` in seconds since the epoch."""

    model: str
    version: str
    digest: str
    rows: int
    oldest: float


@dataclass(frozen=True)
class CursorMove:
    """How far a window read into a segment, and the time of the first row after it."""

    segment: str
    used: int
    oldest: float


@dataclass(frozen=True)
class WindowRows:
    """The rows of one window and the cursor moves that use them up."""

    model: str
    version: str
    digest: str
    table: pa.Table
    moves: tuple[CursorMove, ...]

    @property
    def first(self) -> str:
        """Id of the first record."""
        return str(self.table.column("id")[0].as_py())

    @property
    def last(self) -> str:
        """Id of the last record."""
        return str(self.table.column("id")[-1].as_py())

    @property
    def start(self) -> datetime:
        """Time of the earliest record."""
        return _time(pc.min(self.table.column("ts")))

    @property
    def end(self) -> datetime:
        """Time of the latest record."""
        return _time(pc.max(self.table.column("ts")))

    @property
    def key(self) -> str:
        """The idempotency key: the digest and the window's records."""
        return f"{self.digest}:{self.first}..{self.last}"

    @property
    def id(self) -> str:
        """A name for files, the same each time this window is read."""
        return f"{self.end:%Y%m%dT%H%M%S}-{hashlib.sha256(self.key.encode()).hexdigest()[:12]}"


def may_pass(error: Exception) -> bool:
    """Whether the system said no, and not the content: of a damaged file Arrow says so without an error number."""
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)


def index_segments(store: StateStore, log: Path, model: str, on_rows: OnRows) -> int:
    """Take note of segments not seen before; returns how many could not be read and are left out for good.

    ``on_rows`` is called in the transaction that records the segment, once for each version in it.
    """
    seen = {row["segment"] for row in store.rows("SELECT segment FROM segments WHERE model = ?", (model,))}
    damaged = 0
    for path in sealed_segments(log, model, "predictions"):
        segment = path.relative_to(log).as_posix()
        if segment in seen:
            continue
        try:
            table = read_segment(path, "predictions")
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException) as error:
            if may_pass(error):
                throttled.error(segment, "segment %s cannot be read now: %s", path, error)
                continue
            logger.error("segment %s cannot be read and is left out: %s", path, error)
            store.execute("INSERT INTO segments VALUES (?, ?, 'damaged')", (model, segment))
            damaged += 1
            continue
        with store.transaction():
            store.execute("INSERT INTO segments VALUES (?, ?, 'indexed')", (model, segment))
            for digest in pc.unique(table.column("digest")).drop_null().to_pylist():
                rows = _of_digest(table, digest)
                store.execute(
                    "INSERT INTO cursors (model, digest, segment, version, rows, oldest) VALUES (?, ?, ?, ?, ?, ?)",
                    (model, digest, segment, str(rows.column("version")[0]), rows.num_rows, _oldest(rows)),
                )
                on_rows(digest, rows)
    return damaged


def pending_rows(store: StateStore, model: str) -> list[Pending]:
    """What waits for a window, for each version, oldest first."""
    found = store.rows(
        "SELECT max(version) AS version, digest, sum(rows - used) AS rows, min(oldest) AS oldest FROM cursors "
        "WHERE model = ? AND used < rows GROUP BY digest ORDER BY oldest",
        (model,),
    )
    return [Pending(model, row["version"], row["digest"], row["rows"], row["oldest"]) for row in found]


def complete(
    pending: Pending, rules: Rules, now: float, *, live: bool, flush: bool = False
) -> Literal["judge", "drop", "wait"]:
    """Whether the pending rows make a window, will never make one, or may yet.

    Too few rows of a version that is not served any more are dropped when they are old. ``flush`` takes whatever
    is there as if it were old.
    """
    if pending.rows >= rules.rows:
        return "judge"
    if not flush and now - pending.oldest < rules.seconds:
        return "wait"
    if pending.rows >= rules.fewest:
        return "judge"
    return "wait" if live or flush else "drop"


def take_rows(store: StateStore, log: Path, pending: Pending, most: int) -> tuple[WindowRows | None, int]:
    """Read the next ``most`` rows of a version in log order, and how many segments were lost on the way.

    A segment that vanished or broke since it was indexed is skipped for good. Nothing else is written: the cursors
    move with :func:`use_rows`.

    :raises UnreadableNow: if a segment is there and cannot be read, which may pass.
    """
    parts: list[pa.Table] = []
    moves: list[CursorMove] = []
    lost = 0
    missing = most
    for row in store.rows(
        "SELECT segment, rows, used FROM cursors WHERE model = ? AND digest = ? AND used < rows ORDER BY segment",
        (pending.model, pending.digest),
    ):
        try:
            table = _of_digest(read_segment(log / row["segment"], "predictions"), pending.digest)
        except (OSError, pa.ArrowException) as error:
            if may_pass(error):
                raise UnreadableNow(f"segment {row['segment']} cannot be read now: {error}") from error
            logger.error("segment %s was lost with %d rows: %s", row["segment"], row["rows"] - row["used"], error)
            _forget(store, pending.model, row["segment"])
            lost += 1
            continue
        part = table.slice(row["used"], missing)
        used = row["used"] + part.num_rows
        rest = table.slice(used)
        parts.append(part)
        moves.append(CursorMove(row["segment"], used, _oldest(rest) if rest.num_rows else 0.0))
        missing -= part.num_rows
        if missing == 0:
            break
    if not parts:
        return None, lost
    return WindowRows(pending.model, pending.version, pending.digest, pa.concat_tables(parts), tuple(moves)), lost


def use_rows(store: StateStore, window: WindowRows) -> None:
    """Move the cursors past the window's rows; call inside the transaction that closes the window."""
    for move in window.moves:
        store.execute(
            "UPDATE cursors SET used = ?, oldest = ? WHERE model = ? AND digest = ? AND segment = ?",
            (move.used, move.oldest, window.model, window.digest, move.segment),
        )


def _forget(store: StateStore, model: str, segment: str) -> None:
    with store.transaction():
        store.execute("UPDATE cursors SET used = rows WHERE model = ? AND segment = ?", (model, segment))
        store.execute("UPDATE segments SET status = 'lost' WHERE model = ? AND segment = ?", (model, segment))


def _of_digest(table: pa.Table, digest: str) -> pa.Table:
    return table.filter(pc.equal(table.column("digest"), digest))


def _oldest(rows: pa.Table) -> float:
    return _time(pc.min(rows.column("ts"))).timestamp()


def _time(value: pa.Scalar) -> datetime:
    found = value.as_py()
    return found if isinstance(found, datetime) else datetime.fromtimestamp(0, UTC)
