"""Small valid bundles for the contract's tests; the model file holds placeholder bytes, as nothing here runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from service.contract.bundle import Bundle, open_bundle
from service.contract.repository import publish, staging
from tests.fakes import MODEL, make_manifest


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


def publish_one(root: Path, name: str = "reviews", model: bytes = b"placeholder" * 100) -> Bundle:
    """Publish the next version of a model."""
    with staging(root, name) as stage:
        write_files(stage, model)
        return publish(root, name, stage, lambda version: make_manifest(stage, version, name=name))


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
