"""The check for GPUs, as far as it runs without one."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from loadtest import gpu_check
from loadtest.endurance import Row
from tests.fakes import make_bundle


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    make_bundle(tmp_path / "models")
    with (tmp_path / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([f"good {number}"] for number in range(64))])
    return [str(tmp_path / "models"), "--name=reviews", f"--texts={tmp_path / 'texts.csv'}"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    return int(ended.value.code or 0)


def test_without_a_variant_for_cuda_it_says_so(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "has no variant for cuda. Export with --target both." in capsys.readouterr().err


@pytest.mark.slow
def test_the_figures_are_printed_and_added_to_the_benchmarks(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "benchmarks.md"
    notes.write_text("# Benchmarks\n")
    code = run(monkeypatch, *arguments, "--device=cpu", "--rounds=1", "--seconds=0.5", f"--append={notes}")
    printed = capsys.readouterr().out
    assert code in (0, 3)  # how fast it is does not matter here
    assert "same label as on the CPU, 64 texts                                  100.00%" in printed
    assert "refused, exit code" in printed
    assert notes.read_text().startswith("# Benchmarks\n\n### no GPU: ")
    assert all(f"| requests of 32 texts, {workers} |" in notes.read_text() for workers in ("1 worker", "2 workers"))


def test_the_variants_may_differ_in_what_both_changed_of_the_checkpoints_labels(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "models")
    quality = bundle.manifest.quality["cpu"]
    assert gpu_check._flips(bundle, "cuda") == gpu_check._flips(bundle, "cpu") == quality.flips / quality.rows


def test_a_section_is_a_table() -> None:
    written = gpu_check.section([Row("speed", "9/s", ">= 8/s", holds=True)], "A GPU, driver 1")
    assert written.startswith("\n### A GPU, driver 1: ")
    assert written.endswith("|---|---|---|\n| speed | 9/s | >= 8/s |\n")
