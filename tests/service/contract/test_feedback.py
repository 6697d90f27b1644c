"""The join of predictions and labels, and the complaints of a log that fails."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.contract.feedback import read_feedback, time_of_id
from service.contract.record import FEEDBACK_SCHEMA, new_id
from service.contract.segments import segment_path
from service.terminal.throttled import ThrottledLogger

HOUR = datetime(2026, 1, 31, 7, tzinfo=UTC)


def write(log: Path, hour: datetime, writer: str, *rows: tuple[str, str, int]) -> None:
    """Feedback (id, label, second of the hour)."""
    path = segment_path(log, "reviews", "feedback", hour, writer, 1).with_suffix(".parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [
        {"id": one, "label": label, "ts": hour + timedelta(seconds=second), "source": "t"}
        for one, label, second in rows
    ]
    pq.write_table(pa.Table.from_pylist(found, schema=FEEDBACK_SCHEMA), path)


def test_the_latest_time_wins_over_the_order_of_files(tmp_path: Path) -> None:
    write(tmp_path, HOUR, "a", ("1", "right", 9), ("2", "old", 1))
    write(tmp_path, HOUR, "b", ("1", "wrong", 3), ("2", "new", 2))
    write(tmp_path, HOUR - timedelta(hours=1), "c", ("3", "kept", 0))
    assert read_feedback(tmp_path, "reviews").labels == {"1": "right", "2": "new", "3": "kept"}


def test_what_cannot_be_used_does_not_hide_what_can(tmp_path: Path) -> None:
    write(tmp_path, HOUR, "a", ("1", "good | fine", 1), ("1", "|", 2), ("2", "nan", 3))
    found = read_feedback(tmp_path, "reviews")
    assert found.labels == {"1": "good|fine"}
    assert (found.pieces, found.unusable) == (3, 2)


def test_whole_hours_are_read_until_there_are_enough(tmp_path: Path) -> None:
    for age in range(3):
        write(tmp_path, HOUR - timedelta(hours=age), "a", (f"{age}", "x", 1), (f"{age} too", "x", 1))
    assert len(read_feedback(tmp_path, "reviews", enough=1).labels) == 2
    assert len(read_feedback(tmp_path, "reviews", enough=3).labels) == 4
    assert len(read_feedback(tmp_path, "reviews").labels) == 6


def test_a_segment_that_cannot_be_read_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, HOUR, "a", ("1", "x", 1))
    (segment_path(tmp_path, "reviews", "feedback", HOUR, "b", 1).with_suffix(".parquet")).write_bytes(b"no Parquet")
    assert read_feedback(tmp_path, "reviews").labels == {"1": "x"}
    assert "b-000001.parquet" in caplog.text


def test_an_id_knows_when_it_was_made() -> None:
    made = time_of_id(new_id())
    assert made is not None
    assert abs((made - datetime.now(UTC)).total_seconds()) < 5
    for other in ("no id", "", "6fa459ea-ee8a-3ca4-894e-db77e160355e", "ffffffff-ffff-7fff-bfff-ffffffffffff"):
        assert time_of_id(other) is None or time_of_id(other).year > 9000  # type: ignore[union-attr]


def test_what_repeats_is_said_once_a_minute_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    throttled = ThrottledLogger(logging.getLogger("test"), lambda: now)
    caplog.set_level(logging.INFO, "test")
    for now in (0.0, 1.0, 59.0, 61.0):
        throttled.error("disk", "full: %s", now)
    throttled.error("another", "also")
    assert caplog.messages == ["full: 0.0", "full: 61.0 (and 2 times more since this was last said)", "also"]
    caplog.clear()
    throttled.over("disk", "room again")
    throttled.over("disk", "room again")
    throttled.error("disk", "full")
    assert caplog.messages == ["room again", "full"]
