"""The commands of the first hour on saved files: what they print last can be run, and what they warn of."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from export.tasks.scores import doubts, score
from plumbline import cli
from service.contract.dataset import Dataset, write_jsonl
from tests.export.conftest import Trained, sentences


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.build(), [str(one) for one in arguments])


def next_command(output: str) -> list[str]:
    return shlex.split(output.splitlines()[-1].removeprefix("next: "))[1:]


def test_finetune_leads_to_export_and_that_to_serve(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("my train.jsonl"), sentences(200, 1))
    write_jsonl(Path("eval.jsonl"), sentences(120, 2))
    options = ["--epochs", "4", "--learning-rate", "5e-3", "--batch-size", "16", "--max-length", "24"]
    made = run("finetune", base, "--train", "my train.jsonl", "--eval", "eval.jsonl", "--out", "my check", *options)
    assert made.exit_code == 0, made.output
    then = next_command(made.stdout)
    assert then[:2] == ["export", "my check"]
    done = run(*then, "--no-prune", "--max-drop", "5")
    assert done.exit_code == 0, done.output
    assert next_command(done.stdout) == ["serve", "--repo", "models", "--log", "log"]


def test_labels_that_are_never_predicted_are_named_in_every_output(trained: Trained, tmp_path: Path) -> None:
    """Two rows of a third label are never learnt from in one step."""
    extra = Dataset(["price", "story"], ["rare", "rare"])
    train = Dataset(trained.train.texts[:60] + extra.texts, trained.train.targets[:60] + extra.targets)
    write_jsonl(tmp_path / "train.jsonl", train)
    evaluation = Dataset([*trained.evaluation.texts[:60], "price"], [*trained.evaluation.targets[:60], "rare"])
    write_jsonl(tmp_path / "eval.jsonl", evaluation)
    files = ["--train", tmp_path / "train.jsonl", "--eval", tmp_path / "eval.jsonl", "--max-length", "24"]
    call = ["finetune", trained.checkpoint, *files, "--epochs", "1", "--learning-rate", "1e-6"]
    shown = run(*call, "--out", tmp_path / "out")
    said = "labels never predicted, not for one eval row: 'rare' (2 training and 1 eval rows)"
    assert shown.exit_code == 0
    assert f"careful: {said}" in shown.stdout
    assert said in shown.stderr
    as_json = run(*call, "--out", tmp_path / "again", "--json")
    assert said in json.loads(as_json.stdout)["warnings"][0]


def test_labels_never_right_or_never_asked_for_are_doubted_too() -> None:
    scores = score(["a", "b", "a"], ["a", "a", "b"], ["a", "b", "c"])
    found = doubts(scores, ["a", "b", "c"])
    assert [one.split(":")[0] for one in found] == [
        "labels never right, recall 0.000",
        "labels without an eval row, so that nothing is known of them",
    ]
    assert doubts(score(["a", "b"], ["a", "b"], ["a", "b"]), ["a", "b"]) == ()
