"""Data files through the commands: what is refused before any work, and what a row without labels becomes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from export.data.kept import rows_file
from export.data.labels import label_set
from export.judge.calibration import class_changes
from export.tasks import training_of
from export.tasks.scores import score
from plumbline import cli
from service.contract.bundle import open_bundle
from service.contract.dataset import Dataset, read_dataset, write_jsonl
from service.contract.repository import versions
from service.tasks import MULTI_LABEL
from tests.export.conftest import BAD, GOOD, NEUTRAL, NEW_BAD, NEW_GOOD, Trained, sentences
from tests.export.test_retrain import write_log
from tests.fakes import make_bundle
from tests.processes import plumbline

FINE = "text,label\nfine,x\nawful,y\n"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.build(), [str(one) for one in arguments])


def write(folder: Path, name: str, content: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def commands(folder: Path, train: Path, evaluation: Path) -> dict[str, list[str | Path]]:
    """Every command that reads labelled rows, with as much of the rest there as is looked at before them."""
    for checkpoint in ("teacher", "checkpoint"):
        write(folder / checkpoint, "config.json", '{"id2label": {"0": "x", "1": "y"}}')
        write(folder / checkpoint, "model.safetensors", b"")
    (folder / "log").mkdir(exist_ok=True)
    make_bundle(folder / "models", "tiny")
    files = [f"--train={train}", f"--eval={evaluation}"]
    model = [f"--repo={folder / 'models'}", "--name=tiny"]
    return {
        "finetune": ["finetune", *files, f"--out={folder / 'out'}"],
        "distill": ["distill", folder / "teacher", "student", *files, f"--out={folder / 'out'}"],
        "export": ["export", folder / "checkpoint", *files, *model],
        "retrain": ["retrain", *files, *model, f"--log={folder / 'log'}"],
    }


@pytest.mark.parametrize("command", ["finetune", "distill", "export", "retrain"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('text,label\n"one\nmore",x\n\ntwo,\n', "line 5 has no 'label'"),
        ("text,label\none,x\ntwo,a|\n", "line 3 has an empty label beside a '|'"),
        ("text,label\none,x\ntwo,NaN\n", "line 3 has no 'label' (nan is a missing value)"),
        ("this one was fine,x\nthat one was not,y\n", "--text-column 1 --label-column 2"),
        ("text,label\none,x\n".encode("utf-16-le"), "looks like UTF-16LE"),
        (
            "text,label\none,Food\ntwo,food\nthree,food\n",
            "'Food' (1 row, first in line 2 of {file}) and 'food' (2",
        ),
        ("text,label\none,cafe\u0301\ntwo,caf\u00e9\nthree,x\n", "differ only by case, spaces or Unicode form"),
        ("text,label\none,card arrival\ntwo,card  arrival\n", "differ only by case, spaces or Unicode form"),
    ],
)
def test_data_that_cannot_be_used_is_named_by_its_line(
    tmp_path: Path, command: str, content: str | bytes, told: str
) -> None:
    file = write(tmp_path, "train.csv", content)
    done = run(*commands(tmp_path, file, write(tmp_path, "eval.csv", FINE))[command])
    assert done.exit_code == 2
    assert told.format(file=file) in done.stderr
    assert versions(tmp_path / "models", "tiny") == ["1"]


def test_labels_are_compared_across_files(tmp_path: Path) -> None:
    files = [write(tmp_path, "train.csv", FINE + "well,x\n"), write(tmp_path, "eval.csv", "text,label\none,X\n")]
    done = run(*commands(tmp_path, *files)["finetune"])
    assert done.exit_code == 2
    assert f"'X' (1 row, first in line 2 of {files[1]}) and 'x' (2 rows)" in done.stderr


def test_bad_data_is_one_line_and_loads_no_training_library(tmp_path: Path) -> None:
    script = (
        "import sys; from plumbline.cli import build; from typer.testing import CliRunner;"
        "done = CliRunner().invoke(build(), sys.argv[1:]);"
        "print(done.exit_code, len(done.stderr.splitlines()), 'torch' in sys.modules)"
    )
    files = write(tmp_path, "train.csv", "text,label\none,\n"), write(tmp_path, "eval.csv", FINE)
    arguments = map(str, commands(tmp_path, *files)["finetune"])
    shown = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["2", "1", "False"]


def test_similar_labels_are_classes_if_that_is_meant(base: Path, tmp_path: Path) -> None:
    data = sentences(40, 1)
    labels = ["Positive" if row % 2 and label == "positive" else label for row, label in enumerate(data.targets)]
    write_jsonl(tmp_path / "train.jsonl", Dataset(data.texts, labels))
    done = run(
        "finetune",
        base,
        f"--train={tmp_path / 'train.jsonl'}",
        f"--eval={tmp_path / 'train.jsonl'}",
        "--epochs=1",
        f"--out={tmp_path / 'out'}",
        "--allow-similar-labels",
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["labels"] == ["Positive", "negative", "positive"]


class TestNone:
    """A row with none of the labels of a multi-label task."""

    TARGETS = ("a|b", "", "b")

    def test_it_is_a_row_of_zeros(self) -> None:
        assert label_set(self.TARGETS) == ("a", "b")
        np.testing.assert_array_equal(
            training_of(MULTI_LABEL).encode(self.TARGETS, ["a", "b"], ()), [[1, 1], [0, 0], [0, 1]]
        )

    def test_it_is_right_if_nothing_is_predicted(self) -> None:
        found = score(["b|a", "", "a"], self.TARGETS, ["a", "b"])
        assert found.figures["accuracy"] == pytest.approx(2 / 3)
        assert {label: one.support for label, one in found.classes.items()} == {"a": 1, "b": 2}

    def test_it_is_no_class_of_its_own(self) -> None:
        changes = class_changes(["a|b", "", "b"], ["a", "a", "b"], self.TARGETS)
        assert {label: (one.rows, one.exported) for label, one in changes.items()} == {"a": (1, 1.0), "b": (2, 0.5)}


def several(rows: int, seed: int, good: tuple[str, ...] = GOOD, bad: tuple[str, ...] = BAD) -> Dataset:
    """A fifth says nothing, the others are good or bad, and those with a phone are about that too."""
    rng, told = random.Random(seed), sentences(rows, seed, good, bad)
    texts, labels = list(told.texts), list(told.targets)
    for row in range(0, rows, 5):
        texts[row], labels[row] = " ".join(rng.choices(NEUTRAL, k=6)), ""
    labels = [
        "|".join([*([one] if one else []), *["phone"] * ("phone" in text.split())])
        for one, text in zip(labels, texts, strict=True)
    ]
    return Dataset(texts, labels)


def as_csv(data: Dataset) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(data.texts, data.targets, strict=True))


@pytest.mark.slow
def test_rows_with_none_of_several_labels_go_all_the_way(base: Path, tmp_path: Path) -> None:
    train, evaluation = several(1000, 1), several(300, 2)
    files = [
        f"--train={write(tmp_path, 'train.csv', as_csv(train))}",
        f"--eval={write(tmp_path, 'eval.csv', as_csv(evaluation))}",
    ]
    model = [f"--repo={tmp_path / 'models'}", "--name=tiny"]
    recipe = ["--epochs=8", "--learning-rate=2e-3", "--batch-size=16"]
    done = run("finetune", base, *files, f"--out={tmp_path / 'out'}", "--json", "--max-length=24", *recipe)
    assert done.exit_code == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["task"], made["labels"]) == ("multi-label", ["negative", "phone", "positive"])
    assert made["scores"]["accuracy"] > 0.8
    done = run("export", tmp_path / "out", *files, *model, "--max-drop=3", "--time-budget=30s")
    assert done.exit_code == 0, done.stderr
    bundle = open_bundle(tmp_path / "models" / "tiny" / "1")
    assert "" in pq.read_table(bundle.file("reference.parquet")).column("target").to_pylist()
    assert "" not in bundle.manifest.quality["cpu"].classes
    write_jsonl(tmp_path / "new.jsonl", several(400, 3, NEW_GOOD, NEW_BAD))
    write_log(tmp_path / "log", ["the film was really the film"], [(0, "")])
    done = run(
        "retrain",
        *files,
        *model,
        f"--log={tmp_path / 'log'}",
        f"--labels={tmp_path / 'new.jsonl'}",
        "--max-drop=5",
        *recipe,
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    assert read_dataset(next((tmp_path / "models" / "tiny" / "rows").iterdir())).several_labels
    assert run("reproduce", tmp_path / "models" / "tiny" / "2").exit_code == 0


@pytest.mark.slow
def test_a_retrain_names_its_new_classes_and_can_be_reproduced(repo: Path, trained: Trained, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", trained.train)
    write_jsonl(tmp_path / "eval.jsonl", trained.evaluation)
    new = sentences(400, 4, NEW_GOOD, NEW_BAD)
    spelt = ["Positive" if row % 9 == 0 else f" {label} " for row, label in enumerate(new.targets)]
    write_log(tmp_path / "log", [*new.texts], list(enumerate(spelt)))
    arguments = [
        f"--repo={repo}",
        "--name=tiny",
        f"--log={tmp_path / 'log'}",
        f"--train={tmp_path / 'train.jsonl'}",
        f"--eval={tmp_path / 'eval.jsonl'}",
        "--max-drop=5",
        "--epochs=3",
        "--learning-rate=5e-3",
        "--batch-size=16",
    ]
    done = subprocess.run(plumbline("retrain", *arguments, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["manifest"]["labels"] == ["negative", "positive"]
    left_out = outcome["rows"]["similar_labels"]["Positive"]
    assert left_out == outcome["rows"]["similar_label"] > 30
    assert f"'Positive' ({left_out} rows)" in done.stderr

    bundle, kept = repo / "tiny" / "2", outcome["manifest"]["source"]["arguments"]
    wanted = f"was made with {kept['train_rows']} rows of digest {kept['train_sha256'][:16]}…"
    assert run("reproduce", bundle).exit_code == 0
    other = run("reproduce", bundle, f"--train={tmp_path / 'train.jsonl'}")
    assert other.exit_code == 2
    assert "train.jsonl has other rows: 400 of digest" in other.stderr
    assert wanted in other.stderr
    assert "leave out --train" in other.stderr
    file = rows_file(repo, "tiny", kept["train_sha256"])
    assert run("reproduce", bundle, f"--train={file}").exit_code == 0
    file.unlink()
    gone = run("reproduce", bundle)
    assert gone.exit_code == 2
    assert f"keeps them in {file}, which is not there" in gone.stderr
    assert versions(repo, "tiny") == ["1", "2"]


def test_reproducing_an_export_asks_for_the_rows_it_was_made_with(repo: Path, trained: Trained, tmp_path: Path) -> None:
    done = run("reproduce", repo / "tiny" / "1")
    assert done.exit_code == 2
    assert "was made with 400 rows of digest" in done.stderr
    assert "give the file with --train" in done.stderr
    write_jsonl(tmp_path / "eval.jsonl", trained.evaluation)
    done = run("reproduce", repo / "tiny" / "1", f"--train={tmp_path / 'eval.jsonl'}")
    assert done.exit_code == 2
    assert "eval.jsonl has other rows: 300 of digest" in done.stderr
