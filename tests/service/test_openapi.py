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
    inputs = client.get("/openapi.json").json()["components"]["schemas"]["PredictRequest"]["properties"]["inputs"]
    assert inputs["anyOf"] == [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    assert client.post("/predict", json={"inputs": []}).status_code == 422


@pytest.mark.parametrize("ready", [0, "true", None])
def test_a_flag_is_a_boolean(client: TestClient, ready: object) -> None:
    assert client.post("/v2/repository/index", json={"ready": ready}).status_code == 422
    assert client.post("/v2/repository/index", json={"ready": True}).status_code == 200
