"""Commands that train say at once of a model for embeddings that it is trained elsewhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from service.tasks.embeddings import LABEL, Embeddings
from tests.export.test_embeddings import as_sentence_model
from tests.fakes import WIDTH, make_bundle
from tests.processes import plumbline

SAID = "embeddings are not trained here"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "a.csv").write_text("text,label\none,x\ntwo,y\n")
    return ["--train", str(tmp_path / "a.csv"), "--eval", str(tmp_path / "a.csv")]


def said(*arguments: object) -> tuple[int, str]:
    ended = subprocess.run(plumbline(*arguments), capture_output=True, text=True)
    return ended.returncode, ended.stderr


def test_they_are_told_before_anything_is_loaded(base: Path, files: list[str], tmp_path: Path) -> None:
    folder = as_sentence_model(base, tmp_path / "model")
    out = ["--out", str(tmp_path / "out")]
    for command in (["finetune", "--task", "embeddings", *files, *out], ["distill", folder, base, *files, *out]):
        code, error = said(*command)
        assert (code, SAID in error) == (2, True), error
    make_bundle(tmp_path / "models", labels=(LABEL,), task=Embeddings("mean", True, WIDTH))
    where = ["--repo", tmp_path / "models", "--name", "reviews", "--log", tmp_path / "log"]
    code, error = said("retrain", *where, *files)
    assert (code, SAID in error) == (2, True), error
