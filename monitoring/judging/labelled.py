"""Accuracy by the true labels that came back: the newest feedback joined with the predictions it is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True)
class Outcomes:
    """Whether n answers were right, and when they were given in seconds since the epoch; oldest first."""

    right: Booleans
    given: npt.NDArray[np.float64]

    def between(self, since: float | None, until: float) -> Booleans:
        """Of the answers after ``since``, all if it is None, up to ``until``."""
        wanted = self.given <= until
        return self.right[wanted if since is None else wanted & (self.given > since)]


def outcomes_of(log: Path, model: str, digest: str, task: Task) -> Outcomes:
    """What is known of the answers of a digest: its newest ones among 1,000 labelled.

    The last label of an id counts.
    """
    labels = read_feedback(log, model, enough=NEWEST_LABELS).labels
    predicted: list[str] = []
    targets: list[str] = []
    given: list[float] = []
    made = [moment for identifier in labels if (moment := time_of_id(identifier)) is not None]
    wanted = read_predictions(log, model, "id", "digest", "label", "ts", since=min(made, default=None))
    for identifier, by, label, ts in wanted if labels else ():
        if not labels:
            break
        target = labels.pop(str(identifier), None)
        if target is not None and by == digest:
            predicted.append(str(label))
            targets.append(target)
            given.append(ts.timestamp() if isinstance(ts, datetime) else 0.0)
    return Outcomes(task.correct(predicted, targets)[::-1], np.array(given, dtype=np.float64)[::-1])


def accuracy_of(outcomes: Outcomes) -> float | None:
    """The share of right answers; None below 30."""
    return float(np.mean(outcomes.right)) if len(outcomes.right) >= MIN_LABELS else None
