"""The prune stage in an export: what is published, what is refused, and that failure leaves nothing behind."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.checkpoint import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.onnx import load_model
from export.pipeline import Exported, Wish
from export.predict import checkpoint_logits
from export.prune import stage as stage_module
from export.prune.recover import Lesson, recover
from export.prune.search import search
from export.prune.stage import LEAST_ROWS
from export.prune.surgery import Kept, cut
from export.prune.table import LatencyTable
from export.retrain import Rejected, retrain
from service.contract.bundle import open_bundle
from service.contract.errors import InvalidInput, Refused
from service.contract.repository import versions
from service.tokenizer import TextTokenizer, Tokens
from tests.export.conftest import NEW_BAD, NEW_GOOD, RECIPE, Trained, exported, sentences

WISH = Wish(target_speedup=1.4, recovery_minutes=0.05)


@pytest.fixture(scope="module")
def pruned(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A real export, except that a model of two tiny layers is told to be faster by its smaller half."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "measure_layer", even_table)
        patch.setattr(stage_module, "_speedup", lambda *_: 1.4)
        return exported(trained, tmp_path_factory.mktemp("pruned") / "models", wish=WISH, max_drop=20.0)


def even_table(*_args: object) -> LatencyTable:
    """Half of the time is spent in heads and neurons, evenly."""
    return LatencyTable(1.6, 2, 64, {0: 0.0, 2: 0.2}, {0: 0.0, 64: 0.2}, (8,))


def test_the_prune_stage_says_what_it_kept(pruned: Exported) -> None:
    stage = pruned.bundle.manifest.pipeline[0]
    assert (stage.name, stage.applied) == ("prune", True)
    details = stage.details
    assert [len(details["heads_kept"]), len(details["neurons_kept"])] == [2, 2]  # type: ignore[arg-type]
    before, after = details["parameters"]  # type: ignore[misc]
    assert after < before
    assert details["recovery"]["loss_after"] <= details["recovery"]["loss_before"]  # type: ignore[index, call-overload]
    assert details["latency_table"]["head_ms"] == {"0": 0.0, "2": 0.2}  # type: ignore[index, call-overload]


def test_a_pruned_bundle_is_judged_against_the_unpruned_checkpoint(pruned: Exported, trained: Trained) -> None:
    bundle = open_bundle(pruned.bundle.path)
    model = load_model(read_checkpoint(trained.checkpoint))
    tokens = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.evaluation.texts)
    right = checkpoint_logits(model, tokens).argmax(1) == [
        list(bundle.manifest.labels).index(one) for one in trained.evaluation.targets
    ]
    assert bundle.manifest.quality["cpu"].baseline == pytest.approx(right.mean())
    assert bundle.manifest.source.checkpoint_sha256 == checkpoint_digest(trained.checkpoint)
    assert [one.name for one in bundle.manifest.latency] == [
        "torch fp32", "onnxruntime fp32", "onnxruntime int8 unpruned", "onnxruntime fp32 pruned", "onnxruntime int8",
    ]  # fmt: skip
    sizes = {one.name: one.bytes for one in bundle.manifest.latency}
    assert sizes["onnxruntime int8"] < sizes["onnxruntime int8 unpruned"]


def test_the_wish_is_on_record_for_the_next_retrain(pruned: Exported, published: Exported) -> None:
    assert Wish.recorded(pruned.bundle.manifest.source.arguments) == WISH
    assert Wish.recorded(published.bundle.manifest.source.arguments) == Wish()
    assert Wish.recorded({}) == Wish()


def test_no_prune_wins_and_is_recorded(trained: Trained, tmp_path: Path) -> None:
    stage = exported(trained, tmp_path, wish=replace(WISH, no_prune=True)).bundle.manifest.pipeline[0]
    assert (stage.applied, stage.details["reason"]) == (False, "--no-prune was given")


def test_a_speed_up_out_of_reach_is_refused_with_the_limit(trained: Trained, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "measure_layer", even_table)
        with pytest.raises(Refused, match=r"2.0 times is the limit"):
            exported(trained, tmp_path, wish=Wish(target_speedup=3.0))
    assert versions(tmp_path, "tiny") == []


def test_a_pruned_model_that_is_no_faster_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "measure_layer", even_table)
        patch.setattr(stage_module, "_speedup", lambda *_: 0.97)
        with pytest.raises(Refused, match=r"no faster than the unpruned one \(0.97 times\)"):
            exported(trained, tmp_path, wish=WISH)
    assert versions(tmp_path, "tiny") == []


def test_the_budget_is_corrected_by_what_the_graph_really_takes(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is made to promise half of what is true: the search has to aim lower."""
    budgets = []

    def spied(rankings: object, table: LatencyTable, budget: float) -> list[Kept] | None:
        budgets.append(budget)
        return search(rankings, table, budget)  # type: ignore[arg-type]

    true = iter([2.0, 1.6, 1.41])
    monkeypatch.setattr(stage_module, "measure_layer", even_table)
    monkeypatch.setattr(stage_module, "search", spied)
    monkeypatch.setattr(stage_module, "_speedup", lambda *_: next(true))
    did = exported(trained, tmp_path, wish=WISH, max_drop=50.0).bundle.manifest.pipeline[0].details
    assert did["speedup"] in (2.0, 1.6, 1.41)
    assert budgets == sorted(budgets)
    assert len(budgets) > 1


