"""Candidates: a canary answers its share, a shadow only looks on; neither can harm what is live."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from plumbline import cli
from service.contract.bundle import read_bundle
from service.contract.repository import Canary, Serving, change_serving, read_serving, set_live
from service.contract.sampling import share_of
from service.contract.segments import read_segment, sealed_segments
from service.engine import lower_priority
from service.errors import Overloaded
from service.models.loaded import LoadedModel
from service.models.rollout import Shadow
from service.tasks.tokenizer import AS_TRAINED, TextTokenizer, Tokens
from service.telemetry.metrics import Metrics
from tests.fakes import make_bundle
from tests.processes import until

Start = Callable[..., TestClient]
INDEX = "/v2/repository/index"


def stage(repo: Path, canary: tuple[str, float] | None = None, shadow: str | None = None) -> None:
    chosen = Canary(version=canary[0], weight=canary[1]) if canary else None
    change_serving(repo, "reviews", lambda now: Serving(live=now.live if now else "1", canary=chosen, shadow=shadow))


def ask(client: TestClient, request_id: str, texts: object = "good") -> str:
    """The version that answers a request with this id."""
    response = client.post("/predict", json={"inputs": texts}, headers={"x-request-id": request_id})
    assert response.status_code == 200
    return response.headers["x-model-version"]


def states(client: TestClient) -> dict[str, tuple[str, str]]:
    return {one["version"]: (one["state"], one["reason"]) for one in client.post(INDEX).json()}


def counted(client: TestClient, sample: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(sample))


class TestCanary:
    @pytest.fixture
    def canaried(self, client: TestClient, repo: Path) -> TestClient:
        make_bundle(repo, live=False, seed=2)
        stage(repo, canary=("2", 0.3))
        until(lambda: states(client)["2"] == ("READY", "canary"))
        return client

    def test_it_answers_the_requests_whose_ids_fall_into_its_share(self, canaried: TestClient) -> None:
        ids = [f"request-{number}" for number in range(60)]
        expected = {one: "2" if share_of(one) < 0.3 else "1" for one in ids}
        assert {one: ask(canaried, one) for one in ids} == expected
        assert {one: ask(canaried, one, ["good", "bad"]) for one in ids} == expected
        assert set(expected.values()) == {"1", "2"}

    def test_a_request_without_an_id_gets_one_and_a_fair_choice(self, canaried: TestClient) -> None:
        answers = [canaried.post("/predict", json={"inputs": "good"}) for _ in range(60)]
        for answer in answers:
            by_canary = share_of(answer.headers["x-request-id"]) < 0.3
            assert answer.headers["x-model-version"] == ("2" if by_canary else "1")
        assert {answer.headers["x-model-version"] for answer in answers} == {"1", "2"}

    def test_the_open_inference_protocol_has_it_too_and_can_name_it(self, canaried: TestClient) -> None:
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}]}

        def version(path: str, request_id: str) -> str:
            response = canaried.post(f"/v2/models/reviews{path}/infer", json=body, headers={"x-request-id": request_id})
            return str(response.json()["model_version"])

        ids = [f"request-{number}" for number in range(30)]
        assert [version("", one) for one in ids] == ["2" if share_of(one) < 0.3 else "1" for one in ids]
        assert {version("/versions/1", one) for one in ids} == {"1"}
        assert {version("/versions/2", one) for one in ids} == {"2"}
        assert {canaried.get("/v2/models/reviews").json()["versions"][0] for _ in range(20)} == {"1"}

    def test_its_version_is_listed_and_ready_beside_the_live_one(self, canaried: TestClient) -> None:
        assert canaried.get("/v2/models/reviews").json()["versions"] == ["1", "2"]
        config = canaried.get("/v2/models/reviews/config").json()
        assert config["version_policy"] == {"specific": {"versions": [1, 2]}}
        for version in ("1", "2"):
            for what in ("", "/ready", "/config", "/stats"):
                assert canaried.get(f"/v2/models/reviews/versions/{version}{what}").status_code == 200
        assert canaried.get("/v2/models/reviews/versions/3/ready").status_code == 404
        assert states(canaried) == {"1": ("READY", ""), "2": ("READY", "canary")}

    def test_records_and_headers_name_the_version_that_answered(self, start: Start, repo: Path, tmp_path: Path) -> None:
        digests = {"1": read_bundle(repo / "reviews" / "1").digest, "2": make_bundle(repo, live=False, seed=2).digest}
        stage(repo, canary=("2", 0.5))
        client = start(log_seal_seconds=0.05)
        until(lambda: states(client)["2"] == ("READY", "canary"))
        answered = {}
        for number in range(20):
            text = f"good {number}"
            response = client.post("/predict", json={"inputs": text}, headers={"x-request-id": text.replace(" ", "-")})
            answered[text] = (response.headers["x-model-version"], response.headers["x-model-digest"])
        assert set(answered.values()) == set(digests.items())

        def logged() -> dict[str, tuple[str, str]]:
            found = {}
            for path in sealed_segments(tmp_path / "log", "reviews", "predictions"):
                for row in read_segment(path, "predictions").to_pylist():
                    found[row["text"]] = (row["version"], row["digest"])
            return found

        until(lambda: logged() == answered)

    def test_metrics_tell_the_versions_apart(self, canaried: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = [f"request-{number}" for number in range(30)]
        by_canary = [one for one in ids if share_of(one) < 0.3]
        for one in ids:
            ask(canaried, one)
        seen = 'plumbline_version_duration_seconds_count{model="reviews",version="%s"}'
        assert counted(canaried, seen % 2) == len(by_canary)
        assert counted(canaried, seen % 1) == len(ids) - len(by_canary)
        assert counted(canaried, 'plumbline_candidate_share{model="reviews",role="canary",version="2"}') == 0.3
        real = LoadedModel.answer

        async def fail(self: LoadedModel, texts: list[str], *rest: Any) -> object:
            if self.manifest.version == "2":
                raise Overloaded("full", retry_after=1)
            return await real(self, texts, *rest)

        monkeypatch.setattr(LoadedModel, "answer", fail)
        refused = canaried.post("/predict", json={"inputs": "good"}, headers={"x-request-id": by_canary[0]})
        assert refused.status_code == 429
        errors = 'plumbline_version_errors_total{code="overloaded",model="reviews",version="2"}'
        assert counted(canaried, errors) == 1

    def test_a_request_is_refused_unread_only_if_who_would_answer_it_is_full(
        self, canaried: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: LoadedModel) -> None:
            if self.manifest.version == "1":
                raise Overloaded("full", retry_after=1)

        monkeypatch.setattr(LoadedModel, "check_room", full)
        ids = [f"request-{number}" for number in range(30)]

        def status(path: str, request_id: str) -> int:
            return canaried.post(path, content=b"no JSON", headers={"x-request-id": request_id}).status_code

        for path in ("/predict", "/", "/v2/models/reviews/infer"):
            assert [status(path, one) for one in ids] == [400 if share_of(one) < 0.3 else 429 for one in ids]
        assert {status("/v2/models/reviews/versions/2/infer", one) for one in ids} == {400}
        assert {status("/v2/models/reviews/versions/1/infer", one) for one in ids} == {429}
        refused = 3 * sum(share_of(one) >= 0.3 for one in ids) + len(ids)
        errors = 'plumbline_version_errors_total{code="overloaded",model="reviews",version="1"}'
        assert counted(canaried, errors) == refused

    def test_its_weight_changes_without_loading_it_again(
        self, canaried: TestClient, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LoadedModel, "__init__", None)  # loading would fail
        stage(repo, canary=("2", 1.0))
        until(lambda: {ask(canaried, str(number)) for number in range(10)} == {"2"})

    def test_it_is_taken_away(self, canaried: TestClient, repo: Path) -> None:
        stage(repo)
        until(lambda: states(canaried)["2"] == ("UNAVAILABLE", "not live"))
        assert {ask(canaried, str(number)) for number in range(20)} == {"1"}
        assert "plumbline_candidate_share{" not in canaried.get("/metrics").text

    def test_it_becomes_live_under_traffic_without_a_failed_request(self, canaried: TestClient, repo: Path) -> None:
        seen: list[str] = []
        stop = threading.Event()

        def traffic() -> None:
            while not stop.is_set():
                seen.append(ask(canaried, str(len(seen))))

        thread = threading.Thread(target=traffic)
        thread.start()
        until(lambda: {"1", "2"} <= set(seen))
        set_live(repo, "reviews", "2")
        until(lambda: states(canaried)["1"] == ("UNAVAILABLE", "not live"))
        done = len(seen)
        until(lambda: len(seen) > done + 20)
        stop.set()
        thread.join()
        assert set(seen[done + 1 :]) == {"2"}

    def test_it_goes_with_its_model_when_that_is_unloaded(self, canaried: TestClient, repo: Path) -> None:
        assert canaried.post("/v2/repository/models/reviews/unload").status_code == 200
        assert states(canaried)["2"][0] == "UNAVAILABLE"
        assert canaried.post("/v2/models/reviews/versions/2/infer", json={}).status_code == 404
        canaried.post("/v2/repository/models/reviews/load")
        until(lambda: states(canaried)["2"] == ("READY", "canary"))


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_a_bad_candidate_is_refused_with_the_reason_and_what_is_live_does_not_notice(
    client: TestClient, repo: Path, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_bundle(repo, live=False, golden_shift=0.5)
    stage(repo, **{role: ("2", 1.0) if role == "canary" else "2"})  # type: ignore[arg-type]
    until(lambda: states(client)["2"][1].startswith(f"refused as {role}"))
    state, reason = states(client)["2"]
    assert state == "UNAVAILABLE"
    assert "fails a golden case" in reason
    assert {ask(client, str(number)) for number in range(10)} == {"1"}
    time.sleep(0.1)  # several looks at the repository
    assert counted(client, 'plumbline_model_load_failures_total{model="reviews"}') == 1
    assert caplog.text.count(f"cannot be the {role}") == 1
    make_bundle(repo, live=False, seed=3)
    stage(repo, **{role: ("3", 1.0) if role == "canary" else "3"})  # type: ignore[arg-type]
    until(lambda: states(client)["3"][1] == role)


class TestShadow:
    def shadowed(self, client: TestClient, repo: Path) -> TestClient:
        stage(repo, shadow="2")
        until(lambda: states(client)["2"] == ("UNAVAILABLE", "shadow"))
        return client

    def inputs(self, client: TestClient, outcome: str) -> float:
        sample = f'plumbline_shadow_inputs_total{{model="reviews",outcome="{outcome}",version="2"}}'
        return counted(client, sample)

    def test_it_sees_every_text_and_answers_none(self, client: TestClient, repo: Path) -> None:
        make_bundle(repo, live=False, seed=2)
        self.shadowed(client, repo)
        batches = counted(client, "plumbline_batch_size_count")
        for number in range(10):
            assert ask(client, str(number), ["good", "bad", "awful film"]) == "1"
            until(lambda number=number: self.inputs(client, "agreed") == 3 * (number + 1))
        assert counted(client, 'plumbline_shadow_duration_seconds_count{model="reviews",version="2"}') == 10
        assert counted(client, "plumbline_batch_size_count") <= batches + 30  # of the live version only
        assert counted(client, "plumbline_predictions_total") == 30
        assert client.post("/v2/models/reviews/versions/2/infer", json={}).status_code == 404

    def test_where_it_would_have_answered_otherwise_is_counted(self, client: TestClient, repo: Path) -> None:
        make_bundle(repo, live=False, labels=("neutral", "positive"))
        self.shadowed(client, repo)
        assert ask(client, "1", ["good", "great", "bad"]) == "1"
        until(lambda: self.inputs(client, "differed") == 1)
        assert self.inputs(client, "agreed") == 2

    def test_what_the_canary_answered_is_not_compared(self, client: TestClient, repo: Path) -> None:
        make_bundle(repo, live=False, seed=2)
        make_bundle(repo, live=False, seed=3)
        stage(repo, canary=("3", 0.5), shadow="2")
        until(lambda: (states(client)["2"][1], states(client)["3"][1]) == ("shadow", "canary"))
        answered = [ask(client, str(number)) for number in range(20)]
        until(lambda: self.inputs(client, "agreed") == answered.count("1"))
        assert 0 < answered.count("1") < 20

    def test_a_shadow_that_fails_harms_nobody(
        self, client: TestClient, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_bundle(repo, live=False, seed=2)
        self.shadowed(client, repo)
        real = LoadedModel.answer

        async def fail(self: LoadedModel, texts: list[str], *rest: Any) -> object:
            if self.manifest.version == "2":
                raise RuntimeError("out of memory")
            return await real(self, texts, *rest)

        monkeypatch.setattr(LoadedModel, "answer", fail)
        assert ask(client, "1", ["good", "bad"]) == "1"
        until(lambda: self.inputs(client, "failed") == 2)

    def test_a_shadow_that_hangs_slows_nobody_and_what_it_misses_is_counted(
        self, client: TestClient, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_bundle(repo, live=False, seed=2)
        self.shadowed(client, repo)
        real, release = LoadedModel.answer, asyncio.Event()

        async def hang(self: LoadedModel, texts: list[str], *rest: Any) -> object:
            if self.manifest.version == "2":
                await release.wait()
            return await real(self, texts, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(LoadedModel, "answer", hang)
            assert ask(client, "0", ["good"] * 100) == "1"  # as much as one likes, if nothing waits
            for number in range(3):
                assert ask(client, str(number), ["good"] * 30) == "1"
            until(lambda: self.inputs(client, "dropped") == 90)
            assert client.portal is not None
            client.portal.call(release.set)
        until(lambda: self.inputs(client, "agreed") == 100)

    def test_its_threads_have_the_lowest_priority(
        self, repo: Path, monkeypatch: pytest.MonkeyPatch, start: Start
    ) -> None:
        lowered: list[str] = []
        monkeypatch.setattr(
            "service.models.loaded.lower_priority", lambda: lowered.append(threading.current_thread().name)
        )
        make_bundle(repo, live=False, seed=2)
        client = start()
        self.shadowed(client, repo)
        ask(client, "1")
        until(lambda: len(lowered) == 2)
        assert sorted(name.split("_")[0] for name in lowered) == ["inference", "tokenizer"]

    def test_even_a_short_text_is_tokenized_for_it_on_its_own_thread(
        self, client: TestClient, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_bundle(repo, live=False, seed=2)
        self.shadowed(client, repo)
        real, threads = TextTokenizer.__call__, []

        def noted(self: TextTokenizer, texts: Sequence[str], *rest: Any) -> list[Tokens]:
            threads.append(threading.current_thread().name.split("_")[0])
            return real(self, texts, *rest)

        monkeypatch.setattr(TextTokenizer, "__call__", noted)
        assert ask(client, "1") == "1"
        until(lambda: self.inputs(client, "agreed") == 1)
        assert len(threads) == 2
        assert [name == "tokenizer" for name in threads] == [False, True]

    @pytest.mark.skipif(not hasattr(os, "setpriority"), reason="no such priorities here")
    def test_only_the_calling_thread_is_lowered(self) -> None:
        found: list[int] = []
        thread = threading.Thread(target=lambda: (lower_priority(), found.append(priority()))[0])
        before = priority()
        thread.start()
        thread.join()
        assert found == [19]
        assert priority() == before

    async def test_a_shadow_without_work_accepts_a_request_of_any_size(self) -> None:
        class Model:
            async def answer(self, texts: list[str], *rest: Any) -> object:
                await asyncio.sleep(0)
                raise RuntimeError

            class manifest:
                name, version = "reviews", "2"

        metrics = Metrics()
        shadow = Shadow(Model(), metrics)  # type: ignore[arg-type]
        for size in (1000, 1, 64):
            shadow.offer(["good"] * size, AS_TRAINED, ["positive"] * size)
            await asyncio.sleep(0.01)
        value = metrics.registry.get_sample_value
        labels = {"model": "reviews", "version": "2"}
        assert value("plumbline_shadow_inputs_total", {**labels, "outcome": "failed"}) == 1065
        assert value("plumbline_shadow_inputs_total", {**labels, "outcome": "dropped"}) is None


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


class TestCommand:
    def run(self, repo: Path, *options: str) -> tuple[int, str]:
        """The exit code, and what is said but for the next command."""
        done = CliRunner().invoke(cli.build(), ["rollout", "--repo", str(repo), "--name", "reviews", *options])
        lines = done.output.splitlines(keepends=True)
        return done.exit_code, "".join(line for line in lines if not line.startswith("next: "))

    @pytest.fixture
    def three(self, repo: Path) -> Path:
        make_bundle(repo, live=False)
        make_bundle(repo, live=False)
        return repo

    def test_it_shows_and_changes_what_is_served(self, three: Path) -> None:
        assert self.run(three) == (0, "live     1\n")
        code, output = self.run(three, "--canary", "2", "--weight", "0.25", "--shadow", "3")
        assert (code, output) == (0, "live     1\ncanary   2, 25.0% of the requests\nshadow   3\n")
        assert read_serving(three, "reviews") == Serving(live="1", canary=Canary(version="2", weight=0.25), shadow="3")
        assert self.run(three, "--weight", "0.5")[1].splitlines()[1] == "canary   2, 50.0% of the requests"
        assert self.run(three, "--canary", "2")[1].splitlines()[1] == "canary   2, 50.0% of the requests"
        assert self.run(three, "--live", "2") == (0, "live     2\nprevious 1\nshadow   3\n")
        assert self.run(three, "--previous", "--no-shadow") == (0, "live     1\nprevious 2\n")
        code, output = self.run(three, "--canary", "3", "--json")
        assert Serving.model_validate_json(output).canary == Canary(version="3", weight=0.1)
        assert self.run(three, "--no-canary") == (0, "live     1\nprevious 2\n")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--live", "9"], "no bundle at"),
            (["--canary", "9"], "no bundle at"),
            (["--shadow", "../2"], "shadow of reviews cannot be '../2'"),
            (["--canary", "2", "--weight", "1.5"], "weight of reviews cannot be 1.5"),
            (["--previous"], "no version of reviews was live before"),
            (["--live", "2", "--previous"], "exclude each other"),
            (["--canary", "2", "--no-canary"], "exclude each other"),
            (["--weight", "0.5", "--no-canary"], "exclude each other"),
            (["--weight", "0.5"], "has none"),
            (["--canary", "1"], "is live already"),
            (["--shadow", "1"], "is live already"),
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(self, three: Path, options: list[str], message: str) -> None:
        code, output = self.run(three, *options)
        assert code == 2
        assert message in output
        assert read_serving(three, "reviews") == Serving(live="1")

    def test_the_first_live_version_is_set_by_it_too(self, tmp_path: Path) -> None:
        make_bundle(tmp_path, live=False)
        code, output = self.run(tmp_path, "--canary", "1")
        assert code == 2
        assert "say which one with --live" in output
        assert self.run(tmp_path, "--live", "1") == (0, "live     1\n")
