"""Open Inference Protocol v2 over JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

INFER = "/v2/models/reviews/infer"


def _text(*texts: str, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "text", "shape": shape or [len(texts)], "datatype": "BYTES", "data": list(texts)}


def test_metadata_describes_what_infer_takes_and_gives(client: TestClient) -> None:
    metadata = client.get("/v2/models/reviews").json()
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["parameters"]["labels"] == ["negative", "positive"]
    answer = client.post(INFER, json={"inputs": [_text("good")]}).json()
    described = {one["name"]: (one["datatype"], len(one["shape"])) for one in metadata["outputs"]}
    assert {one["name"]: (one["datatype"], len(one["shape"])) for one in answer["outputs"]} == described


def test_infer_answers_a_batch_and_repeats_the_request_id(client: TestClient) -> None:
    answer = client.post(INFER, json={"id": "r1", "inputs": [_text("good", "bad")]}).json()
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("reviews", "1", "r1")
    assert outputs["label"]["data"] == ["positive", "negative"]
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert sum(outputs["probabilities"]["data"]) == pytest.approx(2)


def test_a_column_of_texts_is_taken_flat_or_nested(client: TestClient) -> None:
    flat = client.post(INFER, json={"inputs": [_text("good", "bad", shape=[2, 1])]}).json()
    nested = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": [["good"], ["bad"]]}
    assert client.post(INFER, json={"inputs": [nested]}).json()["outputs"][0] == flat["outputs"][0]


def test_only_the_requested_outputs_come_back(client: TestClient) -> None:
    answer = client.post(INFER, json={"inputs": [_text("good")], "outputs": [{"name": "score"}]}).json()
    assert [one["name"] for one in answer["outputs"]] == ["score"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": [_text("a", shape=[2])]}, "shape"),
        ({"inputs": [_text("a") | {"name": "txt"}]}, "text"),
        ({"inputs": [_text("a") | {"datatype": "FP32"}]}, "BYTES"),
        ({"inputs": [_text("a") | {"data": [1]}]}, "strings"),
        ({"inputs": [_text("a")], "outputs": [{"name": "logit"}]}, "logit"),
    ],
)
def test_an_invalid_request_says_what_is_wrong(client: TestClient, change: dict[str, Any], named: str) -> None:
    response = client.post(INFER, json=change)
    assert response.status_code == 422
    assert named in response.json()["error"]


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/reviews/versions/9", "/v2/models/other/ready"])
def test_an_unknown_model_or_version_is_a_404(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] == "unknown_model"


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/reviews/versions/1/ready").json()["ready"] is True
    assert client.get("/v2").json()["name"] == "plumbline"


def test_several_models_are_told_apart_by_name(start: Callable[..., TestClient], repo: Any) -> None:
    from tests.fakes import make_bundle

    make_bundle(repo, "other", labels=("neutral", "positive"))
    client = start()
    while client.get("/v2/models/other/ready").status_code != 200:
        pass
    assert client.post("/predict", json={"inputs": "okay"}).status_code == 422
    answer = client.post("/v2/models/other/infer", json={"inputs": [_text("okay")]}).json()
    assert answer["outputs"][0]["data"] == ["neutral"]
