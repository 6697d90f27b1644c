"""What the service tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient


def value(client: TestClient, sample: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"{sample} "):
            return float(line.split()[-1])
    return 0.0


def test_requests_are_counted_by_route_and_status_and_named_for_the_only_model(client: TestClient) -> None:
    client.post("/predict", json={"inputs": ["good", "bad", "good"]})
    client.post("/predict", json={"inputs": []})
    counted = 'plumbline_requests_total{{code="{}",model="reviews",route="/predict"}}'
    assert value(client, counted.format(200)) == 1
    assert value(client, counted.format(422)) == 1
    assert value(client, 'plumbline_predictions_total{label="positive",model="reviews"}') == 2
    assert value(client, 'plumbline_input_tokens_count{model="reviews"}') == 3
    assert value(client, 'plumbline_queue_tokens{model="reviews"}') == 0


def test_unknown_paths_and_models_do_not_make_new_series(client: TestClient) -> None:
    for number in range(3):
        client.get(f"/nothing/{number}")
        client.get(f"/v2/models/unknown-{number}")
    text = client.get("/metrics").text
    assert "unknown-" not in text
    assert "/nothing/" not in text


def test_truncated_inputs_and_refused_requests_are_counted(start: Callable[..., TestClient]) -> None:
    client = start(max_body_bytes=4096)
    client.post("/predict", json={"inputs": "good " * 100})
    client.post("/predict", json={"inputs": "good " * 1000})
    assert value(client, 'plumbline_truncated_total{model="reviews"}') == 1
    assert value(client, 'plumbline_rejected_total{model="reviews",reason="body_too_large"}') == 1


def test_names_that_are_not_served_make_no_series_whatever_the_answer(client: TestClient) -> None:
    for number in range(3):
        client.get(f"/v2/models/unknown-{number}/infer")
        client.post(f"/v2/models/unknown-{number}/infer", content=b"{")
        client.post(f"/v2/repository/models/unknown-{number}/load", json=[])
    assert "unknown-" not in client.get("/metrics").text
