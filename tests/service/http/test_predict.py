"""POST /predict."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from starlette.testclient import TestClient

from service.engine import Engine, Outputs
from service.models.predictor import Predictor
from service.tasks import MULTI_LABEL
from service.tasks.tokenizer import CHARACTERS_PER_TOKEN, Tokens
from tests.fakes import make_bundle
from tests.processes import until

TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["bad"]}


def test_a_text_gives_its_labels_the_most_probable_first(client: TestClient) -> None:
    answer, other = client.post("/predict", json={"inputs": "a great film"}).json()
    assert (answer["label"], other["label"]) == ("positive", "negative")
    assert answer["score"] + other["score"] == pytest.approx(1)
    assert 0.5 < answer["score"] <= 1
    assert UUID(answer["id"]).version == 7


def test_a_list_of_texts_is_a_batch_and_never_a_pair(client: TestClient) -> None:
    answers = client.post("/predict", json={"inputs": ["good", "bad", "good"]}).json()
    assert [rows[0]["label"] for rows in answers] == ["positive", "negative", "positive"]


def test_top_k_ranks_the_labels(client: TestClient) -> None:
    rows = client.post("/predict", json={"inputs": "awful", "parameters": {"top_k": 5}}).json()
    assert [row["label"] for row in rows] == ["negative", "positive"]
    assert sum(row["score"] for row in rows) == pytest.approx(1)
    assert len({row["id"] for row in rows}) == 1


def test_headers_say_who_answered_and_where_the_time_went(client: TestClient) -> None:
    headers = client.post("/predict", json={"inputs": "good"}, headers={"x-request-id": "abc-1"}).headers
    assert headers["x-request-id"] == "abc-1"
    assert headers["x-model-version"] == "1"
    assert len(headers["x-model-digest"]) == 64
    assert all(float(headers[f"x-{part}-time"]) >= 0 for part in ("queue", "tokenization", "inference"))


@pytest.mark.parametrize("given", ["", "two words", "x" * 200])
def test_a_request_id_that_could_break_a_log_is_replaced(client: TestClient, given: str) -> None:
    made = client.get("/livez", headers={"x-request-id": given}).headers["x-request-id"]
    assert made != given
    assert UUID(made)


@pytest.mark.parametrize(
    "text", ["", " ", "😀😀", "שלום عالم", "\u0000", "a\u0301", "good " * 200_000, "x" * 1_000_000]
)
def test_every_text_is_answered(client: TestClient, text: str) -> None:
    response = client.post("/predict", json={"inputs": text})
    assert response.status_code == 200
    assert response.json()[0]["label"] in {"positive", "negative"}


def test_malformed_json_is_a_400_that_says_so(client: TestClient) -> None:
    response = client.post("/predict", content=b'{"inputs": "go', headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["code"] == "malformed"
    assert "JSON" in response.json()["error"]


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b'{"inputs": "\xe9"}', b"\x80"])
def test_a_body_that_is_not_utf8_is_the_clients_fault(client: TestClient, content: bytes) -> None:
    response = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert response.status_code in {400, 422}
    assert response.json()["code"] in {"malformed", "invalid_request"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "inputs"),
        ({"inputs": 3}, "inputs"),
        ({"inputs": ["a", None]}, "inputs"),
        ({"inputs": []}, "no text"),
        ({"inputs": "a", "parameters": {"top_k": 0}}, "top_k"),
        ({"inputs": "a", "parametres": {}}, "parametres"),
        ([], "the body"),
    ],
)
def test_an_invalid_request_is_a_422_that_names_the_field(client: TestClient, body: object, named: str) -> None:
    response = client.post("/predict", json=body)
    assert response.status_code == 422
    assert response.json()["code"] == "invalid_request"
    assert named in response.json()["error"]


def test_a_lone_surrogate_is_a_400(client: TestClient) -> None:
    response = client.post("/predict", content=b'{"inputs": "\\ud800"}')
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


def test_a_body_over_the_limit_is_a_413(start: Callable[..., TestClient]) -> None:
    client = start(max_body_bytes=2048)
    response = client.post("/predict", json={"inputs": "x" * 3000})
    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"
    assert client.post("/predict", json={"inputs": "x" * 1000}).status_code == 200


def test_a_streamed_body_over_the_limit_is_a_413_too(start: Callable[..., TestClient]) -> None:
    client = start(max_body_bytes=2048)
    response = client.post("/predict", content=(b"x" * 500 for _ in range(10)))
    assert response.status_code == 413


def test_too_many_texts_are_a_422_that_names_the_limit(start: Callable[..., TestClient]) -> None:
    response = start(max_items=2).post("/predict", json={"inputs": ["a", "b", "c"]})
    assert response.status_code == 422
    assert "limit is 2" in response.json()["error"]


def test_an_unknown_path_and_a_wrong_method_have_the_same_error_shape(client: TestClient) -> None:
    assert client.get("/nothing").json()["code"] == "not_found"
    assert client.get("/predict").json()["code"] == "method_not_allowed"


def test_a_multi_label_model_scores_each_label_by_itself(start: Callable[..., TestClient], repo: Path) -> None:
    make_bundle(repo, "topics", labels=("negative", "positive", "neutral"), task=MULTI_LABEL)
    client = start(model="topics")
    until(lambda: client.get("/v2/models/topics/ready").status_code == 200)
    rows = client.post("/predict", json={"inputs": "good awful", "parameters": {"top_k": 3}}).json()
    scores = {row["label"]: row["score"] for row in rows}
    assert scores["positive"] > 0.5
    assert scores["negative"] > 0.5
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good awful"]}]}
    labels = client.post("/v2/models/topics/infer", json=body).json()["outputs"][0]["data"]
    assert set(labels[0].split("|")) >= {"negative", "positive"}
    counted = client.get("/metrics").text
    assert 'plumbline_predictions_total{label="positive",model="topics"} 2.0' in counted


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", {"inputs": "bad"}, {"x-request-timeout-ms": "50"}),
        ("/v2/models/reviews/infer", {"inputs": [TENSOR], "parameters": {"timeout": 50_000}}, {}),
    ],
)
def test_a_deadline_that_passes_while_waiting_is_a_504(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: object, headers: dict[str, str]
) -> None:
    real, running, gate = Engine.run, threading.Event(), threading.Event()

    def held(self: Engine, batch: Sequence[Tokens]) -> Outputs:
        running.set()
        assert gate.wait(30)
        return real(self, batch)

    monkeypatch.setattr(Engine, "run", held)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/predict", json={"inputs": "good"})
        assert running.wait(10)
        late = client.post(path, json=body, headers=headers)
        gate.set()
        assert first.result().status_code == 200
    assert (late.status_code, late.json()["code"]) == (504, "deadline_passed")


def test_a_text_that_the_model_fails_on_hurts_no_other_in_its_batch(
    start: Callable[..., TestClient], repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bundle(repo, missing=1)  # there is a token "so", and the model has no vector for it
    monkeypatch.setattr("service.http.app.shares_core", lambda _: False)  # a thread runs the batches, and can be held
    client = start()
    real, gate, batches = Engine.run, threading.Event(), list[int]()

    def held(self: Engine, batch: Sequence[Tokens]) -> Outputs:
        assert gate.wait(30)
        batches.append(len(batch))
        return real(self, batch)

    monkeypatch.setattr(Engine, "run", held)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/predict", json={"inputs": "good"})
        until(lambda: queued(client) == 8)
        others = [pool.submit(client.post, "/predict", json={"inputs": text}) for text in ("bad", "so", "fine")]
        until(lambda: queued(client) == 32)
        gate.set()
        answers = [one.result() for one in (first, *others)]
    assert batches == [1, 3, 1, 1, 1]
    assert [one.status_code for one in answers] == [200, 200, 500, 200]
    assert [answers[row].json()[0]["label"] for row in (0, 1, 3)] == ["positive", "negative", "positive"]
    assert answers[2].json()["code"] == "engine"


def queued(client: TestClient) -> float:
    """Padded tokens that wait or run."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("plumbline_queue_tokens{"))


@pytest.mark.parametrize("given", ["0", "-1", "soon"])
def test_a_deadline_that_is_no_time_is_a_422(client: TestClient, given: str) -> None:
    response = client.post("/predict", json={"inputs": "good"}, headers={"x-request-timeout-ms": given})
    assert response.status_code == 422
    assert "x-request-timeout-ms" in response.json()["error"]


def test_many_wrong_elements_cost_one_error(client: TestClient) -> None:
    response = client.post("/predict", json={"inputs": [1] * 10_000})
    assert response.status_code == 422
    assert response.json()["error"] == "inputs: Value error, element 0 is not a string."


def test_a_text_far_beyond_the_model_is_cut_before_it_is_tokenized(client: TestClient) -> None:
    length = len("good ") * 16 * CHARACTERS_PER_TOKEN
    short, long = (
        client.post("/predict", json={"inputs": "good " * count}).json()[0] for count in (length // 5, 400_000)
    )
    assert short["score"] == long["score"]


def test_a_client_that_closes_before_its_body_is_whole_is_not_answered(url: str) -> None:
    host, _, port = url.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v2/repository/models/reviews/unload HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n"
        )
    time.sleep(0.3)
    assert httpx.get(f"http://{url}/readyz").status_code == 200
    assert httpx.get(f"http://{url}/v2/models/reviews/ready").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": "good"}),
        (
            "/v2/models/reviews/infer",
            {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]},
        ),
    ],
)
def test_a_fault_nobody_expects_is_a_500_with_an_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object]
) -> None:
    monkeypatch.setattr(Predictor, "predict", lambda *_: 1 / 0)
    response = client.post(path, json=body, headers={"x-request-id": "r1"})
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.headers["x-request-id"] == "r1"
