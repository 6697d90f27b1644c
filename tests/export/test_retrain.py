"""Retraining: what is learnt from production, who wins, and what becomes of the loser."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from export import retrain as retrain_module
from export.checkpoint.load import kept_checkpoint, read_checkpoint
from export.data.clean import clean, normalise
from export.data.harvest import Harvest, harvest
from export.data.retraining import Policy, Rows, is_held_out, prepare
from export.errors import Busy, CheckpointError
from export.inference.reference import fair_shares
from export.judge.challenge import contest, decide
from export.retrain import Rejected, Retrained, retrain
from service.contract.bundle import Champion, Quality, open_bundle
from service.contract.dataset import Dataset
from service.contract.errors import BundleError, DatasetError
from service.contract.features import PROJECTED, encode_embedding
from service.contract.record import Feedback, Record
from service.contract.repository import Serving, read_serving, versions
from service.contract.segments import seal, segment_path
from service.tasks import SINGLE_LABEL
from tests.export.conftest import NEW_BAD, NEW_GOOD, RECIPE, Trained, sentences

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
AGAIN = replace(RECIPE, keep="last", epochs=3)


def stamp(second: int) -> str:
    return (NOON + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")


def record(number: int, text: str | None) -> Record:
    embedding = encode_embedding(np.zeros(PROJECTED, dtype=np.float16))
    return Record(
        id=f"id-{number}",
        ts=stamp(number),
        model="tiny",
        version="1",
        digest="0" * 64,
        text=text,
        text_pair=None,
        tokens=None if text is not None else [1, 2],
        n_tokens=4,
        truncated=False,
        unk_share=0.0,
        label="positive",
        confidence=0.9,
        probs=[0.1, 0.9],
        embedding=embedding,
        latency_ms=1.0,
    )


def write_log(log: Path, texts: list[str | None], feedback: list[tuple[int, str]], *, sealed: bool = True) -> None:
    """One segment of predictions and one of feedback; the second of feedback's place is its time."""
    for kind, rows in (
        ("predictions", [record(number, text) for number, text in enumerate(texts)]),
        ("feedback", [Feedback(f"id-{one}", label, stamp(at), "person") for at, (one, label) in enumerate(feedback)]),
    ):
        segment = segment_path(log, "tiny", kind, NOON, "writer", 1)  # type: ignore[arg-type]
        segment.parent.mkdir(parents=True, exist_ok=True)
        segment.write_bytes(b"".join(row.to_json() + b"\n" for row in rows))  # type: ignore[attr-defined]
        if sealed:
            seal(segment, kind)  # type: ignore[arg-type]


def test_feedback_is_joined_by_id_and_the_last_word_counts(tmp_path: Path) -> None:
    write_log(tmp_path, ["one", "two", None, "four"], [(0, "positive"), (0, "negative"), (2, "positive"), (9, "x")])
    found = harvest(tmp_path, "tiny", Dataset(["five"], ["positive"]), unlabelled=10)
    assert found.labelled == Dataset(["one", "five"], ["negative", "positive"])
    assert found.unlabelled == ["four", "two"]
    assert found.counts == {
        "predictions": 4,
        "without_text": 1,
        "redacted": 0,
        "feedback": 4,
        "unusable_feedback": 0,
        "feedback_without_prediction": 1,
        "from_feedback": 1,
        "from_file": 1,
    }


def test_feedback_is_cleaned_as_files_are(tmp_path: Path) -> None:
    told = [(0, " food |service"), (1, "food||service"), (2, "positive"), (2, "nan"), (3, "")]
    write_log(tmp_path, ["one", "two", "three", "four"], told)
    found = harvest(tmp_path, "tiny", None, unlabelled=10)
    assert found.labelled == Dataset(["four", "three", "one"], ["", "positive", "food|service"])
    assert found.counts["unusable_feedback"] == 2


def test_what_a_dead_writer_left_open_is_read_too(tmp_path: Path) -> None:
    write_log(tmp_path, ["one"], [(0, "positive")], sealed=False)
    assert harvest(tmp_path, "tiny", None, unlabelled=10).labelled == Dataset(["one"], ["positive"])


def test_a_damaged_segment_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_log(tmp_path, ["one"], [(0, "positive")])
    segment = segment_path(tmp_path, "tiny", "predictions", NOON, "writer", 2).with_suffix(".parquet")
    segment.write_bytes(b"PAR1 but not really")
    assert harvest(tmp_path, "tiny", None, unlabelled=10).counts["predictions"] == 1
    assert "cannot be read" in caplog.text


def test_a_log_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert harvest(tmp_path / "none", "tiny", None, unlabelled=10).counts["predictions"] == 0


def finance(rows: int, seed: int) -> Dataset:
    return sentences(rows, seed, NEW_GOOD, NEW_BAD)


def rows_for(trained: Trained, new: Dataset, **options: object) -> Rows:
    found = Harvest(new, ["an unlabelled text", new.texts[0]], {})
    given = {"min_labels": 50, "seed": 0} | options
    return prepare(found, trained.train, trained.evaluation, read_checkpoint(trained.checkpoint), **given)  # type: ignore[arg-type]


