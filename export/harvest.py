"""What production taught: logged inputs joined with the labels that came back for them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from service.contract.dataset import Dataset
from service.contract.labels import clean_target
from service.contract.segments import Kind, read_segment, seal_orphans, sealed_segments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Harvest:
    """Labelled rows, recent texts nobody labelled (newest first, no text twice), and what could not be used."""

    labelled: Dataset
    unlabelled: list[str]
    counts: dict[str, int]


def harvest(log: Path, name: str, extra: Dataset | None, *, unlabelled: int) -> Harvest:
    """Join the sealed predictions of a model with its feedback by id, and add the rows of a labels file.

    Segments of dead writers are sealed first. The last feedback for an id wins. Rows logged without text cannot be
    trained on and are counted, as is feedback whose prediction is not there, or whose label is none.
    """
    seal_orphans(log)
    answers, counts = _feedback(log, name)
    waiting = dict(answers)
    texts: list[str] = []
    labels: list[str] = []
    others: dict[str, None] = {}
    for identifier, text in _predictions(log, name):
        counts["predictions"] += 1
        label = waiting.pop(identifier, None)
        if text is None:
            counts["without_text"] += 1
        elif label is not None:
            texts.append(text)
            labels.append(label)
        elif identifier not in answers and len(others) < unlabelled:
            others[text] = None
    counts["feedback_without_prediction"] = len(waiting)
    counts["from_feedback"] = len(texts)
    if extra is not None:
        texts += extra.texts
        labels += extra.targets
        counts["from_file"] = len(extra)
    wanted = (
        "predictions", "without_text", "feedback", "unusable_feedback", "feedback_without_prediction", "from_feedback",
        "from_file",
    )  # fmt: skip
    return Harvest(Dataset(texts, labels), list(others), {key: counts[key] for key in wanted})


def _feedback(log: Path, name: str) -> tuple[dict[str, str], Counter[str]]:
    """The last target told for each id, and how many pieces of feedback there were and could not be used."""
    last: dict[str, tuple[datetime, str]] = {}
    counts: Counter[str] = Counter()
    for table in _tables(log, name, "feedback", oldest_first=True):
        rows = zip(*(table.column(column).to_pylist() for column in ("id", "ts", "label")), strict=True)
        for identifier, moment, label in rows:
            counts["feedback"] += 1
            try:
                target = clean_target(label)
            except ValueError:  # a stray separator, or nan
                counts["unusable_feedback"] += 1
                continue
            if identifier not in last or moment >= last[identifier][0]:
                last[identifier] = (moment, target)
    return {identifier: target for identifier, (_, target) in last.items()}, counts


def _predictions(log: Path, name: str) -> Iterator[tuple[str, str | None]]:
    """(id, text) of every logged input, newest first."""
    for table in _tables(log, name, "predictions", oldest_first=False):
        identifiers, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
        yield from zip(reversed(identifiers), reversed(texts), strict=True)


def _tables(log: Path, name: str, kind: Kind, *, oldest_first: bool) -> Iterator[pa.Table]:
    segments = sealed_segments(log, name, kind)
    for segment in segments if oldest_first else reversed(segments):
        try:
            yield read_segment(segment, kind)
        except (OSError, pa.ArrowException) as error:
            logger.warning("%s cannot be read and was left out: %s", segment, error)
