"""Accuracy by the labels that came back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from monitoring.judging.labelled import FeedbackWatch, accuracy_of, outcomes_of
from monitoring.metrics import Metrics
from monitoring.rounds import Rounds
from monitoring.state import StateStore
from service.contract.feedback import read_feedback
from service.contract.record import Feedback
from service.contract.segments import read_segment, seal, segment_path
from service.tasks import SINGLE_LABEL
from tests.monitoring.world import DRIFTED, START, World


def tell(world: World, labels: Mapping[str, str], sequence: int = 1) -> None:
    """Seal a segment of feedback."""
    segment = segment_path(world.log, "tickets", "feedback", START, "writer", sequence)
    segment.parent.mkdir(parents=True, exist_ok=True)
    ts = (START + timedelta(seconds=sequence)).isoformat()
    lines = [Feedback(identifier, label, ts, "test").to_json() + b"\n" for identifier, label in labels.items()]
    segment.write_bytes(b"".join(lines))
    seal(segment, "feedback")


def predictions(world: World, count: int = 60) -> dict[str, str]:
    """Log predictions of a live version; the label of each id."""
    path = world.write_log(world.publish(), count)
    found = read_segment(path, "predictions")
    return dict(zip(found.column("id").to_pylist(), found.column("label").to_pylist(), strict=True))


def digest(world: World) -> str:
    from service.contract.repository import live_bundle

    return live_bundle(world.repo, "tickets").digest


def test_it_is_the_share_of_labelled_answers_that_were_right(world: World) -> None:
    answers = predictions(world)
    wrong = set(list(answers)[:15])
    tell(world, {one: "other" if one in wrong else label for one, label in answers.items()})
    assert accuracy_of(outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)) == pytest.approx(45 / 60)


def test_the_last_word_on_an_answer_counts(world: World) -> None:
    answers = predictions(world)
    tell(world, dict.fromkeys(answers, "other"), sequence=1)
    tell(world, answers, sequence=2)
    assert accuracy_of(outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)) == 1.0


def test_answers_of_another_version_and_unknown_ids_do_not_count(world: World) -> None:
    answers = predictions(world)
    tell(world, answers | {f"unknown-{number}": "yes" for number in range(50)})
    assert accuracy_of(outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)) == 1.0
    assert accuracy_of(outcomes_of(world.log, "tickets", "another digest", SINGLE_LABEL)) is None


def test_a_handful_of_labels_is_no_accuracy(world: World) -> None:
    answers = predictions(world)
    tell(world, dict(list(answers.items())[:10]))
    assert accuracy_of(outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)) is None


def test_there_is_news_when_feedback_was_sealed_or_another_version_is_live(world: World) -> None:
    answers = predictions(world)
    news = FeedbackWatch(world.log)
    assert not news.since_last_look("tickets", "first")
    tell(world, answers)
    assert news.since_last_look("tickets", "first")
    assert not news.since_last_look("tickets", "first")
    assert news.since_last_look("tickets", "second")


def test_the_monitor_shows_it_until_another_version_is_live(world: World) -> None:
    answers, metrics = predictions(world), Metrics()
    tell(world, answers)
    settings = world.settings()
    store = StateStore(settings.state_folder)
    rounds = Rounds(settings, store, metrics, clock=lambda: START.timestamp() + 600)
    labels = {"model": "tickets", "kind": "labelled"}
    rounds.run()
    assert metrics.registry.get_sample_value("plumbline_accuracy", labels) == 1.0
    world.publish(seed=2)
    rounds.run()
    assert metrics.registry.get_sample_value("plumbline_accuracy", labels) is None
    store.close()


def test_labels_are_found_however_many_segments_lie_between(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those are not read that are older than the oldest answer with a label."""
    bundle = world.publish()
    log = [read_segment(world.write_log(bundle, 40), "predictions") for _ in range(3)]
    for hour in range(1, 250):
        segment = segment_path(world.log, "tickets", "predictions", START + timedelta(hours=hour), "writer", hour)
        segment.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(log[1].slice(0, 1), segment.with_suffix(".parquet"))
    answers = dict(zip(*(log[0].column(name).to_pylist() for name in ("id", "label")), strict=True))
    tell(world, answers)
    assert accuracy_of(outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)) == 1.0


