"""Answers and figures are true: of a log that fails, of bundles that cannot be served, of whom a count is about."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.contract.errors import SettingsError
from service.contract.record import new_id
from service.contract.repository import set_live
from service.http.app import create_app
from service.http.server import _check_log
from service.settings import ServiceSettings
from tests.fakes import make_bundle
from tests.processes import until

Start = Callable[..., TestClient]


def full(descriptor: int, data: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def sample(client: TestClient, name: str, **labels: str) -> float:
    client.get("/metrics")  # settles what is counted later
    return client.app.state.metrics.registry.get_sample_value(name, labels) or 0.0  # type: ignore[attr-defined]


class TestLog:
    def test_feedback_is_accepted_when_it_is_on_the_disk_and_else_refused(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        told = {"id": new_id(), "label": "positive"}
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            refused = client.post("/feedback", json=told)
            assert (refused.status_code, refused.json()["code"]) == (503, "log_failing")
            assert "No space left" in refused.json()["error"]
            assert client.get("/readyz").json()["log"] == "failing: No space left on device"
            assert "No space left" in client.get("/").text
            assert client.post("/predict", json={"inputs": "good"}).status_code == 200
        assert client.post("/feedback", json=told).json() == {
            "id": told["id"],
            "model": "reviews",
            "remembered": False,
        }
        assert "log" not in client.get("/readyz").json()
        segments = list((tmp_path / "log" / "reviews" / "feedback").rglob("*.jsonl"))
        assert told["id"].encode() in b"".join(path.read_bytes() for path in segments)  # at once, not when it is sealed

    def test_what_repeats_is_logged_once(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "service.log.recorder")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for _ in range(5):
                client.post("/feedback", json={"id": new_id(), "label": "positive"})
        assert len([line for line in caplog.messages if "were dropped" in line]) == 1
        client.post("/feedback", json={"id": new_id(), "label": "positive"})
        assert "records are written again" in caplog.messages

    def test_a_folder_that_cannot_be_written_ends_the_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _check_log(tmp_path)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(SettingsError, match="No space left on device"):
            _check_log(tmp_path)


class TestFeedbackNamesItsModel:
    def test_where_several_are_served_and_the_prediction_is_not_remembered(self, start: Start, repo: Path) -> None:
        make_bundle(repo, "the_other", labels=("neutral", "positive"))
        client = start()
        unknown = {"id": new_id(), "label": "neutral"}
        refused = client.post("/feedback", json=unknown)
        assert refused.status_code == 422
        assert "reviews, the_other" in refused.json()["error"]
        assert client.post("/feedback", json={**unknown, "model": "the_other"}).json()["model"] == "the_other"
        assert client.post("/feedback", json={**unknown, "model": "nobody"}).status_code == 404

    def test_what_is_remembered_is_filed_under_who_answered(self, start: Start, repo: Path) -> None:
        make_bundle(repo, "the_other", labels=("neutral", "positive"))
        client = start()
        known = client.post("/models/the_other/predict", json={"inputs": "okay"}).json()[0]["id"]
        accepted = client.post("/feedback", json={"id": known, "label": "neutral"}).json()
        assert (accepted["model"], accepted["remembered"]) == ("the_other", True)
        wrong = client.post("/feedback", json={"id": known, "label": "neutral", "model": "reviews"})
        assert wrong.status_code == 409


class TestStart:
    def damage(self, repo: Path, name: str, version: str) -> None:
        (repo / name / version / "tokenizer.json").unlink()

    def test_one_bad_bundle_does_not_keep_the_others_from_being_served(self, start: Start, repo: Path) -> None:
        make_bundle(repo, "the_other")
        self.damage(repo, "the_other", "1")
        client = start()
        ready = client.get("/readyz").json()
        assert ready["models"] == {"reviews": "1"}
        assert ready["refused"] == {"the_other": "version 1 cannot be made live; the log says why"}
        assert client.post("/predict", json={"inputs": "good"}).status_code == 200
        assert client.post("/models/the_other/predict", json={"inputs": "good"}).status_code == 404
        assert sample(client, "plumbline_model_load_failures_total", model="the_other") == 1

    def test_the_version_before_answers_instead_loudly(
        self, start: Start, repo: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_bundle(repo, live=False, seed=2)
        set_live(repo, "reviews", "2")
        self.damage(repo, "reviews", "2")
        client = start()
        answer = client.post("/predict", json={"inputs": "good"})
        assert answer.headers["x-model-version"] == "1"
        ready = client.get("/readyz").json()
        assert ready["models"] == {"reviews": "1"}
        assert "version 2" in ready["refused"]["reviews"]
        assert "version 1 of reviews answers instead" in caplog.text
        failures = sample(client, "plumbline_model_load_failures_total", model="reviews")
        assert failures == 1  # not once at every look
        make_bundle(repo, live=False, seed=3)
        set_live(repo, "reviews", "3")
        until(lambda: client.get("/readyz").json().get("models") == {"reviews": "3"})
        assert "refused" not in client.get("/readyz").json()

    def test_with_nothing_to_serve_it_ends(self, repo: Path) -> None:
        self.damage(repo, "reviews", "1")
        failures: list[Exception] = []
        app = create_app(ServiceSettings(repo=repo, threads=1), on_failure=failures.append)
        with TestClient(app):
            until(lambda: failures)
        assert "tokenizer.json" in str(failures[0])

    def test_the_default_model_missing_is_no_reason_for_another_to_answer(self, start: Start, repo: Path) -> None:
        make_bundle(repo, "the_other")
        self.damage(repo, "reviews", "1")
        client = start(model="reviews")
        assert client.post("/predict", json={"inputs": "good"}).status_code == 503
        shutil.rmtree(repo / "the_other")


class TestMetrics:
    def test_latency_is_by_route_and_probes_are_nobody_s(self, client: TestClient) -> None:
        client.post("/predict", json={"inputs": "good"})
        for path in ("/livez", "/nothing", "/v2"):
            client.get(path)
        count = "plumbline_request_duration_seconds_count"
        assert sample(client, count, model="reviews", route="/predict") == 1
        for route in ("/livez", "unmatched", "/v2"):
            assert sample(client, count, model="", route=route) == 1
            assert sample(client, count, model="reviews", route=route) == 0

    def test_a_batch_is_counted_once(self, client: TestClient) -> None:
        before = sample(client, "plumbline_inference_duration_seconds_count", model="reviews")
        client.post("/predict", json={"inputs": ["good"] * 32})
        batches = sample(client, "plumbline_batch_size_count", model="reviews")
        after = sample(client, "plumbline_inference_duration_seconds_count", model="reviews")
        assert 0 < after - before == batches <= 32

    @pytest.mark.parametrize(
        ("path", "route"),
        [
            ("/predict", "/predict"),
            ("/v2/models/reviews/infer", "/v2/models/{name}/infer"),
            ("/v2/models/reviews/versions/1/infer", "/v2/models/{name}/versions/{version}/infer"),
            ("/feedback", "/feedback"),
            ("/nothing", "unmatched"),
        ],
    )
    def test_what_is_refused_before_it_is_routed_has_its_route(self, start: Start, path: str, route: str) -> None:
        client = start(api_keys="0" * 64)
        assert client.post(path).status_code == 401
        assert client.post(path, headers={"host": "evil.example"}).status_code == 421
        found = [
            one
            for family in client.app.state.metrics.registry.collect()  # type: ignore[attr-defined]
            for one in family.samples
            if one.name == "plumbline_requests_total"
        ]
        assert {one.labels["code"] for one in found if one.labels["route"] == route} == {"401", "421"}

    def test_too_large_a_body_has_its_route(self, client: TestClient) -> None:
        assert client.post("/predict", content=b" " * (4 * 2**20 + 1)).status_code == 413
        assert sample(client, "plumbline_requests_total", model="reviews", route="/predict", code="413") == 1
