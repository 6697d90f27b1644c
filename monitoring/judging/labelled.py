"""Accuracy by the true labels that came back: the newest feedback joined with the predictions it is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monitoring.signals.columns import Booleans
from monitoring.signals.detectors import MIN_LABELS
from service.contract.feedback import read_feedback, read_predictions, time_of_id
from service.contract.segments import sealed_segments
from service.tasks import Task

NEWEST_LABELS = 1_000


class FeedbackWatch:
    """Tells whether an accuracy has to be computed again: feedback was sealed, or another version is live."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._seen: dict[str, tuple[str, int]] = {}

    def since_last_look(self, model: str, digest: str) -> bool:
        now = (digest, len(sealed_segments(self._log, model, "feedback")))
        news = self._seen.get(model, (digest, 0)) != now
        self._seen[model] = now
        return news


def outcomes_of(log: Path, model: str, digest: str, task: Task) -> Booleans:
    """(n,) whether the answers of a digest were right, oldest first: its newest ones among 1,000 labelled.

    The last label of an id counts.
    """
    labels = read_feedback(log, model, enough=NEWEST_LABELS).labels
    if not labels:
        return np.empty(0, dtype=np.bool_)
    predicted: list[str] = []
    targets: list[str] = []
    made = [moment for identifier in labels if (moment := time_of_id(identifier)) is not None]
    for identifier, by, label in read_predictions(log, model, "id", "digest", "label", since=min(made, default=None)):
        if not labels:
            break
        target = labels.pop(str(identifier), None)
        if target is not None and by == digest:
            predicted.append(str(label))
            targets.append(target)
    return task.correct(predicted, targets)[::-1]


def accuracy_of(outcomes: Booleans) -> float | None:
    """The share of right answers; None below 30."""
    return float(np.mean(outcomes)) if len(outcomes) >= MIN_LABELS else None
