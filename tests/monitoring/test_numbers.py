"""Monitoring of models whose answers are numbers, and of those that read pairs of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from monitoring.judging.accuracy import estimate_accuracy
from monitoring.judging.decision import Thresholds, decide
from monitoring.judging.labelled import outcomes_of
from monitoring.signals.columns import Columns, columns_of
from service.contract.record import Feedback, now_rfc3339
from service.log.recorder import Recorder
from service.tasks import REGRESSION
from tests.service.contract.test_record import make_record


def side(mean: float, seed: int, rows: int = 400) -> Columns:
    rng = np.random.default_rng(seed)
    scores = rng.normal(mean, 1, rows)
    words = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(rows)]
    columns = {
        "text": words,
        "label": [f"{one:.6g}" for one in scores],
        "probs": [[one] for one in scores],
        "confidence": [float("nan")] * rows,
        "target": [f"{one:.6g}" for one in scores],
    }
    return columns_of(pa.table(columns), REGRESSION)


def test_numbers_that_move_are_the_signal_score_and_no_label_is_counted() -> None:
    same, moved = decide(side(0, 1), side(0, 2), Thresholds()), decide(side(0, 1), side(1, 3), Thresholds())
    assert [one.name for one in same.signals if one.drifted] == []
    (found,) = [one for one in moved.signals if one.drifted]
    assert (found.name, found.direction) == ("score", "higher")
    assert {one.name for one in moved.signals}.isdisjoint({"label", "confidence"})
    assert estimate_accuracy(side(0, 1), side(1, 3)) == (None, None)


def test_labels_that_come_back_are_right_if_they_are_near(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, queue=10, fsync_seconds=0.01, seal_seconds=60, seal_bytes=10**6, quota_bytes=10**9)
    for told in ("3.4", "1.0"):
        record = make_record(label="3.0", text_pair="b")
        recorder.offer("graded", record)
        recorder.offer("graded", Feedback(record.id, told, now_rfc3339(), "test"))
    recorder.close()
    assert outcomes_of(tmp_path, "graded", "ab" * 32, REGRESSION.fitted(["2", "4"])).right.tolist() == [True, False]


def test_the_second_text_of_a_pair_drifts_as_the_first_does() -> None:
    rng = np.random.default_rng(0)

    def pairs(second: str) -> Columns:
        rows = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(300)]
        others = [" ".join(rng.choice(list(second), 6)) for _ in range(300)]
        return columns_of(pa.table({"text": rows, "text_pair": others}))

    assert decide(pairs("ijklmnop"), pairs("ijklmnop"), Thresholds()).severity == "none"
    moved = decide(pairs("ijklmnop"), pairs("qrstuvwx"), Thresholds())
    assert "tokens" in [one.name for one in moved.signals if one.drifted]
