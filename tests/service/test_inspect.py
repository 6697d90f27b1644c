"""A bundle's card in a terminal, at any width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from service.card.terminal import show
from service.contract.bundle import Bundle, ClassChange, Manifest
from tests.manifests import CHOSEN, manifest, quality


def shown(given: Manifest, here: str = "avx512_vnni", *, width: int = 120, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show(Bundle(Path(), given, "d" * 64), here, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_shows_summary_candidates_latency_and_quality() -> None:
    text = shown(manifest())
    assert text.startswith("reviews version 3, 2026-01-31 07:00 UTC\n")
    assert "d" * 64 in text
    found = row(text, "7 ").split()[-8:]
    assert found == ["chosen", "1.76", "-0.25", "-1.20", "-0.20", "±", "0.38", "18.3"]
    assert "front" in row(text, "9 ")
    assert row(text, "cpu variant").split()[-1] == "4.31x"
    assert row(text, "calibration error, exported").split()[-1] == "0.048"
    assert "careful" not in text


def test_warns_of_another_processor() -> None:
    assert "careful  cpu: accuracy and speed were measured on avx512_vnni; this machine has avx2" in shown(
        manifest(), "avx2"
    )


def test_only_the_ten_labels_that_changed_most() -> None:
    classes = {f"label{number}": ClassChange(rows=9, baseline=1, exported=0.9) for number in range(50)}
    text = shown(manifest(quality={"cpu": quality(classes=classes)}))
    assert "label9 " in text
    assert "label10" not in text
    assert "… and 40 more in report.html" in text


def test_a_bundle_without_a_search() -> None:
    text = shown(manifest(search=None))
    assert "Candidates" not in text
    assert "cpu variant" in text


def test_words_in_brackets_are_no_markup() -> None:
    assert "[bold]" in shown(manifest(labels=("[bold]", "fine")))


@pytest.mark.parametrize("width", [80, 100])
def test_fits_a_narrow_terminal_with_every_figure(width: int) -> None:
    text = shown(manifest(), width=width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    assert {"chosen", "1.76", "-0.20", "-0.25", "-1.20", "18.3"} <= set(row(text, "7 ").split())
    assert CHOSEN.split(",")[0] in row(text, "7 ")
