"""The status page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from starlette.testclient import TestClient

from service.contract.events import DriftData, ModelRef, Signal, Window
from service.contract.last_window import LAST_WINDOW, write_last_window
from service.contract.repository import Canary, Serving, change_serving
from tests.fakes import make_bundle
from tests.processes import until


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


def judged(severity: str, *drifted: str, report: str | None = None) -> DriftData:
    start, end = datetime(2026, 1, 2, 3, 4, tzinfo=UTC), datetime(2026, 1, 2, 4, 5, tzinfo=UTC)
    signal = {"method": "m", "statistic": 1.0, "p_value": 0.001, "alpha": 0.01, "effect": 1.0, "effect_threshold": 0.1}
    return DriftData.model_validate(
        {
            "model": ModelRef(model="reviews", version="1", digest="d"),
            "window": Window(first="a", last="b", rows=500, start=start, end=end),
            "severity": severity,
            "signals": [
                Signal.model_validate({"name": name, "direction": "", "drifted": name in drifted, **signal})
                for name in ("label", "n_tokens", "<b>words")
            ],
            "report": report,
            "idempotency_key": "k",
        }
    )


def test_it_shows_the_last_drift_window(client: TestClient, tmp_path: Path) -> None:
    assert "none judged yet" in client.get("/").text
    folder = tmp_path / "log" / "reviews"
    folder.mkdir()
    write_last_window(tmp_path / "log", judged("none"))
    assert "no drift; 500 answers of version 1 until 2026-01-02 04:05 UTC" in client.get("/").text
    write_last_window(tmp_path / "log", judged("alert", "label", "<b>words", report="http://monitor:8001/a'b.html"))
    page = client.get("/").text
    assert "<span class='bad'>alert: label, &lt;b&gt;words</span>" in page
    assert "<a href='http://monitor:8001/a&#x27;b.html'>report</a>" in page
    write_last_window(tmp_path / "log", judged("notice", "n_tokens", report="/srv/reports/a.html"))
    assert "<dd>notice: n_tokens; 500" in client.get("/").text
    (folder / LAST_WINDOW).write_text("{")
    assert "cannot be read" in client.get("/").text
    assert str(tmp_path) not in client.get("/").text  # it asks for no key


def test_it_shows_the_candidates(client: TestClient, repo: Path) -> None:
    assert "canary" not in client.get("/").text
    for _ in range(2):
        make_bundle(repo, live=False)
    candidates = {"canary": Canary(version="2", weight=0.125), "shadow": "3"}
    change_serving(repo, "reviews", lambda now: Serving(live="1", **candidates))
    until(lambda: "<dt>shadow</dt><dd>version 3</dd>" in client.get("/").text)
    assert "<dt>canary</dt><dd>version 2, 12.5% of the requests</dd>" in client.get("/").text


def test_an_unproven_version_is_marked_on_the_page_and_in_the_metrics(client: TestClient, repo: Path) -> None:
    metric = 'plumbline_model_unproven{model="reviews"}'
    assert "unproven" not in client.get("/").text
    assert f"{metric} 0.0" in client.get("/metrics").text
    make_bundle(repo, seed=1, unproven=True)
    until(lambda: "<span class='bad'>unproven</span>, inconclusive, accuracy 0.900" in client.get("/").text)
    assert f"{metric} 1.0" in client.get("/metrics").text