def test_the_later_word_counts_whichever_writer_wrote_it(world: World) -> None:
    """The correction is in the segment that comes first by its name."""
    answers = predictions(world)
    for writer, seconds, label in (("b", 1, "other"), ("a", 2, None)):
        segment = segment_path(world.log, "tickets", "feedback", START, writer, 1)
        segment.parent.mkdir(parents=True, exist_ok=True)
        ts = (START + timedelta(seconds=seconds)).isoformat()
        lines = [Feedback(one, label or right, ts, "test").to_json() + b"\n" for one, right in answers.items()]
        segment.write_bytes(b"".join(lines))
        seal(segment, "feedback")
    assert accuracy_of(outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)) == 1.0
    assert read_feedback(world.log, "tickets").labels == answers


def drift_of(world: World, **options: object) -> list[tuple[str, str, bool]]:
    """What one round says of each window: its severity, and of the accuracy."""
    store = StateStore(world.settings().state_folder)
    rounds = Rounds(world.settings(**options), store, Metrics(), clock=lambda: START.timestamp() + 600)
    judged = rounds.run()
    store.close()
    return [
        (one.data.severity, signal.direction, signal.drifted)
        for one in judged
        for signal in one.data.signals
        if signal.name == "accuracy"
    ]


def test_labels_that_say_wrong_are_critical_although_the_inputs_look_the_same(world: World) -> None:
    answers = predictions(world, 100)
    tell(world, dict.fromkeys(answers, "other"))
    ((severity, direction, drifted),) = drift_of(world)
    assert (severity, drifted) == ("critical", True)
    assert direction.startswith("0.000 by 100 labels, ")


def test_labels_that_say_right_are_none(world: World) -> None:
    tell(world, predictions(world, 100))
    ((severity, _, drifted),) = drift_of(world)
    assert (severity, drifted) == ("none", False)


def test_only_labels_of_answers_since_then_are_asked_for(world: World) -> None:
    tell(world, predictions(world, 100))
    found = outcomes_of(world.log, "tickets", digest(world), SINGLE_LABEL)
    start = START.timestamp()
    assert [
        len(found.between(*span)) for span in ((None, start + 99), (start + 59, start + 99), (None, start + 9))
    ] == [
        *(100, 40, 10),
    ]


def test_old_labels_neither_excuse_nor_delay_what_new_ones_say(world: World) -> None:
    """Three hundred right answers before the inputs moved, sixty wrong ones after."""
    bundle = world.publish()
    good = read_segment(world.write_log(bundle, 300, sequence=1), "predictions")
    bad = read_segment(
        world.write_log(bundle, 100, DRIFTED, seed=7, sequence=2, at=START + timedelta(hours=1)), "predictions"
    )
    right, wrong = (
        dict(zip(*(one.column(name).to_pylist() for name in ("id", "label")), strict=True)) for one in (good, bad)
    )
    tell(world, right | dict.fromkeys(list(wrong)[:60], "other"))
    store = StateStore(world.settings().state_folder)
    judged = Rounds(world.settings(), store, Metrics(), clock=lambda: START.timestamp() + 7200).run()
    store.close()
    assert [one.data.severity for one in judged] == ["none", "none", "none", "critical"]
    assert "0.000 by 60 labels" in judged[-1].data.reason


def test_a_few_labels_decide_nothing(world: World) -> None:
    answers = predictions(world, 100)
    tell(world, dict.fromkeys(list(answers)[:10], "other"))
    assert drift_of(world) == []


def test_where_mostly_wrong_answers_are_reported_labels_need_not_judge(world: World) -> None:
    answers = predictions(world, 100)
    tell(world, dict.fromkeys(answers, "other"))
    assert drift_of(world, accuracy_alerts=False) == []


def test_drift_that_becomes_critical_by_labels_is_told_once_more(world: World) -> None:
    bundle = world.publish()
    store = StateStore(world.settings().state_folder)
    rounds = Rounds(world.settings(), store, Metrics(), clock=lambda: START.timestamp() + 7200)
    world.write_log(bundle, 100, DRIFTED, seed=7, sequence=1)
    first = rounds.run()
    found = read_segment(
        world.write_log(bundle, 100, DRIFTED, seed=8, sequence=2, at=START + timedelta(hours=1)), "predictions"
    )
    tell(world, dict.fromkeys(found.column("id").to_pylist(), "other"))
    second = rounds.run()
    kinds = [row["type"] for row in store.rows("SELECT type FROM events")]
    store.close()
    assert [(one.data.severity, one.change) for one in first + second] == [
        ("warning", "detected"),
        ("critical", "worse"),
    ]
    assert kinds.count("plumbline.drift.detected") == 2
