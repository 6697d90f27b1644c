"""The description of the interface says what the server does."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


def test_a_wrong_method_names_the_right_ones(client: TestClient) -> None:
    for path, allowed in (("/", "GET, POST"), ("/predict", "POST"), ("/livez", "GET"), ("/v2/models/reviews", "GET")):
        refused = client.delete(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert refused.json()["code"] == "method_not_allowed"


def test_what_may_be_left_out_of_a_header_is_not_null(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    (header,) = described["parameters"]
    assert (header["schema"]["type"], header["required"]) == ("integer", False)
    for value in ("null", "0", "1.5", ""):
        refused = client.post("/predict", json={"inputs": "good"}, headers={"x-request-timeout-ms": value})
        assert refused.status_code == 422
        assert "x-request-timeout-ms" in refused.json()["error"]


def test_an_empty_list_of_texts_is_described_as_refused(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
    inputs = described["content"]["application/json"]["schema"]["properties"]["inputs"]
    row = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}
    assert inputs["anyOf"][:3] == [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "items": row, "minItems": 1},
    ]
    assert [one.get("minItems") for one in inputs["anyOf"][3:]] == [None, 1]  # a pair, and a list of them
    assert client.post("/predict", json={"inputs": []}).status_code == 422


@pytest.mark.parametrize("ready", [0, "true", None])
def test_a_flag_is_a_boolean(client: TestClient, ready: object) -> None:
    assert client.post("/v2/repository/index", json={"ready": ready}).status_code == 422
    assert client.post("/v2/repository/index", json={"ready": True}).status_code == 200


FIELDS = {"inputs", "parameters", "options", "truncate", "truncation_direction", "raw_scores"}


@pytest.mark.parametrize(
    ("path", "fields", "answer"),
    [
        ("/predict", FIELDS, None),
        ("/", FIELDS, "array"),
        ("/v2/models/{name}/infer", {"id", "parameters", "inputs", "outputs"}, None),
    ],
)
def test_bodies_and_the_deadline_are_described_as_they_are_read(
    client: TestClient, path: str, fields: set[str], answer: str | None
) -> None:
    described = client.get("/openapi.json").json()["paths"][path]["post"]
    body = described["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == fields
    assert "$ref" not in str(body)
    (deadline,) = [one for one in described["parameters"] if one["in"] == "header"]
    assert deadline["name"] == "x-request-timeout-ms"
    assert (deadline["schema"]["minimum"], deadline["schema"]["maximum"]) == (1, 86_400_000)
    found = described["responses"]["200"]["content"]["application/json"]["schema"]
    kinds = {one.get("type") for one in found.get("anyOf", [])}
    assert found.get("type") == answer or kinds == {answer}
    assert "422" in described["responses"]


@pytest.mark.parametrize("given", ["86400001", "9" * 400, "1.5", "²", " "])
def test_a_deadline_outside_what_is_described_is_refused(client: TestClient, given: str) -> None:
    headers = {"x-request-timeout-ms": given.encode()}
    response = client.post("/predict", json={"inputs": "good"}, headers=headers)
    assert response.status_code == 422
    assert "x-request-timeout-ms" in response.json()["error"]


@pytest.mark.parametrize("content", [b"", b"[" * 10_000, b'{"inputs": ' + b"9" * 5000 + b"}", b'"\xff"'])
def test_what_json_cannot_hold_is_malformed(client: TestClient, content: bytes) -> None:
    response = client.post("/predict", content=content)
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


@pytest.mark.parametrize(("count", "status"), [(True, 422), ("1", 422), (1.5, 422), (1, 200), (1.0, 200)])
def test_a_whole_number_is_what_json_schema_calls_one(client: TestClient, count: object, status: int) -> None:
    answer = client.post("/predict", json={"inputs": "good", "parameters": {"top_k": count}})
    assert answer.status_code == status
    tensor = {"name": "text", "datatype": "BYTES", "shape": [count], "data": ["good"]}
    assert client.post("/v2/models/reviews/infer", json={"inputs": [tensor]}).status_code == status
