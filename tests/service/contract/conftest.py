"""Small valid bundles for the contract's tests; the model file holds placeholder bytes, as nothing here runs it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.contract.bundle import (
    Bundle,
    Latency,
    Manifest,
    Quality,
    Reference,
    Source,
    Stage,
    Tensor,
    Variant,
    file_entries,
    open_bundle,
)
from service.contract.repository import publish, staging

MODEL = "model.int8.onnx"


def write_files(folder: Path, model: bytes = b"placeholder" * 100) -> None:
    """The files of a bundle without its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(model)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "reference.parquet").write_bytes(b"placeholder")
    (folder / "golden.jsonl").write_bytes(
        orjson.dumps({"text": "שלום 😀", "logits": {"cpu": [0.5, -0.5]}})
        + b"\n"
        + orjson.dumps({"text": "two\nlines\u2028", "logits": {"cpu": [1.5, 2.5]}})
        + b"\n"
    )


def make_manifest(folder: Path, version: str = "1", name: str = "reviews") -> Manifest:
    """A valid manifest for the files in ``folder``."""
    return Manifest(
        name=name,
        version=version,
        task="single-label",
        labels=("negative", "positive"),
        max_length=128,
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        variants={"cpu": Variant(file=MODEL, precision="int8", instruction_set="avx2", golden_atol=0.01)},
        inputs=(Tensor(name="input_ids", dtype="int64", shape=("batch", "tokens")),),
        outputs=(Tensor(name="logits", dtype="float32", shape=("batch", 2)),),
        files=file_entries(folder),
        source=Source(checkpoint_sha256="0" * 64, base_model="placeholder", libraries={}, seed=0, arguments={}),
        pipeline=(Stage(name="onnx", applied=True, seconds=1.5, details={"opset": 17}),),
        quality={
            "cpu": Quality(
                metric="accuracy",
                baseline=0.9,
                exported=0.89,
                difference=-1.0,
                lower_bound=-1.4,
                max_drop=1.5,
                verdict="pass",
                rows=500,
                flips=5,
                batch_flip_rate=0.0,
            )
        },
        latency=(
            Latency(name="int8", p50_ms=1, p95_ms=2, hardware="a cpu", threads=1, batch=1, tokens=32, bytes=1100),
        ),
        reference=Reference(rows=500, feature_version=1),
    )


def publish_one(root: Path, name: str = "reviews", model: bytes = b"placeholder" * 100) -> Bundle:
    """Publish the next version of a model."""
    with staging(root, name) as stage:
        write_files(stage, model)
        return publish(root, name, stage, lambda version: make_manifest(stage, version, name))


def write_manifest(folder: Path, **changes: Any) -> None:
    """Write the manifest of ``folder`` with some fields replaced, valid or not."""
    content = make_manifest(folder).model_dump(mode="json") | changes
    (folder / "manifest.json").write_bytes(orjson.dumps(content))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A valid bundle in a folder of its own."""
    folder = tmp_path / "bundle"
    write_files(folder)
    (folder / "manifest.json").write_bytes(make_manifest(folder).to_json())
    return open_bundle(folder)
