"""How bad a window is for people: what is estimated, when that is believed, and what labels say against it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitoring.judging.accuracy import expected_accuracy
from monitoring.judging.alerts import Alert, read_alert
from monitoring.judging.decision import Decision, decide
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import Columns, columns_of
from monitoring.signals.detectors import accuracy_bound
from monitoring.state import DATABASE, MIGRATIONS, StateStore
from service.contract.events import DriftData
from tests.monitoring.world import DRIFTED, Kind, rows, table

REFERENCE = columns_of(table(rows(400, seed=1)))
REFERENCE = replace(REFERENCE, outcomes=np.arange(400) % 10 > 0)  # 0.9, whatever was drawn


def decided(window: Columns, tolerance: float = 0.05) -> Decision:
    return decide(REFERENCE, window, Thresholds(tolerance=tolerance))


def moved(kind: Kind = DRIFTED, outcomes: np.ndarray | None = None) -> Columns:
    """A window of another kind, with what labels said of it."""
    found = columns_of(table(rows(200, kind, seed=2)))
    return replace(found, outcomes=outcomes, recent_outcomes=outcomes)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0])
def test_ties_in_confidence_are_worth_what_they_were_worth(share: float) -> None:
    """Whatever their order: 0.99 everywhere and four fifths right is 0.8."""
    right = (np.arange(100) < 100 * share).astype(float)
    for one in (right, right[::-1]):
        assert expected_accuracy(np.full(100, 0.99), one, np.full(50, 0.99)) == pytest.approx(share)


def test_an_estimate_has_an_interval_that_more_rows_make_narrower() -> None:
    few, many = (decided(columns_of(table(rows(count, seed=2)))).estimate for count in (50, 2_000))
    assert few is not None
    assert many is not None
    assert few.low < few.accuracy < few.high
    assert many.high - many.low < few.high - few.low


def test_inputs_that_moved_while_answers_are_as_sure_are_a_notice() -> None:
    decision = decided(columns_of(table(rows(400, Kind(foreign=0.3), seed=2))))
    assert decision.severity == "notice"
    assert decision.estimate is not None
    assert decision.estimate.trusted


@pytest.mark.parametrize(
    ("kind", "doubt"),
    [
        (Kind(foreign=1.0), "hardly an input"),
        (Kind(foreign=0.4, sharpness=2.0), "less sure"),
        (Kind(yes=0.8), "the mix of answers"),
    ],
)
def test_what_cannot_be_told_is_a_warning(kind: Kind, doubt: str) -> None:
    decision = decided(columns_of(table(rows(400, kind, seed=2))))
    assert decision.severity == "warning"
    assert doubt in decision.reason


def test_less_sure_answers_to_inputs_like_the_reference_are_critical_once_that_is_certain() -> None:
    window = columns_of(table(rows(500, Kind(sharpness=2.0), seed=2)))
    assert decided(window).severity == "warning"  # 400 rows say little of confidence that they hardly hold
    known = columns_of(table(rows(3_000, seed=1)))
    assert decide(known, window, Thresholds()).severity == "critical"
    assert decide(known, window, Thresholds(tolerance=0.3)).severity == "notice"


def test_labels_that_say_that_accuracy_holds_leave_a_notice() -> None:
    assert decided(moved()).severity == "warning"
    decision = decided(moved(outcomes=np.arange(400) % 40 > 0))
    assert decision.severity == "notice"
    assert decision.reason.startswith("labels say that accuracy holds")


def test_too_few_labels_to_be_sure_leave_the_estimate_its_word() -> None:
    assert decided(moved(outcomes=np.ones(20, dtype=bool))).severity == "warning"


@pytest.mark.parametrize("kind", [DRIFTED, Kind(foreign=0.3)])
def test_a_hundred_labels_that_say_that_accuracy_fell_are_critical(kind: Kind) -> None:
    """Six answers in ten right instead of nine, whatever is estimated."""
    decision = decided(moved(kind, outcomes=np.arange(100) % 10 < 6))
    assert decision.severity == "critical"
    assert decision.reason.startswith("labels say that accuracy fell")


@pytest.mark.slow
def test_the_bound_by_labels_holds_however_often_one_looks() -> None:
    """In at most one of twenty streams it is ever above the truth; 300 streams, a look at every tenth label."""
    random, above = np.random.default_rng(3), 0
    for _ in range(300):
        stream = random.random(500) < 0.85
        above += any(accuracy_bound(stream[:seen]) > 0.85 for seen in range(30, 501, 10))
    assert above <= 24


def test_the_bound_comes_near_the_truth() -> None:
    assert 0.86 < accuracy_bound(np.arange(1_000) % 10 > 0) < 0.9
    assert accuracy_bound(np.zeros(50, dtype=bool)) == 0.0


def test_what_an_earlier_version_called_an_alert_is_read_as_a_warning() -> None:
    window = {"first": "a", "last": "b", "rows": 1, "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    data = {"model": {"model": "m", "version": "1", "digest": "d"}, "window": window, "signals": []}
    assert DriftData.model_validate({**data, "severity": "alert", "idempotency_key": "k"}).severity == "warning"


def test_the_state_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """A drift that was told then is known as a warning, and its windows are, too."""
    database = sqlite3.connect(tmp_path / DATABASE)
    database.executescript(MIGRATIONS[0])
    database.execute("INSERT INTO alerts VALUES ('m', 'drift', 'd', 1, 0, 5.0)")
    database.execute(
        "INSERT INTO windows VALUES ('w', 'm', '1', 'd', 9, 'a', 'b', 1, 2, 3, 'judged', 'alert', NULL, NULL)"
    )
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    store = StateStore(tmp_path)
    assert read_alert(store, "m") == Alert("drift", "d", 1, 0, 5.0, "warning")
    assert [row["severity"] for row in store.rows("SELECT severity FROM windows")] == ["warning"]
    store.close()
