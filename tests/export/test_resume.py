"""Ctrl-C in a training: what is kept, and that the same command goes on to the same weights."""

from __future__ import annotations

import csv
import fcntl
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from export.checkpoint.load import checkpoint_digest
from export.progress import TrainingProgress
from plumbline import cli
from service.contract.dataset import Dataset
from tests.export.conftest import sentences
from tests.processes import plumbline

OPTIONS = ["--epochs", "3", "--batch-size", "16", "--learning-rate", "1e-3", "--max-length", "24"]
ROWS = 96  # six steps an epoch


def write_csv(path: Path, data: Dataset) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(data.texts, data.targets, strict=True))
    return path


@pytest.fixture
def command(base: Path, tmp_path: Path) -> list[str]:
    train = write_csv(tmp_path / "train.csv", sentences(ROWS, 1))
    evaluation = write_csv(tmp_path / "eval.csv", sentences(ROWS, 1))  # its loss sinks for sure
    return ["finetune", str(base), f"--train={train}", f"--eval={evaluation}", *OPTIONS]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(), list(arguments))


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send Ctrl-C, once, when training has done this many steps."""
    steps = TrainingProgress.on_step_end
    sent = []

    def counted(self: TrainingProgress, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == step and not sent:
            sent.append(signal.raise_signal(signal.SIGINT))
        steps(self, args, state, control, **more)

    monkeypatch.setattr(TrainingProgress, "on_step_end", counted)


@pytest.mark.slow
@pytest.mark.parametrize("step", [8, 12])
def test_after_ctrl_c_the_same_command_goes_on_to_the_same_weights(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """In the middle of an epoch, and at its last step, whose evaluation must not be missed."""
    whole = run(*command, f"--out={tmp_path / 'whole'}")
    assert whole.exit_code == 0
    interrupt_after(monkeypatch, step)
    stopped = run(*command, f"--out={tmp_path / 'out'}")
    assert stopped.exit_code == 130
    assert f"interrupted after step {step} of 18" in stopped.stderr
    assert "The same command goes on from there" in stopped.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.training" / f"checkpoint-{step}" / "optimizer.pt").is_file()
    done = run(*command, f"--out={tmp_path / 'out'}")
    assert done.exit_code == 0, done.output
    assert f"going on after step {step}" in done.stderr
    epochs = [one.stderr.count("eval loss") for one in (whole, stopped, done)]
    assert epochs[0] == epochs[1] + epochs[2]
    assert checkpoint_digest(tmp_path / "out") == checkpoint_digest(tmp_path / "whole")
    assert not list(tmp_path.glob(".out*"))


def test_other_rows_or_options_begin_anew(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, 3)
    assert run(*command, f"--out={tmp_path / 'out'}").exit_code == 130
    done = run(*command, f"--out={tmp_path / 'out'}", "--seed=1")
    assert done.exit_code == 0
    assert "going on" not in done.stderr
    assert not list(tmp_path.glob(".out*"))


def test_two_trainings_to_one_folder_do_not_mix(command: list[str], tmp_path: Path) -> None:
    (tmp_path / ".out.training").mkdir()
    with (tmp_path / ".out.training" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run(*command, f"--out={tmp_path / 'out'}")
    assert refused.exit_code == 1
    assert "another process is training" in refused.stderr


@pytest.mark.slow
def test_a_real_ctrl_c_ends_a_real_process_in_one_line(command: list[str], tmp_path: Path) -> None:
    arguments = plumbline(*command, f"--out={tmp_path / 'out'}", "--epochs=2000", "--json")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "eval loss" in line:
                process.send_signal(signal.SIGINT)
                break
        out, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (0, 130), rest  # training may have stopped early by itself
    if process.returncode == 130:
        assert rest.strip().splitlines()[-1].startswith("plumbline: interrupted after step")
        assert "Traceback" not in rest
        assert out == ""
    else:
        json.loads(out)
