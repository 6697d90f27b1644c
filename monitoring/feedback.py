"""Accuracy by the true labels that came back: the newest feedback joined with the predictions it is about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from service.contract.classify import correct
from service.contract.segments import Kind, read_segment, sealed_segments

logger = logging.getLogger(__name__)

NEWEST_LABELS = 1_000
MIN_LABELS = 30
_MOST_SEGMENTS = 200  # of predictions that are searched; older predictions are out of reach


class News:
    """Tells whether an accuracy has to be computed again: feedback was sealed, or another version is live."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._seen: dict[str, tuple[str, int]] = {}

    def since_last_look(self, model: str, digest: str) -> bool:
        now = (digest, len(sealed_segments(self._log, model, "feedback")))
        news = self._seen.get(model, (digest, 0)) != now
        self._seen[model] = now
        return news


def accuracy_of(log: Path, model: str, digest: str) -> float | None:
    """Accuracy of a digest over its newest 1,000 labelled answers, None below 30; the last label of an id counts."""
    told: dict[str, str] = {}
    for table in _newest_first(log, model, "feedback"):
        rows = zip(reversed(table.column("id").to_pylist()), reversed(table.column("label").to_pylist()), strict=True)
        for identifier, label in rows:
            told.setdefault(identifier, label)
        if len(told) >= NEWEST_LABELS:
            break
    predicted: list[str] = []
    targets: list[str] = []
    for count, table in enumerate(_newest_first(log, model, "predictions")):
        if not told or count == _MOST_SEGMENTS:
            break
        columns = (table.column(name).to_pylist() for name in ("id", "digest", "label"))
        for identifier, answered_by, label in zip(*columns, strict=True):
            target = told.pop(identifier, None)
            if target is not None and answered_by == digest:
                predicted.append(label)
                targets.append(target)
    if len(targets) < MIN_LABELS:
        return None
    return float(correct(predicted, targets).mean())


def _newest_first(log: Path, model: str, kind: Kind) -> Iterator[pa.Table]:
    for path in reversed(sealed_segments(log, model, kind)):
        try:
            yield read_segment(path, kind)
        except (OSError, pa.ArrowException) as error:
            logger.warning("%s cannot be read and is left out of the labelled accuracy: %s", path, error)
