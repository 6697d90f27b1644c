"""What the command line makes of a verdict: files in, exit code, page and serving.json out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from plumbline import cli
from service.contract.bundle import open_bundle
from service.contract.dataset import Dataset, write_jsonl
from service.contract.repository import read_serving, versions
from tests.export.conftest import Trained, sentences


def run(trained: Trained, folder: Path, rows: Dataset, *options: str) -> Result:
    """``plumbline export`` into ``folder``/models, judged by ``rows``."""
    files = {"train": trained.train, "eval": rows}
    for name, data in files.items():
        write_jsonl(folder / f"{name}.jsonl", data)
    given = [f"--{name}={folder / name}.jsonl" for name in files]
    target = [f"--repo={folder / 'models'}", "--name=tiny", "--no-prune", "--time-budget=60s"]
    return CliRunner().invoke(cli.build(), ["export", str(trained.checkpoint), *given, *target, *options])


@pytest.mark.slow
def test_few_rows_publish_the_first_version_and_say_how_many_would_settle_it(trained: Trained, tmp_path: Path) -> None:
    first = run(trained, tmp_path, sentences(40, 9))
    assert first.exit_code == 0, first.output
    assert "tiny version 1, live, unproven: " in first.stdout
    assert "inconclusive" in first.stdout
    assert "eval rows" in first.stdout
    assert "unproven; to judge it by more rows: " in first.stdout
    assert " --like 1\n" in first.stdout

    second = run(trained, tmp_path, sentences(40, 9), "--json")
    assert second.exit_code == 0
    said = json.loads(second.stdout)
    assert (said["live"], said["manifest"]["unproven"], said["manifest"]["version"]) == (False, True, "2")
    assert read_serving(tmp_path / "models", "tiny").live == "1"

    strict = run(trained, tmp_path, sentences(40, 9), "--strict")
    assert strict.exit_code == 3
    assert "leave out --strict" in strict.stderr
    assert versions(tmp_path / "models", "tiny") == ["1", "2"]

    more = run(trained, tmp_path, sentences(700, 10), "--like=2")
    assert more.exit_code == 0, more.output
    assert "tiny version 3, live" in more.stdout
    assert "pass" in more.stdout
    like, made = (open_bundle(tmp_path / "models" / "tiny" / version).manifest for version in ("2", "3"))
    assert made.files[made.variants["cpu"].file] == like.files[like.variants["cpu"].file]


def test_a_checkpoint_that_was_not_trained_on_these_labels_is_refused(trained: Trained, tmp_path: Path) -> None:
    rows = sentences(100, 9)
    turned = ["positive" if one == "negative" else "negative" for one in rows.targets]
    refused = run(trained, tmp_path, Dataset(rows.texts, turned))
    assert refused.exit_code == 3
    assert refused.stdout == ""
    assert "always answering" in refused.stderr
    assert versions(tmp_path / "models", "tiny") == []
    assert run(trained, tmp_path, Dataset(rows.texts, turned), "--allow-weak").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--target=both"], 1, "on cuda"),
        (["--target=cuda"], 1, "on cuda"),
        (["--target=cuda", "--target-speedup=2"], 2, "--target-speedup is searched on the CPU"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_needs_a_gpu_is_refused_before_the_search_where_there_is_none(
    trained: Trained, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    refused = run(trained, tmp_path, sentences(40, 9), *options)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert not list((tmp_path / "models").rglob("search.json"))


def test_search_rows_that_were_trained_on_are_left_out(trained: Trained, tmp_path: Path) -> None:
    mixed = Dataset(
        [*trained.train.texts[:20], *sentences(5, 31).texts], [*trained.train.targets[:20], *sentences(5, 31).targets]
    )
    write_jsonl(tmp_path / "search.jsonl", mixed)
    done = run(trained, tmp_path, sentences(40, 9), f"--search={tmp_path / 'search.jsonl'}", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["manifest"]["search"]["rows"] == 5
    assert "20 of 25 search rows also occur in training" in done.stderr
