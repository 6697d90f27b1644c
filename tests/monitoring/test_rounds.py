"""From the log to messages: windows, exactly once, whatever happens in between."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

import monitoring.report
from monitoring import rounds as rounds_module
from monitoring.judging.alerts import read_alert
from monitoring.metrics import Metrics
from monitoring.rounds import Judged, Rounds
from monitoring.state import StateStore
from monitoring.windows import log as windows
from service.contract.bundle import REFERENCE
from service.contract.last_window import LAST_WINDOW, read_last_window
from service.contract.repository import set_live
from tests.monitoring.world import DRIFTED, HOME, START, World

HOUR = 3600.0


@dataclass
class Run:
    """A monitor on a world, with a clock that stands at ten minutes after the first record."""

    world: World
    options: dict[str, Any] = field(default_factory=dict)
    now: float = START.timestamp() + 600
    metrics: Metrics = field(default_factory=Metrics)

    def __call__(self, *, flush: bool = False) -> list[Judged]:
        """One round, by a monitor that was started afresh."""
        settings = self.world.settings(**self.options)
        store = StateStore(settings.state_folder)
        try:
            return Rounds(settings, store, self.metrics, clock=lambda: self.now).run(flush=flush)
        finally:
            store.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        store = StateStore(self.world.state)
        try:
            return [tuple(row) for row in store.rows(sql)]
        finally:
            store.close()

    def events(self) -> list[str]:
        return [kind for (kind,) in self.query("SELECT type FROM events ORDER BY id")]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "tickets", **labels})


def test_a_full_window_is_judged_and_the_rest_waits(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 250)
    judged = run()
    assert [row.data.window.rows for row in judged] == [100, 100]
    assert [row.data.severity for row in judged] == ["none", "none"]
    assert run() == []
    assert run.sample("plumbline_window_rows") == 100
    assert run.sample("plumbline_drift_state") == 0


def test_windows_hold_every_row_once_and_in_order_across_segments(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    seen: list[str] = []
    for sequence, count in enumerate((70, 1, 140, 89), start=1):
        world.write_log(bundle, count, seed=sequence, sequence=sequence)
        seen += [f"{row.data.window.first}..{row.data.window.last}" for row in run()]
    assert seen == ["001-00000..003-00028", "003-00029..003-00128", "003-00129..004-00088"]
    assert run.query("SELECT sum(rows), sum(used) FROM cursors") == [(300, 300)]


def test_a_small_window_is_judged_when_it_is_old_enough(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 60)
    assert run() == []
    run.now = START.timestamp() + HOUR + 1
    assert [row.data.window.rows for row in run()] == [60]


def test_too_few_rows_of_the_live_version_wait_for_more(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 10)
    run.now += 10 * HOUR
    assert run() == []
    world.write_log(bundle, 30, sequence=2)
    assert [row.data.window.rows for row in run()] == [40]


def test_flush_judges_what_is_there(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 60)
    assert [row.data.window.rows for row in run(flush=True)] == [60]


def test_drift_is_detected_once_and_resolved_after_an_hour_of_clean_windows(world: World) -> None:
    bundle, run = world.publish(), Run(world, {"webhook_urls": "http://127.0.0.1:9/a,http://127.0.0.1:9/b"})
    world.write_log(bundle, 100)
    run()
    world.write_log(bundle, 300, DRIFTED, sequence=2)
    changes = [row.change for row in run()]
    assert changes == ["detected", None, None]
    assert run.sample("plumbline_drift_state") == 2
    world.write_log(bundle, 200, seed=3, sequence=3)
    assert [row.change for row in run()] == [None, None]
    world.write_log(bundle, 100, seed=4, sequence=4, at=START + timedelta(hours=1, minutes=10))
    assert [row.change for row in run()] == ["resolved"]
    assert run.events() == [
        "plumbline.drift.detected",
        "plumbline.retrain.requested",
        "plumbline.drift.resolved",
    ]
    assert run.query("SELECT count(*) FROM outbox WHERE status = 'pending'") == [(6,)]
    assert run.sample("plumbline_alerts_total", type="plumbline.drift.detected") == 1
    assert run.sample("plumbline_retrains_total", result="suppressed") == 2


def test_requests_that_take_turns_are_one_drift(world: World) -> None:
    """Each window holds one kind, as of a client that goes round two lists; clean windows between are no end."""
    bundle, run = world.publish(), Run(world)
    told = []
    for turn in range(2):
        for kind, rows in ((DRIFTED, 100), (HOME, 200)):
            at = START + timedelta(minutes=10 * turn)
            sequence = 2 * turn + (kind is HOME) + 1
            world.write_log(bundle, rows, kind, seed=sequence, sequence=sequence, at=at)
            told += [row.change for row in run() if row.change]
    assert told == ["detected"]


def test_confirmation_takes_as_many_windows_as_were_asked_for(world: World) -> None:
    bundle, run = world.publish(), Run(world, {"confirm_windows": 2})
    world.write_log(bundle, 200, DRIFTED)
    assert [row.change for row in run()] == [None, "detected"]


def test_a_drift_event_says_what_moved_and_is_its_own_key(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 100, DRIFTED)
    run()
    event = orjson.loads(run.query("SELECT body FROM events WHERE type = 'plumbline.drift.detected'")[0][0])
    data = event["data"]
    assert event["specversion"] == "1.0"
    assert event["subject"] == "tickets"
    assert data["model"] == {"model": "tickets", "version": "1", "digest": bundle.digest}
    assert data["window"]["rows"] == 100
    assert data["window"]["from"].startswith("2026-01-31T07:00:00")
    assert data["idempotency_key"] == f"{bundle.digest}:001-00000..001-00099"
    assert data["tokens"]
    assert data["accuracy_estimated"] < data["accuracy_reference"]


def test_a_retrain_is_asked_for_again_after_the_cooldown_up_to_the_daily_cap(world: World) -> None:
    bundle, run = world.publish(), Run(world, {"cooldown_seconds": 60, "retrain_daily_cap": 2})
    asked = []
    for sequence in range(1, 5):
        world.write_log(bundle, 100, DRIFTED, sequence=sequence, seed=sequence)
        asked += [row.retrain for row in run()]
        run.now += 50
    assert asked == [True, False, True, False]
    run.now += 100
    world.write_log(bundle, 100, DRIFTED, sequence=9)
    assert [row.retrain for row in run()] == [False]  # the cap
    run.now += 24 * HOUR
    world.write_log(bundle, 100, DRIFTED, sequence=10)
    assert [row.retrain for row in run()] == [True]


@pytest.mark.parametrize(("retrain", "result"), [("dry-run", "dry-run"), ("off", None)])
def test_dry_run_and_off_ask_for_nothing(world: World, retrain: str, result: str | None) -> None:
    bundle, run = world.publish(), Run(world, {"retrain": retrain})
    world.write_log(bundle, 100, DRIFTED)
    assert [row.retrain for row in run()] == [False]
    assert run.events() == ["plumbline.drift.detected"]
    assert result is None or run.sample("plumbline_retrains_total", result=result) == 1


def test_a_new_version_has_windows_of_its_own_and_its_first_clean_one_resolves(world: World) -> None:
    old, run = world.publish(), Run(world)
    world.write_log(old, 130, DRIFTED)
    assert [row.change for row in run()] == ["detected"]
    new = world.publish(seed=2)
    world.write_log(new, 100, seed=2, sequence=2)
    judged = run()
    assert [(row.data.model.version, row.change) for row in judged] == [("2", "resolved")]


def test_leftovers_of_a_version_that_is_no_longer_served_raise_nothing(world: World) -> None:
    old, run = world.publish(), Run(world)
    run()
    world.write_log(old, 60, DRIFTED)
    world.publish(seed=2)
    run.now += 2 * HOUR
    judged = run()
    assert [(row.data.severity, row.change) for row in judged] == [("warning", None)]
    assert run.sample("plumbline_drift_state") == 0


def test_too_few_leftovers_are_closed_and_counted_but_not_judged(world: World) -> None:
    old, run = world.publish(), Run(world)
    world.write_log(old, 30)
    world.publish(seed=2)
    run()
    run.now += 2 * HOUR
    assert run() == []
    assert run.sample("plumbline_windows_total", outcome="dropped") == 1
    assert run.query("SELECT rows, outcome FROM windows") == [(30, "dropped")]


def test_rows_of_a_version_that_was_removed_are_counted(world: World) -> None:
    old, run = world.publish(), Run(world)
    run()  # and sees the version
    world.write_log(old, 100)
    new = world.publish(seed=2)
    world.write_log(new, 100, sequence=2)
    for file in sorted(old.path.iterdir()):
        file.unlink()
    old.path.rmdir()
    assert [row.data.model.version for row in run()] == ["2"]
    assert run.sample("plumbline_windows_total", outcome="unjudged") == 1


def test_rows_wait_where_another_repository_is_given_and_are_judged_with_the_right_one(world: World) -> None:
    world.write_log(world.publish(), 100)
    right = world.repo.rename(world.root / "right")
    world.publish(seed=5)  # another model of the same name
    run = Run(world)
    assert run() == []
    assert run.query("SELECT used FROM cursors") == [(0,)]
    world.repo.rename(world.root / "wrong")
    right.rename(world.repo)
    assert len(Run(world)()) == 1


def test_what_cannot_be_read_for_a_moment_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.write_log(world.publish(), 100)

    real, readable = windows.read_segment, 0

    def sometimes(*arguments: Any) -> Any:
        nonlocal readable
        if not readable:
            raise PermissionError(errno.EACCES, "Permission denied")
        readable -= 1
        return real(*arguments)

    run = Run(world)
    with monkeypatch.context() as patch:
        patch.setattr(windows, "read_segment", sometimes)
        for allowed in (0, 1):  # not when it is indexed; then when it is, and not for the window
            readable = allowed
            assert run() == []
            assert "cannot be read now" in caplog.text
            caplog.clear()
    assert len(run()) == 1
    assert run.query("SELECT status FROM segments") == [("indexed",)]


def test_windows_wait_while_the_repository_has_no_model(world: World) -> None:
    """It was misspelt, or is not mounted yet."""
    world.write_log(world.publish(), 100)
    right = world.repo.rename(world.root / "elsewhere")
    run = Run(world)
    assert run() == []
    assert run.sample("plumbline_windows_total", outcome="unjudged") is None
    right.rename(world.repo)
    assert len(run()) == 1


def test_windows_wait_while_the_reference_is_damaged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bundle, run = world.publish(), Run(world)
    whole = bundle.file(REFERENCE).read_bytes()
    bundle.file(REFERENCE).write_bytes(whole[:-100])
    world.write_log(bundle, 100)
    assert run() == []
    assert "wait" in caplog.text
    bundle.file(REFERENCE).write_bytes(whole)
    assert len(run()) == 1


def test_segments_that_a_killed_server_left_open_are_read_without_their_torn_line(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    segment = world.write_log(bundle, 101, sealed=False)
    segment.write_bytes(segment.read_bytes()[:-20])
    assert [row.data.window.rows for row in run()] == [100]


def test_a_damaged_segment_is_skipped_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bundle, run = world.publish(), Run(world)
    path = world.write_log(bundle, 100)
    path.write_bytes(path.read_bytes()[:500])
    world.write_log(bundle, 100, sequence=2)
    assert [row.data.window.first for row in run()] == ["002-00000"]
    assert run() == []
    assert run.sample("plumbline_segments_lost_total") == 1
    assert str(path) in caplog.text


def test_a_segment_that_vanishes_before_its_window_is_skipped_and_counted(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    path = world.write_log(bundle, 60)
    run()
    path.unlink()
    world.write_log(bundle, 100, sequence=2)
    assert [(row.data.window.first, row.data.window.rows) for row in run()] == [("002-00000", 100)]
    assert run.sample("plumbline_segments_lost_total") == 1


@pytest.mark.parametrize("place", ["use_rows", "write_alert", "enqueue", "drift_event"])
def test_a_crash_while_closing_a_window_loses_nothing_and_repeats_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bundle, run = world.publish(), Run(world, {"webhook_urls": "http://127.0.0.1:9/"})
    run()  # the versions that are there are no news
    world.write_log(bundle, 100, DRIFTED)
    original: Callable[..., Any] = getattr(rounds_module, place)

    def crash(*values: Any, **named: Any) -> Any:
        original(*values, **named)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(rounds_module, place, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            run()
    assert run.query("SELECT count(*) FROM windows") == [(0,)]
    assert run.query("SELECT count(*) FROM events") == [(0,)]
    assert [row.change for row in run()] == ["detected"]
    assert run() == []
    assert run.events() == ["plumbline.drift.detected", "plumbline.retrain.requested"]


def test_features_only_logs_are_judged(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 100, DRIFTED, texts=False)
    (judged,) = run()
    assert judged.change == "detected"
    assert judged.data.tokens == ()


def test_gauges_survive_a_restart(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 100, DRIFTED)
    run()
    run.metrics = Metrics()
    run()
    assert run.sample("plumbline_drift_state") == 2
    score = run.sample("plumbline_drift_score", signal="tokens")
    threshold = run.sample("plumbline_drift_threshold", signal="tokens")
    assert score is not None
    assert threshold is not None
    assert score > threshold


def test_rows_logged_before_a_rollback_go_on_counting_for_it(world: World) -> None:
    first, run = world.publish(), Run(world)
    world.write_log(first, 60, DRIFTED)
    run()
    world.publish(seed=2)
    run()
    set_live(world.repo, "tickets", "1")
    world.write_log(first, 40, DRIFTED, sequence=2, at=START + timedelta(minutes=5))
    assert [row.change for row in run()] == ["detected"]


def test_the_report_shows_our_verdict_and_old_ones_go(world: World) -> None:
    bundle, run = world.publish(), Run(world, {"reports_kept": 2})
    world.write_log(bundle, 300, DRIFTED)
    judged = run()
    pages = sorted((world.state / "reports" / "tickets").glob("*.html"))
    assert len(pages) == 2
    assert judged[-1].data.report == str(pages[-1].resolve())
    content = pages[-1].read_text()
    assert "<h1>Drift: tickets version 1</h1>" in content
    assert "<title>Drift: tickets version 1</title>" in content
    assert "Texts that carry it" in content
    ours = content[: content.index("<iframe")]
    assert "<script" not in ours
    assert "photon" in ours[ours.index("Texts that carry it") :]
    figures = orjson.loads(pages[-1].with_suffix(".json").read_bytes())
    effects = {signal.name: signal.effect for signal in judged[-1].data.signals}
    shown = {
        metric["config"]["column"]: metric["value"]
        for metric in figures["evidently"]["metrics"]
        if "column" in metric["config"]
    }
    assert {"label", "confidence"} <= shown.keys()
    assert shown == {name: pytest.approx(effects[name]) for name in shown}
    statuses = {test["name"].rsplit(" ", 1)[-1]: test["status"] for test in figures["evidently"]["tests"]}
    drifted = {signal.name for signal in judged[-1].data.signals if signal.drifted}
    assert {name for name, status in statuses.items() if status == "FAIL"} == drifted & statuses.keys()


def test_a_report_that_fails_costs_no_decision(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    bundle, run = world.publish(), Run(world, {"reports_kept": 5})
    monkeypatch.setattr(monitoring.report, "write_report", full)
    world.write_log(bundle, 100, DRIFTED)
    (judged,) = run()
    assert judged.change == "detected"
    assert judged.data.report is None
    assert "could not be written" in caplog.text


def test_the_sequential_detector_raises_a_notice_before_a_window_is_full(world: World) -> None:
    bundle, run = world.publish(), Run(world, {"window_rows": 400, "min_rows": 300})
    world.write_log(bundle, 200, DRIFTED)
    assert run() == []
    evidence = run.sample("plumbline_drift_evidence")
    threshold = run.sample("plumbline_drift_evidence_threshold")
    assert evidence is not None
    assert threshold is not None
    assert evidence > threshold
    assert run.sample("plumbline_drift_state") == 1
    assert run.events() == []
    store = StateStore(world.state)
    assert read_alert(store, "tickets").state == "notice"
    store.close()


def test_the_last_window_is_left_beside_the_log_for_the_status_page(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    assert read_last_window(world.log, "tickets") is None
    world.write_log(bundle, 100)
    world.write_log(bundle, 100, DRIFTED, seed=2, sequence=2)
    judged = run()
    assert [row.data.severity for row in judged] == ["none", "warning"]
    assert read_last_window(world.log, "tickets") == judged[-1].data
    (world.log / "tickets" / LAST_WINDOW).unlink()
    run()  # started afresh: the newest window is in its state
    assert read_last_window(world.log, "tickets") == judged[-1].data


def test_a_log_that_the_monitor_cannot_write_costs_no_decision(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 100)
    (world.log / "tickets" / LAST_WINDOW).mkdir()
    assert [row.data.severity for row in run()] == ["none"]
    assert run.metrics.registry.get_sample_value("plumbline_monitor_errors_total", {"part": "page"}) == 1


def test_what_is_shown_is_the_live_versions_window_not_its_canarys(world: World) -> None:
    bundle, run = world.publish(), Run(world)
    world.write_log(bundle, 100)
    assert [row.data.model.version for row in run()] == ["1"]
    world.write_log(world.publish(live=False), 120, DRIFTED, seed=2, sequence=2)
    assert [(row.data.model.version, row.data.severity) for row in run()] == [("2", "warning")]
    for _ in range(2):
        shown = read_last_window(world.log, "tickets")
        assert shown is not None
        assert (shown.model.version, shown.severity) == ("1", "none")
        assert run.sample("plumbline_window_rows") == 100
        (world.log / "tickets" / LAST_WINDOW).unlink()
        run()  # started afresh
