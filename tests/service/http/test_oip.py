"""Open Inference Protocol v2 over JSON."""

from __future__ import annotations

import gc
import json
import struct
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.fakes import make_bundle
from tests.processes import until

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
        ({"inputs": [_text("a"), _text("b")]}, "2 inputs"),
        ({"inputs": [_text("a") | {"datatype": "FP32"}]}, "BYTES"),
        ({"inputs": [_text("a") | {"data": [1]}]}, "strings"),
        ({"inputs": [_text("a")], "outputs": [{"name": "logit"}]}, "logit"),
    ],
)
def test_an_invalid_request_says_what_is_wrong(client: TestClient, change: dict[str, Any], named: str) -> None:
    response = client.post(INFER, json=change)
    assert response.status_code == (409 if named == "2 inputs" else 422)  # another model may take two
    assert named in response.json()["error"]


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/reviews/versions/9", "/v2/models/the_other/ready"])
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
    make_bundle(repo, "the_other", labels=("neutral", "positive"))
    client = start()
    until(lambda: client.get("/v2/models/the_other/ready").status_code == 200)
    assert client.post("/predict", json={"inputs": "okay"}).json()[0]["label"] != "neutral"  # not one of the default's
    assert client.post("/models/the_other/predict", json={"inputs": "okay"}).json()[0]["label"] == "neutral"
    answer = client.post("/v2/models/the_other/infer", json={"inputs": [_text("okay")]}).json()
    assert answer["outputs"][0]["data"] == ["neutral"]


def test_tritons_client_runs_unchanged(url: str) -> None:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(url)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("reviews", "1")
    assert client.get_server_metadata()["name"] == "plumbline"
    assert client.get_model_metadata("reviews")["inputs"][0]["datatype"] == "BYTES"
    assert client.get_model_config("reviews")["input"][0]["data_type"] == "TYPE_STRING"
    texts = np.array(["good film", "awful", "שלום 😀", ""], dtype=np.object_)
    for binary in (True, False):
        tensor = triton.InferInput("text", [len(texts)], "BYTES")
        tensor.set_data_from_numpy(texts, binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
        result = client.infer("reviews", [tensor], outputs=outputs, request_id="r7", timeout=5_000_000)
        labels = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label")]
        assert labels[:2] == ["positive", "negative"]
        assert result.as_numpy("probabilities").shape == (4, 2)
        assert result.as_numpy("probabilities").sum(axis=1) == pytest.approx(1)
        assert result.get_response()["id"] == "r7"
    mixed = triton.InferInput("text", [1], "BYTES")
    mixed.set_data_from_numpy(texts[:1])
    assert client.infer("reviews", [mixed]).as_numpy("score").dtype == np.float32
    (stats,) = client.get_inference_statistics("reviews")["model_stats"]
    assert stats["inference_count"] == 9
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert client.get_model_repository_index() == [{"name": "reviews", "version": "1", "state": "READY", "reason": ""}]
    client.unload_model("reviews")
    assert not client.is_model_ready("reviews")
    client.load_model("reviews")
    assert client.is_model_ready("reviews")
    with pytest.raises(triton.InferenceServerException, match="no model 'other'"):
        client.load_model("other")
    client.close()


async def test_tritons_asynchronous_client_runs_unchanged(url: str) -> None:
    import tritonclient.http.aio as triton

    async with triton.InferenceServerClient(url) as client:
        assert await client.is_server_ready()
        tensor = triton.InferInput("text", [2, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([["good"], ["bad"]], dtype=np.object_))
        result = await client.infer("reviews", [tensor])
        assert result.as_numpy("label").tolist() == [b"positive", b"negative"]


def element(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(
    ("data", "size", "named"),
    [
        (element(b"good")[:-1], None, "ends inside element"),
        (element(b"good") + b"\x01", None, "ends inside a length"),
        (struct.pack("<I", 2**32 - 1), None, "ends inside element"),
        (element(b"\xff"), None, "not UTF-8"),
        (element(b"good"), 3, "binary_data_size"),
        (element(b"good") * 2, None, "shape"),
    ],
)
def test_broken_binary_data_is_a_422(client: TestClient, data: bytes, size: int | None, named: str) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(data) if size is None else size}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    response = client.post(INFER, content=head + data, headers=headers)
    assert response.status_code == 422
    assert named in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "9999", "ten", "5"])
def test_a_header_length_that_does_not_fit_is_a_400(client: TestClient, length: str) -> None:
    body = json.dumps({"inputs": [_text("good")]})
    response = client.post(INFER, content=body, headers={"inference-header-content-length": length})
    assert response.status_code == 400
    assert response.json()["code"] == "malformed"


@pytest.mark.parametrize("part", ['"id": "%s"', '"parameters": {"%s": 1}', '"%s": 1'])
def test_a_lone_surrogate_anywhere_is_a_400(client: TestClient, part: str) -> None:
    body = json.dumps({"inputs": [_text("good")]})[:-1] + ", " + part % "\\ud800" + "}"
    response = client.post(INFER, content=body)
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


def test_the_index_says_why_a_version_does_not_answer(client: TestClient, repo: Path) -> None:
    make_bundle(repo, golden_shift=1.0)
    until(
        lambda: (
            "load_failures_total" in client.get("/metrics").text
            and len(client.post("/v2/repository/index").json()) == 2
            and "golden" in client.post("/v2/repository/index").json()[1]["reason"]
        )
    )
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert [entry["version"] for entry in ready] == ["1"]


def test_an_unloaded_model_stays_so_until_it_is_loaded(client: TestClient) -> None:
    assert client.post("/v2/repository/models/reviews/unload").status_code == 200
    time.sleep(0.2)
    assert client.get("/readyz").status_code == 503
    assert client.post("/predict", json={"inputs": "good"}).json()["code"] == "not_ready"
    assert client.post("/v2/repository/models/reviews/unload").status_code == 404
    assert client.post("/v2/repository/models/reviews/load").status_code == 200
    assert client.post("/predict", json={"inputs": "good"}).status_code == 200


def test_load_with_parameters_is_refused_rather_than_ignored(client: TestClient) -> None:
    response = client.post("/v2/repository/models/reviews/load", json={"parameters": {"config": "{}"}})
    assert response.status_code == 422


def test_statistics_of_all_models_have_a_route_of_their_own(client: TestClient) -> None:
    client.post(INFER, json={"inputs": [_text("good", "bad")]})
    (stats,) = client.get("/v2/models/stats").json()["model_stats"]
    assert (stats["name"], stats["inference_count"]) == ("reviews", 2)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"outputs": [{"name": "score"}] * 8}, 200),  # once
        ({"outputs": [{"name": "score"}] * 9}, 422),
        ({"parameters": {"timeout": 10**400}}, 422),
        ({"inputs": [_text("a")] * 2000}, 422),
    ],
)
def test_what_would_multiply_the_work_is_refused(client: TestClient, change: dict[str, Any], status: int) -> None:
    body = json.dumps({"inputs": [_text("a")]} | change)
    assert client.post(INFER, content=body).status_code == status


def test_a_header_length_of_thousands_of_digits_is_a_400(client: TestClient) -> None:
    headers = {"inference-header-content-length": "9" * 5000}
    assert client.post(INFER, json={"inputs": [_text("a")]}, headers=headers).status_code == 400


def test_an_unloaded_model_is_freed(client: TestClient) -> None:
    app: Any = client.app
    gone = weakref.ref(app.state.predictor.models["reviews"])
    client.post("/v2/repository/models/reviews/unload")
    until(lambda: gc.collect() and gone() is None)