def test_a_pruned_champion_gets_a_pruned_challenger(
    pruned: Exported, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "measure_layer", even_table)
    monkeypatch.setattr(stage_module, "_speedup", lambda *_: 1.4)
    repo = shutil.copytree(pruned.bundle.path.parent.parent, tmp_path / "models")
    recipe = replace(RECIPE, keep="last", epochs=1)
    new = sentences(300, 7, NEW_GOOD, NEW_BAD)
    try:
        done = retrain(
            repo, "tiny", tmp_path / "log", trained.train, trained.evaluation, labels=new, recipe=recipe, min_labels=20
        )  # fmt: skip
    except Rejected as rejected:  # who wins does not matter here
        done = rejected.outcome
    made = done.bundle.manifest
    assert (made.version, made.pipeline[0].name, made.pipeline[0].applied) == ("2", "prune", True)
    assert Wish.recorded(made.source.arguments) == WISH
    assert kept_checkpoint(repo, "tiny", made.source.checkpoint_sha256).is_dir()


@pytest.mark.parametrize("interrupted", ["measure_layer", "recover"])
def test_an_interruption_leaves_the_repository_as_it_was(
    trained: Trained, repo: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage_module, "measure_layer", even_table)
    monkeypatch.setattr(stage_module, "_speedup", lambda *_: 1.4)
    monkeypatch.setattr(stage_module, interrupted, interrupt)
    before = sorted(path.name for path in (repo / "tiny").iterdir())
    with pytest.raises(KeyboardInterrupt):
        exported(trained, repo, wish=WISH)
    assert sorted(path.name for path in (repo / "tiny").iterdir() if path.name != ".lock") == [
        name for name in before if name != ".lock"
    ]


def test_too_few_training_rows_are_refused_before_any_work(trained: Trained, tmp_path: Path) -> None:
    few = replace(trained, train=sentences(50, 1))
    with pytest.raises(InvalidInput, match=f"at least {LEAST_ROWS}"):
        exported(few, tmp_path, wish=WISH)


def lesson_for(trained: Trained, **changes: float) -> tuple[object, ...]:
    model = load_model(read_checkpoint(trained.checkpoint))
    student = cut(model, [Kept((0,), tuple(range(16)))] * 2)
    tokens: Sequence[Tokens] = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.train.texts)
    done = recover(student, model, tokens, "single-label", replace(Lesson(minutes=1, epochs=2), **changes), seed=4)
    return done, student, tokens


def test_recovery_comes_closer_to_the_teacher_and_repeats(trained: Trained) -> None:
    done, student, tokens = lesson_for(trained, learning_rate=2e-3)
    again, twin, _ = lesson_for(trained, learning_rate=2e-3)
    assert done.loss_after < 0.5 * done.loss_before
    assert done.held_out_rows == 40
    assert replace(done, seconds=0.0) == replace(again, seconds=0.0)
    np.testing.assert_array_equal(checkpoint_logits(student, tokens[:40]), checkpoint_logits(twin, tokens[:40]))


def test_recovery_that_only_harms_is_undone(trained: Trained) -> None:
    done, student, _ = lesson_for(trained, learning_rate=30.0)
    assert (done.kept_step, done.loss_after) == (0, done.loss_before)
    untouched = cut(load_model(read_checkpoint(trained.checkpoint)), [Kept((0,), tuple(range(16)))] * 2)
    for one, other in zip(student.parameters(), untouched.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_learnt_until_time_runs_out_is_judged(trained: Trained) -> None:
    """A clock that a quarter of a second passes on at each look: the limit comes long before all epochs."""
    model = load_model(read_checkpoint(trained.checkpoint))
    student = cut(model, [Kept((0,), tuple(range(16)))] * 2)
    tokens = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.train.texts)
    lesson = Lesson(minutes=0.1, epochs=50, learning_rate=1e-3)
    ticks = itertools.count(0, 0.25)
    done = recover(student, model, tokens, "single-label", lesson, seed=4, clock=lambda: next(ticks))
    assert 0 < done.steps < done.planned_steps
    assert done.kept_step == done.steps


def test_recovery_keeps_to_its_time(trained: Trained) -> None:
    done, _, _ = lesson_for(trained, minutes=0.0)
    assert (done.steps, done.loss_after) == (0, done.loss_before)
