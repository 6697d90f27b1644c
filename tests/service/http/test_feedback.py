"""POST /feedback: a true label finds its prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.contract.record import new_id
from service.contract.segments import read_segment, seal_orphans, sealed_segments
from service.http.app import create_app
from service.settings import ServiceSettings
from service.tasks import MULTI_LABEL
from tests.fakes import make_bundle
from tests.processes import until


def test_answers_and_labels_are_logged_and_join_by_id(repo: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with TestClient(create_app(ServiceSettings(repo=repo, log=log, threads=1)), base_url="http://localhost") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        answer, _ = client.post("/predict", json={"inputs": "a good film"}).json()
        response = client.post("/feedback", json={"id": answer["id"], "label": "negative", "source": "review"})
        assert response.status_code == 202
        assert 'plumbline_feedback_total{correct="false",model="reviews"} 1.0' in client.get("/metrics").text
    seal_orphans(log)
    (prediction,) = [
        row
        for path in sealed_segments(log, "reviews", "predictions")
        for row in read_segment(path, "predictions").to_pylist()
    ]
    (label,) = [
        row
        for path in sealed_segments(log, "reviews", "feedback")
        for row in read_segment(path, "feedback").to_pylist()
    ]
    assert prediction["id"] == label["id"] == answer["id"]
    assert (prediction["text"], prediction["label"], label["label"]) == ("a good film", "positive", "negative")
    assert prediction["confidence"] == pytest.approx(answer["score"], abs=1e-6)
    assert len(prediction["embedding"]) == 32
    assert prediction["n_tokens"] == 5
    assert prediction["digest"] == response.headers.get("x-model-digest", prediction["digest"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "no", "label": "a"},
        {"id": "x" * 36, "label": "a"},
        {"id": new_id(), "label": " "},
        {"id": new_id(), "label": "\x1c\x85"},
        {"id": new_id(), "label": "a" * 1001},
        {"id": new_id(), "label": 1},
        {"id": new_id(), "label": ["a", " "]},
        {"id": new_id(), "label": ["a|b"]},
        {"id": new_id(), "label": [1]},
    ],
)
def test_invalid_feedback_is_a_422(client: TestClient, body: object) -> None:
    assert client.post("/feedback", json=body).status_code == 422


@pytest.mark.parametrize(
    ("label", "kept", "right"),
    [
        ([" positive ", "negative", "positive"], "positive|negative", "true"),
        ("negative | positive", "negative | positive", "true"),
        (["positive"], "positive", "false"),
        ([], "", "false"),
    ],
)
def test_several_labels_are_a_set(tmp_path: Path, label: object, kept: str, right: str) -> None:
    make_bundle(tmp_path / "models", task=MULTI_LABEL)
    settings = ServiceSettings(repo=tmp_path / "models", log=tmp_path / "log", threads=1)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        both = client.post("/predict", json={"inputs": "good awful"}).json()[0]["id"]
        assert client.post("/feedback", json={"id": both, "label": label}).status_code == 202
        assert f'plumbline_feedback_total{{correct="{right}",model="reviews"}} 1.0' in client.get("/metrics").text
    seal_orphans(tmp_path / "log")
    (segment,) = sealed_segments(tmp_path / "log", "reviews", "feedback")
    assert read_segment(segment, "feedback").column("label").to_pylist() == [kept]


def test_a_label_that_the_model_does_not_know_is_welcome(client: TestClient) -> None:
    assert client.post("/feedback", json={"id": new_id(), "label": "brand new"}).status_code == 202
    assert 'correct="unknown"' in client.get("/metrics").text


def test_without_a_log_feedback_is_refused_rather_than_lost(start: Callable[..., TestClient], repo: Path) -> None:
    with TestClient(create_app(ServiceSettings(repo=repo, threads=1)), base_url="http://localhost") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        response = client.post("/feedback", json={"id": new_id(), "label": "a"})
    assert response.status_code == 422
    assert "--log" in response.json()["error"]


def test_texts_are_redacted_unless_told_otherwise(repo: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "rules").write_text("ORDER ORD-[0-9]+")
    settings = ServiceSettings(repo=repo, log=log, threads=1, redact_rules=tmp_path / "rules")
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        client.post("/predict", json={"inputs": "good film, ORD-77, jo@example.org"})
    (row,) = [
        row
        for path in sealed_segments(log, "reviews", "predictions")
        for row in read_segment(path, "predictions").to_pylist()
    ]
    assert row["text"] == "good film, [ORDER], [EMAIL]"
