"""The status page."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest
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
    assert "median time of the last 4 answers" in page.text
    assert "accuracy measured at export" in page.text
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
    assert '<span class="badge good">no drift</span>' in client.get("/").text
    assert "no drift; 500 answers of version 1 until 2026-01-02 04:05 UTC" in client.get("/").text
    write_last_window(tmp_path / "log", judged("critical", "label", "<b>words", report="http://monitor:8001/a'b.html"))
    page = client.get("/").text
    assert '<span class="badge bad">critical</span>' in page
    assert "critical: label, &lt;b&gt;words" in page
    assert '<a href="http://monitor:8001/a&#x27;b.html">report</a>' in page
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
    until(lambda: '<span class="badge warn">unproven</span>' in client.get("/").text)
    assert "inconclusive: " in client.get("/").text
    assert f"{metric} 1.0" in client.get("/metrics").text


class TestTry:
    FORM: ClassVar = {"content-type": "application/x-www-form-urlencoded"}

    def test_a_text_can_be_tried_without_scripts(self, client: TestClient) -> None:
        page = client.get("/").text
        assert '<form method="post" action="try"' in page
        answer = client.post("/try", content="text=a+good+film+%3Cb%3E&model=reviews", headers=self.FORM).text
        assert "a good film &lt;b&gt;" in answer
        assert "positive" in answer[answer.index("<blockquote>") :]
        assert "<b>" not in answer
        assert 'http-equiv="refresh"' not in answer  # which would take the answer away

    @pytest.mark.parametrize("form", ["", "text=a", "model=m", "text=a&text=b", "text=a&model=m&more=1", "\xff"])
    def test_another_form_is_refused(self, client: TestClient, form: str) -> None:
        assert client.post("/try", content=form.encode("latin-1"), headers=self.FORM).status_code == 422

    def test_what_is_wrong_is_said_on_the_page(self, client: TestClient) -> None:
        assert client.post("/try", content="text=a&model=nobody", headers=self.FORM).status_code == 200

    def test_a_page_of_another_site_cannot_use_it(self, client: TestClient) -> None:
        headers = {**self.FORM, "origin": "https://evil.example"}
        assert client.post("/try", content="text=a&model=reviews", headers=headers).status_code == 403

    def test_with_keys_there_is_no_form_and_no_card(self, start: Callable[..., TestClient]) -> None:
        client = start(api_keys="0" * 64)
        assert "<form" not in client.get("/").text
        assert "/report" not in client.get("/").text
        assert client.post("/try", content="text=a&model=reviews", headers=self.FORM).status_code == 401
        assert client.get("/models/reviews/report").status_code == 401


def test_the_card_of_the_live_version_is_served(client: TestClient, repo: Path) -> None:
    assert client.get("/models/reviews/report").status_code == 404  # made by hand, without one
    assert client.get("/models/nobody/report").status_code == 404
    (repo / "reviews" / "1" / "report.html").write_text("<h1>Report</h1>")
    assert client.get("/models/reviews/report").text == "<h1>Report</h1>"
    assert 'href="models/reviews/report"' in client.get("/").text


def test_the_monitor_is_linked_where_it_is_known(start: Callable[..., TestClient]) -> None:
    assert 'href="https://drift.example.com/"' in start(monitor_url="https://drift.example.com/").get("/").text


def test_the_interface_needs_no_script_and_no_network(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert not re.search(r'<script|src=|href="(?!#|data:|\.|openapi|metrics)', page.text)
    assert "x-request-timeout-ms" in page.text
