"""The join of predictions with the labels that came back for them: one for everybody who reads the log."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from service.contract.labels import clean_target
from service.contract.segments import Kind, read_segment, sealed_segments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedbackLabels:
    """``labels``: the last usable label of each id, cleaned. ``pieces`` of feedback were read, ``unusable`` of them."""

    labels: dict[str, str]
    pieces: int
    unusable: int


def read_feedback(log: Path, model: str, *, enough: int | None = None) -> FeedbackLabels:
    """What was told of a model's predictions. The latest ``ts`` of an id wins, whichever writer's segment holds it.

    :param enough: labelled ids; the newest hours are read until there are so many.
    """
    last: dict[str, tuple[datetime, str]] = {}
    pieces = unusable = 0
    newest_first = reversed(sealed_segments(log, model, "feedback"))
    for _, hour in itertools.groupby(newest_first, key=lambda path: path.parent):
        for path in hour:
            table = _read(path, "feedback")
            if table is None:
                continue
            for identifier, moment, label in zip(*_columns(table, "id", "ts", "label"), strict=True):
                pieces += 1
                try:
                    target = clean_target(label)
                except ValueError:  # a stray separator, or nan
                    unusable += 1
                    continue
                if identifier not in last or moment >= last[identifier][0]:
                    last[identifier] = (moment, target)
        if enough is not None and len(last) >= enough:  # older hours hold nothing later
            break
    return FeedbackLabels({identifier: target for identifier, (_, target) in last.items()}, pieces, unusable)


def read_predictions(
    log: Path, model: str, *columns: str, since: datetime | None = None
) -> Iterator[tuple[object, ...]]:
    """These columns of every logged prediction, newest first.

    :param since: nothing older is wanted, but may come.
    """
    for path in reversed(sealed_segments(log, model, "predictions")):
        if since is not None and path.parts[-3:-1] < (f"date={since:%Y-%m-%d}", f"hour={since:%H}"):
            return
        table = _read(path, "predictions")
        if table is not None:
            yield from zip(*(reversed(column) for column in _columns(table, *columns)), strict=True)


def time_of_id(identifier: str) -> datetime | None:
    """When an id was made, by its own time (UUIDv7, RFC 9562); None if it has none."""
    try:
        found = UUID(identifier)
        return datetime.fromtimestamp((found.int >> 80) / 1000, UTC) if found.version == 7 else None
    except (ValueError, OverflowError, OSError):
        return None


def _columns(table: pa.Table, *names: str) -> list[list[object]]:
    return [table.column(name).to_pylist() for name in names]


def _read(path: Path, kind: Kind) -> pa.Table | None:
    try:
        return read_segment(path, kind)
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s cannot be read and was left out: %s", path, error)
        return None
