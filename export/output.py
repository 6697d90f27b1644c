"""What the commands print: for people, or as JSON."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from service.card.sentences import explain
from service.contract.bundle import Bundle
from service.terminal.commands import plumbline, say_next

if TYPE_CHECKING:
    from export.retrain import Retrained


def print_bundle(bundle: Bundle, *, live: bool) -> None:
    manifest = bundle.manifest
    marks = ", ".join(["live" if live else "not live", *(["unproven"] if manifest.unproven else [])])
    print(f"{manifest.name} version {manifest.version}, {marks}: {bundle.path}")
    print(f"digest {bundle.digest}")
    for variant, quality in manifest.quality.items():
        print(f"{variant}: {explain(quality)}")
    for one in manifest.latency:
        print(f"{one.name:<28} p50 {one.p50_ms:7.2f} ms   p95 {one.p95_ms:7.2f} ms   {one.bytes / 1e6:7.1f} MB")
    print(f"report: {bundle.path / 'report.html'}")


def print_retrained(done: Retrained, *, as_json: bool) -> None:
    if as_json:
        print_json({**summary(done.bundle, live=done.accepted), "rows": done.data, "seconds": done.seconds})
        return
    print("rows: " + ", ".join(f"{key} {value}" for key, value in done.data.items() if not isinstance(value, dict)))
    for key, labels in done.data.items():
        if isinstance(labels, dict) and labels:
            print(f"{key.replace('_', ' ')}: " + ", ".join(f"{label!r} {rows}" for label, rows in labels.items()))
    print_bundle(done.bundle, live=done.accepted)
    for reason in done.challenge.reasons:
        print(f"{'accepted' if done.accepted else 'rejected'}: {reason}")
    say_next(plumbline("inspect", done.bundle.path))


def print_warnings(warnings: Sequence[str]) -> None:
    for one in warnings:
        print(f"careful: {one}")


def summary(bundle: Bundle, *, live: bool) -> dict[str, object]:
    manifest = bundle.manifest.model_dump(mode="json", exclude={"files"})
    return {"path": str(bundle.path), "digest": bundle.digest, "live": live, "manifest": manifest}


def print_json(value: object) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


@dataclass(frozen=True)
class Reading:
    """How the data files of a command are read."""

    text_column: str
    label_column: str
    pair_column: str | None
    allow_similar_labels: bool

    @property
    def unusual(self) -> dict[str, str | bool | None]:
        """The options that say so, where that is not as usual."""
        return {
            "text_column": self.text_column if self.text_column != "text" else None,
            "label_column": self.label_column if self.label_column != "label" else None,
            "pair_column": self.pair_column,
            "allow_similar_labels": self.allow_similar_labels,
        }


def to_export(checkpoint: Path, train: Path, eval_: Path, reading: Reading) -> str:
    """The command that exports a checkpoint that was just trained, with the same rows."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", checkpoint.absolute().name).lstrip("._-")[:63]
    return plumbline(
        "export", checkpoint, train=train, eval=eval_, repo="models", name=name or "model", **reading.unusual
    )


def to_judge(bundle: Bundle, checkpoint: Path, train: Path, reading: Reading) -> str:
    """The command that makes the same version again and judges it by more rows."""
    return plumbline(
        "export",
        checkpoint,
        train=train,
        eval="MORE.csv",
        repo=bundle.path.parent.parent,
        name=bundle.manifest.name,
        like=bundle.manifest.version,
        **reading.unusual,
    )
