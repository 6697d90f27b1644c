"""``plumbline demo``, as a new user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from plumbline.demo.demo import run
from service.contract.errors import InvalidInput
from tests.processes import plumbline


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("task", "metric", "least", "lost"), [("intent", "accuracy", 0.95, 0.02), ("ner", "entity F1", 0.85, 0.06)]
)
def test_the_whole_loop_ends_with_a_better_model_and_no_failed_request(
    tmp_path: Path, task: str, metric: str, least: float, lost: float
) -> None:
    command = plumbline("demo", "--dir", tmp_path / "demo", "--task", task, "--json")
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    print(f"\n{figures}")
    assert figures["metric"] == metric
    assert figures["accuracy_old_before"] > least
    assert figures["accuracy_new_before"] < 0.8
    assert figures["accuracy_new_after"] > 0.9
    assert figures["accuracy_old_after"] > figures["accuracy_old_before"] - lost
    assert figures["requests_failed"] == 0
    assert figures["requests_answered"] >= 100
    assert "plumbline.drift.detected" in figures["alert"]
    assert Path(figures["report"]).stat().st_size > 100_000
    assert Path(figures["card"]).exists()


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(plumbline("demo", "--dir", tmp_path, "--task", "x"), capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--task 'x' is not known; choose intent or ner" in ended.stderr


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "new.csv").write_text("text,label\n")
    with pytest.raises(InvalidInput, match="not an earlier demonstration"):
        run(tmp_path, keep=False, seed=0, on_done=lambda figures: None)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
