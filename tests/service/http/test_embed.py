"""A model that gives vectors, by every protocol."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.contract.bundle import open_bundle
from service.engine import Engine
from service.tasks.embeddings import LABEL, Embeddings
from service.tasks.tokenizer import TextTokenizer
from tests.fakes import WIDTH, make_bundle

TEXTS = ["the good film", "awful !", "🙂 שלום"]
RAW = 8  # of the fake model's outputs


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    make_bundle(root, labels=(LABEL,), task=Embeddings("mean", True, WIDTH))
    return root


@pytest.fixture
def expected(repo: Path) -> np.ndarray:
    """What the engine alone gives, of length 1."""
    bundle = open_bundle(repo / "reviews" / "1")
    engine = Engine(bundle.file("model.int8.onnx"), device="cpu", threads=1, max_length=16)
    found = engine.run(TextTokenizer(bundle.file("tokenizer.json"), 16)(TEXTS)).embedding
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_text_embeddings_inference(client: TestClient, expected: np.ndarray) -> None:
    np.testing.assert_allclose(client.post("/embed", json={"inputs": TEXTS}).json(), expected, atol=1e-5)
    assert np.shape(client.post("/embed", json={"inputs": TEXTS[0]}).json()) == (1, WIDTH)
    raw = client.post("/models/reviews/embed", json={"inputs": TEXTS, "normalize": False}).json()
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected, atol=1e-5)
    info = client.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}


def test_the_first_dimensions_are_of_length_one_again(client: TestClient, expected: np.ndarray) -> None:
    found = np.array(client.post("/embed", json={"inputs": TEXTS, "dimensions": 3}).json())
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cut = expected[:, :3]
    np.testing.assert_allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    assert client.post("/embed", json={"inputs": "a", "dimensions": WIDTH + 1}).status_code == 409


def test_openai(client: TestClient, expected: np.ndarray) -> None:
    answer = client.post("/v1/embeddings", json={"input": TEXTS, "model": "reviews", "user": "me"}).json()
    assert (answer["object"], answer["model"]) == ("list", "reviews")
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected, atol=1e-5)
    assert answer["usage"] == {"prompt_tokens": 13, "total_tokens": 13}
    coded = client.post("/v1/embeddings", json={"input": TEXTS[0], "encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_allclose(decoded, expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": [1, 2]}, 422, "token ids belong to another tokenizer"),
        ({"input": []}, 422, "text"),
        ({"input": "a", "model": "gpt"}, 404, "no model 'gpt'"),
        ({"input": "a", "dimensions": 0}, 422, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, 422, "encoding_format"),
    ],
)
def test_what_openai_clients_may_get_wrong(client: TestClient, body: dict[str, Any], status: int, said: str) -> None:
    answer = client.post("/v1/embeddings", json=body)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


def test_kserve_and_open_inference(client: TestClient, expected: np.ndarray) -> None:
    first = client.post("/v1/models/reviews:predict", json={"instances": TEXTS}).json()["predictions"]
    np.testing.assert_allclose(first, expected, atol=1e-5)
    body: dict[str, Any] = {"inputs": [{"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}]}
    described = client.get("/v2/models/reviews").json()["outputs"]
    outputs = client.post("/v2/models/reviews/infer", json=body).json()["outputs"]
    assert [(one["name"], one["shape"][1:]) for one in described] == [("embedding", [WIDTH]), ("id", [])]
    np.testing.assert_allclose(np.reshape(outputs[0]["data"], outputs[0]["shape"]), expected, atol=1e-5)
    body["outputs"] = [{"name": "label"}]
    assert client.post("/v2/models/reviews/infer", json=body).status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": "a"}),
        ("/", {"inputs": "a"}),
        ("/invocations", {"inputs": "a"}),
        ("/predict", {"inputs": {"text": "a", "text_pair": "b"}}),
        ("/rerank", {"query": "a", "texts": ["b"]}),
        ("/zero-shot-classification", {"inputs": "a", "parameters": {"candidate_labels": ["b"]}}),
    ],
)
def test_what_wants_a_name_is_a_conflict(client: TestClient, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 409
    assert answer.json()["code"] == "contradiction"


def test_a_classifier_gives_no_vectors(start: Callable[..., TestClient], repo: Path) -> None:
    make_bundle(repo, "other")
    client = start()
    for path, body in (("/models/other/embed", {"inputs": "a"}), ("/v1/embeddings", {"input": "a", "model": "other"})):
        answer = client.post(path, json=body)
        assert (answer.status_code, "single-label text classifier" in answer.json()["error"]) == (409, True)


def test_the_log_has_the_projection_and_no_answer(start: Callable[..., TestClient], tmp_path: Path) -> None:
    with start() as client:
        client.post("/embed", json={"inputs": TEXTS})
        identifier = client.post(
            "/v2/models/reviews/infer",
            json={"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
        ).json()["outputs"][1]["data"][0]
        told = client.post("/feedback", json={"id": identifier, "label": "x"})
        assert (told.status_code, "nobody can tell" in told.json()["error"]) == (409, True)
        form = {"content-type": "application/x-www-form-urlencoded", "origin": "http://localhost"}
        assert f"{WIDTH} numbers:" in client.post("/try", content="model=reviews&text=a", headers=form).text
    (segment,) = (tmp_path / "log" / "reviews").glob("date=*/hour=*/*.parquet")
    rows = pq.read_table(segment, partitioning=None).to_pylist()
    assert [(row["label"], row["probs"], len(row["embedding"])) for row in rows] == [("", [], 32)] * 5
    assert [row["text"] for row in rows[:3]] == TEXTS