def test_held_out_rows_are_a_quarter_and_never_trained_on(trained: Trained) -> None:
    rows = rows_for(trained, finance(300, 4))
    held = {normalise(text) for text in rows.held_out.texts}
    assert 0.15 < len(held) / 300 < 0.35
    assert not held & {normalise(text) for text in rows.train.texts}
    assert all(is_held_out(text) for text in rows.held_out.texts)
    assert clean(rows.train, [*rows.held_out.texts, *trained.evaluation.texts]).dropped["leaked"] == 0
    assert rows.unlabelled == ["an unlabelled text"]


def test_too_few_new_labels_say_how_many_there_are(trained: Trained) -> None:
    with pytest.raises(DatasetError, match=r"20 new labelled rows are left of 20 .* and 50 are needed"):
        rows_for(trained, finance(20, 4))


def test_a_new_label_needs_some_rows_to_become_a_class(trained: Trained) -> None:
    new = finance(200, 4)
    labels = ["typo", "typo", *["neutral"] * 30, "positive|negative", *new.targets[33:]]
    rows = rows_for(trained, Dataset(new.texts, labels))
    assert rows.labels == ("negative", "positive", "neutral")
    assert (rows.counts["rare_new_label"], rows.counts["unfit_label"]) == (2, 1)


@pytest.mark.parametrize(
    ("policy", "added", "left_out"),
    [
        (Policy(), {"market": 30}, {"similar_labels": {"Positive": 15}, "rare_new_labels": {"typo": 3}}),
        (Policy(similar_labels=True), {"Positive": 15, "market": 30}, {"rare_new_labels": {"typo": 3}}),
        (
            Policy(new_labels=False),
            {},
            {"similar_labels": {"Positive": 15}, "refused_new_labels": {"market": 30, "typo": 3}},
        ),
    ],
)
def test_labels_that_are_added_or_left_out_are_named_with_their_rows(
    trained: Trained, caplog: pytest.LogCaptureFixture, policy: Policy, added: dict[str, int], left_out: object
) -> None:
    new = finance(250, 4)
    labels = [*["typo"] * 3, *["market"] * 30, *["Positive"] * 15, *new.targets[48:]]
    rows = rows_for(trained, Dataset(new.texts, labels), policy=policy)
    assert (rows.added, rows.labels) == (added, ("negative", "positive", *sorted(added)))
    named = {key: value for key, value in rows.counts.items() if isinstance(value, dict)}
    assert named == {"new_labels": added} | left_out  # type: ignore[operator]
    for labels_named in named.values():
        for label, count in labels_named.items():
            assert f"{label!r} ({count} rows)" in caplog.text


def test_a_new_label_in_one_text_sent_many_times_is_no_class(trained: Trained) -> None:
    new = finance(200, 4)
    rows = rows_for(trained, Dataset([*["the same"] * 40, *new.texts], [*["market"] * 40, *new.targets]))
    assert (rows.added, rows.counts["rare_new_label"]) == ({}, 1)


def test_of_two_new_labels_that_are_alike_the_frequent_one_becomes_a_class(trained: Trained) -> None:
    new = finance(200, 4)
    rows = rows_for(trained, Dataset(new.texts, [*["Refund"] * 12, *["refund"] * 20, *new.targets[32:]]))
    assert rows.added == {"refund": 20}


def test_shares_of_the_reference_are_fair() -> None:
    assert fair_shares([872, 250, 9000], 5000) == [872, 250, 3878]
    assert fair_shares([9000, 9000, 9000], 5000) == [1666, 1667, 1667]
    assert fair_shares([10, 0, 5], 5000) == [10, 0, 5]


def answers(right: int, rows: int) -> list[str]:
    return ["a"] * right + ["b"] * (rows - right)


GATE = Quality(
    metric="accuracy",
    baseline=0.9,
    exported=0.9,
    difference=0,
    lower_bound=-0.3,
    max_drop=1,
    verdict="pass",
    rows=500,
    flips=0,
    batch_flip_rate=0,
)


@pytest.mark.parametrize(
    ("old", "new", "gate", "accepted", "reason"),
    [
        ((400, 400, 436), (60, 90, 120), GATE, True, "better on the 120 new rows"),
        ((400, 400, 436), (60, 62, 120), GATE, False, "not shown to be better"),
        ((400, 390, 436), (60, 90, 120), GATE, False, "worse than the allowed 1 points"),
        ((400, 398, 436), (60, 90, 120), GATE, True, "within 1 points"),
        ((400, 400, 436), (60, 90, 120), GATE.model_copy(update={"verdict": "fail"}), False, "did not pass its gate"),
    ],
)
def test_the_rules_of_a_challenge(
    old: tuple[int, int, int], new: tuple[int, int, int], gate: Quality, accepted: bool, reason: str
) -> None:
    pairs = [contest(SINGLE_LABEL, answers(a, rows), answers(b, rows), ["a"] * rows) for a, b, rows in (old, new)]
    champion = Champion(version="1", digest="0" * 64)
    challenge = decide(champion, pairs[0], pairs[1], {"cpu": gate}, max_drop=1.0)
    assert challenge.accepted == accepted
    assert any(reason in one for one in challenge.reasons)
    assert challenge.figures["old"]["rows"] == old[2]  # type: ignore[index,call-overload]


