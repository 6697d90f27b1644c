"""The status page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from tests.fakes import make_bundle


def test_it_says_what_is_live_and_what_was_answered(client: TestClient, repo: Path) -> None:
    empty = client.get("/").text
    assert "nothing answered yet" in empty
    client.post("/predict", json={"inputs": ["good", "good", "good", "bad"]})
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "reviews" in page.text
    assert "CPUExecutionProvider, int8" in page.text
    assert "75%" in page.text
    assert "over the last 4" in page.text
    assert "<script" not in page.text


def test_labels_cannot_inject_markup(start: Callable[..., TestClient], repo: Path) -> None:
    from tests import fakes

    fakes.WORDS["<script>alert(1)</script>"] = ("okay",)
    try:
        make_bundle(repo, "reviews", labels=("negative", "<script>alert(1)</script>"))
    finally:
        del fakes.WORDS["<script>alert(1)</script>"]
    client = start()
    client.post("/predict", json={"inputs": "okay okay"})
    assert "<script" not in client.get("/").text
    assert "&lt;script&gt;" in client.get("/").text


def test_it_renders_while_nothing_can_be_served(start: Callable[..., TestClient], repo: Path) -> None:
    (repo / "reviews" / "1" / "model.int8.onnx").write_bytes(b"")
    assert "loading models" in start(ready=False).get("/").text
