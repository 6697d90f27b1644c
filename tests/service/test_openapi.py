"""What OpenAPI says of the routes that read their bodies by themselves."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize(
    ("path", "fields", "answer"),
    [
        ("/predict", {"inputs", "parameters"}, None),
        ("/", {"inputs", "parameters"}, "array"),
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
    assert found.get("type") == answer
    assert "422" in described["responses"]


@pytest.mark.parametrize("given", ["86400001", "9" * 400, "1.5", "²", " "])
def test_a_deadline_outside_what_is_described_is_refused(client: TestClient, given: str) -> None:
    headers = {"x-request-timeout-ms": given.encode()}
    response = client.post("/predict", json={"inputs": "good"}, headers=headers)
    assert response.status_code == 422
    assert "x-request-timeout-ms" in response.json()["error"]


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"inputs": ' + b"9" * 5000 + b"}", b'"\xff"'])
def test_what_json_cannot_hold_is_malformed(client: TestClient, content: bytes) -> None:
    response = client.post("/predict", content=content)
    assert (response.status_code, response.json()["code"]) == (400, "malformed")
