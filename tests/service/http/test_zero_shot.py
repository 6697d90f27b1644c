"""Zero-shot classification by the formulas of transformers' pipeline, of what /predict gives the same pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests import fakes
from tests.fakes import make_bundle

LABELS = ("entailment", "neutral", "contradiction")
PATH = "/models/nli/zero-shot-classification"


@pytest.fixture
def client(tmp_path: Path, start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    words = {"entailment": ("good", "great"), "neutral": ("okay", "so"), "contradiction": ("bad", "awful")}
    monkeypatch.setattr(fakes, "WORDS", words)
    make_bundle(tmp_path / "models", "nli", labels=LABELS, paired=True)
    return start()


def logits(client: TestClient, text: str, label: str) -> list[float]:
    """What /predict gives the pair that the pipeline's documentation describes."""
    body = {"inputs": [[text, f"This example is {label}."]], "raw_scores": True}
    (row,) = client.post("/models/nli/predict", json=body).json()
    given = {one["label"]: one["score"] for one in row}
    return [given[one] for one in LABELS]


CANDIDATES = ["good", "bad", "so", "film"]


def test_one_of_several_is_a_softmax_of_their_entailment(client: TestClient) -> None:
    rows = client.post(PATH, json={"inputs": "the film", "parameters": {"candidate_labels": CANDIDATES}}).json()
    entailed = np.array([logits(client, "the film", label)[0] for label in CANDIDATES])
    expected = np.exp(entailed) / np.exp(entailed).sum()
    assert {one["label"]: one["score"] for one in rows} == pytest.approx(dict(zip(CANDIDATES, expected, strict=True)))
    assert rows[0]["label"] == "good"
    assert [one["score"] for one in rows] == sorted((one["score"] for one in rows), reverse=True)


def test_each_by_itself_is_entailment_against_contradiction(client: TestClient) -> None:
    parameters = {"candidate_labels": CANDIDATES, "multi_label": True}
    (rows,) = client.post(PATH, json={"inputs": ["the film"], "parameters": parameters}).json()
    for one in rows:
        entailment, _, contradiction = logits(client, "the film", one["label"])
        assert one["score"] == pytest.approx(1 / (1 + np.exp(contradiction - entailment)), abs=1e-5)


def test_a_template_of_ones_own(client: TestClient) -> None:
    parameters = {"candidate_labels": ["good", "bad"], "hypothesis_template": "{} !"}
    rows = client.post(PATH, json={"inputs": "the film", "parameters": parameters}).json()
    assert rows[0]["label"] == "good"


@pytest.mark.parametrize(
    ("path", "parameters", "says"),
    [
        (PATH, {"candidate_labels": []}, "candidate_labels"),
        (PATH, {"candidate_labels": ["a"], "hypothesis_template": "nothing"}, "hypothesis_template"),
        ("/models/reviews/zero-shot-classification", {"candidate_labels": ["a"]}, "natural language inference"),
        ("/models/nobody/zero-shot-classification", {"candidate_labels": ["a"]}, "no model 'nobody'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    client: TestClient, path: str, parameters: dict[str, object], says: str
) -> None:
    answer = client.post(path, json={"inputs": "the film", "parameters": parameters})
    assert answer.status_code in (404, 409, 422)
    assert says in answer.json()["error"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/score"])
def test_a_classifier_ranks_nothing(client: TestClient, path: str) -> None:
    bodies = {
        "/rerank": {"query": "a", "texts": ["b"]},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
        "/score": {"text_1": "a", "text_2": "b"},
    }
    answer = client.post(path, json=bodies[path])
    assert answer.status_code == 409
    assert "only models that give pairs of texts a score can rank" in answer.json()["error"]