def run(repo: Path, trained: Trained, log: Path, new: Dataset | None, **options: object) -> Retrained:
    given = {"recipe": AGAIN, "max_drop": 3.0} | options
    return retrain(repo, "tiny", log, trained.train, trained.evaluation, labels=new, **given)  # type: ignore[arg-type]


def test_a_better_challenger_goes_live_with_the_figures_on_record(repo: Path, trained: Trained, tmp_path: Path) -> None:
    new, traffic = finance(400, 4), finance(60, 5)
    write_log(tmp_path / "log", [*traffic.texts], [(row, traffic.targets[row]) for row in range(30)])
    done = run(repo, trained, tmp_path / "log", new)
    bundle = open_bundle(repo / "tiny" / "2")
    assert done.accepted
    assert read_serving(repo, "tiny") == Serving(live="2", previous="1")
    challenge = bundle.manifest.challenge
    assert challenge is not None
    assert challenge.champion.digest == open_bundle(repo / "tiny" / "1").digest
    figures = challenge.figures["new"]
    assert figures["challenger"] > 0.9 > figures["champion"]  # type: ignore[index,call-overload,operator]
    assert kept_checkpoint(repo, "tiny", bundle.manifest.source.checkpoint_sha256).is_dir()
    table = pq.read_table(bundle.file("reference.parquet"), columns=["text", "target"])
    told = dict(zip(*(table.column(column).to_pylist() for column in ("text", "target")), strict=True))
    assert None in told.values()
    assert set(trained.evaluation.texts) <= told.keys()
    assert "Against version 1: accepted" in bundle.file("card.md").read_text()


def test_a_challenger_that_is_no_better_is_kept_but_not_live(repo: Path, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="not shown to be better") as rejected:
        run(repo, trained, tmp_path / "log", sentences(200, 8))
    assert rejected.value.exit_code == 3
    assert read_serving(repo, "tiny").live == "1"
    challenge = open_bundle(repo / "tiny" / "2").manifest.challenge
    assert challenge is not None
    assert not challenge.accepted
    assert rejected.value.outcome.challenge == challenge


def test_a_new_class_is_learnt(repo: Path, trained: Trained, tmp_path: Path) -> None:
    new = finance(300, 4)
    labels = ["market" if index % 2 else label for index, label in enumerate(new.targets)]
    texts = [f"story price {text}" if index % 2 else text for index, text in enumerate(new.texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrain_module, "set_live", lambda *_: None)
        try:
            done = run(repo, trained, tmp_path / "log", Dataset(texts, labels), max_drop=50.0)
        except Rejected as rejected:
            done = rejected.outcome
    made = done.bundle.manifest
    assert made.labels == ("negative", "positive", "market")
    assert made.challenge is not None
    assert made.challenge.reasons[-1] == f"new classes: 'market' ({done.data['new_labels']['market']} rows)"  # type: ignore[index,call-overload]
    assert made.challenge.reasons[-1] in done.bundle.file("card.md").read_text()


def test_when_another_version_went_live_meanwhile_the_challenger_does_not_replace_it(
    repo: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = retrain_module.judge

    def slowly(*args: object, **options: object) -> object:
        (repo / "tiny" / "serving.json").write_text('{"live": "7", "previous": "1"}')
        return honest(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(retrain_module, "judge", slowly)
    with pytest.raises(Rejected, match="version 7 went live meanwhile"):
        run(repo, trained, tmp_path / "log", finance(400, 4))


def test_a_second_retrain_of_the_same_model_waits_its_turn(repo: Path, trained: Trained, tmp_path: Path) -> None:
    with (repo / "tiny" / ".retrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="being retrained already"):
            run(repo, trained, tmp_path / "log", finance(100, 4))


def test_a_failure_leaves_nothing_half_written(
    repo: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain_module, "build", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(repo, trained, tmp_path / "log", finance(100, 4))
    left = {entry.name for entry in (repo / "tiny").iterdir()}
    assert left == {".lock", ".retrain.lock", "1", "checkpoints", "serving.json"}
    assert versions(repo, "tiny") == ["1"]


def test_nothing_live_or_no_checkpoint_is_said_plainly(repo: Path, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no live model"):
        retrain(tmp_path / "empty", "tiny", tmp_path / "log", trained.train, trained.evaluation)
    for kept in (repo / "tiny" / "checkpoints").iterdir():
        kept.rename(kept.with_name("elsewhere"))
    with pytest.raises(CheckpointError, match="was not kept"):
        run(repo, trained, tmp_path / "log", finance(100, 4))
