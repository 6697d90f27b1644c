"""A small world to monitor: a repository with placeholder models, a log, and texts of two kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.settings import MonitorSettings
from service.contract.bundle import GOLDEN, REFERENCE, TOKENIZER, Bundle, Challenge, Reference
from service.contract.features import FEATURE_VERSION, PROJECTED, encode_embedding, hash_tokens
from service.contract.record import REFERENCE_SCHEMA, Record
from service.contract.repository import publish, set_live, staging
from service.contract.segments import seal, segment_path
from tests.fakes import MODEL, make_manifest

SUBJECTS = ["the order", "my parcel", "a refund", "this invoice", "our account", "the app", "your courier", "the shop"]
VERBS = [
    "is late",
    "was lost",
    "never came",
    "looks wrong",
    "works again",
    "arrived today",
    "was charged twice",
    "is missing",
]
ENDS = [
    "please help",
    "thank you",
    "what now",
    "since monday",
    "again",
    "as agreed",
    "for the third time",
    "in the mail",
]
FOREIGN = [
    "qubit",
    "laser",
    "photon",
    "vacuum",
    "cryostat",
    "spectrum",
    "detector",
    "plasma",
    "orbit",
    "neutron",
    "lattice",
    "cavity",
]

START = datetime(2026, 1, 31, 7, 0, tzinfo=UTC)


def home_text(random: np.random.Generator) -> str:
    """A sentence of the kind that the reference holds; numbers make it rarely the same twice."""
    return f"{random.choice(SUBJECTS)} {random.integers(10**6)} {random.choice(VERBS)} {random.choice(ENDS)}"


def foreign_text(random: np.random.Generator) -> str:
    """A sentence with words that the reference lacks."""
    return " ".join(random.choice(FOREIGN, 5)) + f" {random.integers(10**6)}"


@dataclass(frozen=True)
class Kind:
    """How rows are drawn: share of foreign texts, share of the label "yes", sharpness of the confidence."""

    foreign: float = 0.0
    yes: float = 0.5
    sharpness: float = 8.0


HOME = Kind()
DRIFTED = Kind(foreign=1.0, yes=0.9, sharpness=2.0)


def rows(count: int, kind: Kind = HOME, seed: int = 0) -> list[dict[str, Any]]:
    """Observed columns of ``count`` rows, with targets."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        away = random.random() < kind.foreign
        text = foreign_text(random) if away else home_text(random)
        label = "yes" if random.random() < kind.yes else "no"
        confidence = 0.5 + float(random.beta(kind.sharpness, 1.0)) / 2
        right = random.random() < confidence
        found.append(
            {
                "text": text,
                "tokens": None,
                "n_tokens": len(text.split()) + 2,
                "truncated": False,
                "unk_share": 0.0,
                "label": label,
                "confidence": confidence,
                "probs": [confidence, 1 - confidence],
                "embedding": (random.standard_normal(PROJECTED) + (2.0 if away else 0.0)).astype(np.float32),
                "target": label if right else {"yes": "no", "no": "yes"}[label],
            }
        )
    return found


def table(found: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a reference table."""
    return pa.Table.from_pylist(list(found), schema=REFERENCE_SCHEMA)


@dataclass(frozen=True)
class World:
    """Folders of a repository, a log and a state."""

    root: Path

    @property
    def repo(self) -> Path:
        return self.root / "models"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def settings(self, **options: Any) -> MonitorSettings:
        """Small windows, no report, unless told otherwise."""
        defaults: dict[str, Any] = {"window_rows": 100, "min_rows": 40, "reports_kept": 0, "monitor_port": 0}
        return MonitorSettings(repo=self.repo, log=self.log, monitor_state=self.state, **{**defaults, **options})

    def publish(
        self,
        *,
        live: bool = True,
        challenge: Challenge | None = None,
        seed: int = 1,
        reference_rows: int = 300,
        created: datetime = START,
    ) -> Bundle:
        """A version of model ``tickets`` around placeholder bytes."""
        with staging(self.repo, "tickets") as stage:
            for name in (MODEL, TOKENIZER, GOLDEN):
                (stage / name).write_bytes(b"placeholder")
            pq.write_table(table(rows(reference_rows, seed=seed)), stage / REFERENCE)
            bundle = publish(
                self.repo,
                "tickets",
                stage,
                lambda version: make_manifest(
                    stage,
                    version,
                    name="tickets",
                    labels=("yes", "no"),
                    created=created,
                    reference=Reference(rows=reference_rows, feature_version=FEATURE_VERSION),
                    challenge=challenge,
                ),
            )
        if live:
            set_live(self.repo, "tickets", bundle.manifest.version)
        return bundle

    def write_log(
        self,
        bundle: Bundle,
        count: int,
        kind: Kind = HOME,
        *,
        seed: int = 100,
        sequence: int = 1,
        sealed: bool = True,
        at: datetime = START,
        texts: bool = True,
    ) -> Path:
        """One segment with ``count`` records, a second apart; sealed, or as a killed server leaves it."""
        # Sealed aside, because a monitor that runs would take an open segment that nobody holds for a dead server's.
        folder = self.root / "aside" if sealed else self.log
        segment = segment_path(folder, "tickets", "predictions", at, "writer", sequence)
        segment.parent.mkdir(parents=True, exist_ok=True)
        with segment.open("ab") as file:
            for number, row in enumerate(rows(count, kind, seed)):
                file.write(_record(bundle, row, at + timedelta(seconds=number), f"{sequence:03d}-{number:05d}", texts))
        if not sealed:
            return segment
        path = seal(segment, "predictions")
        assert path is not None
        final = self.log / path.relative_to(folder)
        final.parent.mkdir(parents=True, exist_ok=True)
        return path.rename(final)


def _record(bundle: Bundle, row: dict[str, Any], ts: datetime, identity: str, texts: bool) -> bytes:
    record = Record(
        id=identity,
        ts=ts.isoformat(),
        model=bundle.manifest.name,
        version=bundle.manifest.version,
        digest=bundle.digest,
        text=row["text"],
        text_pair=None,
        tokens=None,
        n_tokens=row["n_tokens"],
        truncated=False,
        unk_share=0.0,
        label=row["label"],
        confidence=row["confidence"],
        probs=row["probs"],
        embedding=encode_embedding(row["embedding"].astype(np.float16)),
        latency_ms=1.0,
    )
    if not texts:
        record = replace(record, text=None, tokens=hash_tokens(row["text"]))
    return record.to_json() + b"\n"
