"""A full queue refuses predictions before their bodies are read, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from service.batching.packing import BatchCost
from service.engine import Engine, Outputs
from service.models import loaded as live
from service.tasks.tokenizer import Tokens
from tests.processes import until
from tests.service.telemetry.test_metrics import value


@pytest.fixture
def full(start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server whose engine is held and whose queue is full."""
    client = start(queue_tokens=16)
    real, running, gate = Engine.run, threading.Event(), threading.Event()

    def held(self: Engine, batch: Sequence[Tokens]) -> Outputs:
        running.set()
        assert gate.wait(30)
        return real(self, batch)

    monkeypatch.setattr(Engine, "run", held)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/predict", json={"inputs": "good " * 30})
        assert running.wait(10)
        try:
            yield client
        finally:
            gate.set()
        assert first.result().status_code == 200


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "/predict"),
        ("/", "/"),
        ("/v2/models/reviews/infer", "/v2/models/{name}/infer"),
        ("/v2/models/reviews/versions/1/infer", "/v2/models/{name}/versions/{version}/infer"),
    ],
)
def test_a_prediction_that_finds_no_room_is_refused_unread(full: TestClient, path: str, route: str) -> None:
    refused = full.post(path, content=b"this is not even JSON", headers={"x-request-id": "r1"})
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-request-id"] == "r1"
    assert value(full, f'plumbline_requests_total{{code="429",model="reviews",route="{route}"}}') == 1
    assert value(full, 'plumbline_rejected_total{model="reviews",reason="overloaded"}') == 1


def test_what_needs_no_engine_is_answered_while_the_queue_is_full(full: TestClient) -> None:
    assert full.get("/readyz").status_code == 200
    assert full.get("/").status_code == 200
    assert full.get("/v2/models/reviews").status_code == 200
    assert full.post("/v2/models/unknown/infer", json={}).status_code == 404


def test_an_empty_queue_takes_more_than_it_may_hold(start: Callable[..., TestClient]) -> None:
    assert start(queue_tokens=1).post("/predict", json={"inputs": ["good " * 30] * 3}).status_code == 200


@pytest.mark.parametrize(("per_second", "queue"), [(50_000.0, 50_000), (1.0, 16)])
def test_without_a_setting_the_queue_holds_a_seconds_work(
    start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, per_second: float, queue: int
) -> None:
    monkeypatch.setattr(live, "measure", lambda *_: BatchCost(overhead=4.0, budget=512, per_second=per_second))
    model = start().app.state.predictor.models["reviews"]  # type: ignore[attr-defined]
    assert model.batcher.queue_tokens == queue


def test_a_few_clients_with_many_long_texts_are_not_refused_on_a_slow_core(
    start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four requests of 32 full texts find room whatever the core does in a second; the fifth does not."""
    monkeypatch.setattr(live, "measure", lambda *_: BatchCost(overhead=4.0, budget=64, per_second=100.0))
    client = start(max_items=32)
    real, running, gate = Engine.run, threading.Event(), threading.Event()

    def held(self: Engine, batch: Sequence[Tokens]) -> Outputs:
        running.set()
        assert gate.wait(30)
        return real(self, batch)

    monkeypatch.setattr(Engine, "run", held)
    body = {"inputs": ["good film " * 100] * 32}
    model = client.app.state.predictor.models["reviews"]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(client.post, "/predict", json=body) for _ in range(4)]
        try:
            until(lambda: model.batcher.tokens == 4 * 32 * 16)
            assert client.post("/predict", json=body).status_code == 429
        finally:
            gate.set()
        assert [one.result().status_code for one in answers] == [200] * 4
