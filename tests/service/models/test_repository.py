"""Versions: a new one takes over without a failed request; a bad one never becomes live."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.contract.errors import BundleError
from service.contract.repository import set_live
from service.models.loaded import LoadedModel, Resources, load
from service.telemetry.metrics import Metrics
from tests.fakes import make_bundle
from tests.processes import until

Start = Callable[..., TestClient]


def version(client: TestClient) -> str:
    return client.post("/predict", json={"inputs": "good"}).headers["x-model-version"]


def test_a_new_live_version_takes_over_under_traffic_without_a_failed_request(client: TestClient, repo: Path) -> None:
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            response = client.post("/predict", json={"inputs": ["good", "bad film"]})
            seen.append((response.status_code, response.headers.get("x-model-version", "")))

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in ("2", "3"):
        make_bundle(repo, seed=int(number))
        until(lambda number=number: (200, number) in seen)
    set_live(repo, "reviews", "1")
    until(lambda: seen[-1] == (200, "1"))
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in seen} == {200}


def test_a_version_that_is_published_but_not_live_is_not_served(client: TestClient, repo: Path) -> None:
    make_bundle(repo, live=False)
    time.sleep(0.2)
    assert version(client) == "1"


def truncate(path: Path) -> None:
    model = path / "model.int8.onnx"
    model.write_bytes(model.read_bytes()[:-10])


def alter(path: Path) -> None:
    model = path / "model.int8.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def remove_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").unlink()


@pytest.mark.parametrize("damage", [truncate, alter, remove_tokenizer])
def test_a_damaged_version_never_becomes_live_and_is_counted(
    client: TestClient, repo: Path, damage: Callable[[Path], None]
) -> None:
    bundle = make_bundle(repo, live=False)
    damage(bundle.path)
    set_live(repo, "reviews", "2")
    failures = 'plumbline_model_load_failures_total{model="reviews"} 1.0'
    until(lambda: failures in client.get("/metrics").text)
    assert version(client) == "1"


def test_a_version_that_fails_its_golden_cases_never_becomes_live(client: TestClient, repo: Path) -> None:
    make_bundle(repo, golden_shift=0.5)
    until(lambda: 'load_failures_total{model="reviews"} 1.0' in client.get("/metrics").text)
    assert version(client) == "1"
    make_bundle(repo, seed=3)
    until(lambda: version(client) == "3")


FAILED_ONCE = 'plumbline_model_load_failures_total{model="reviews"} 1.0'


def test_a_copied_folder_is_refused(client: TestClient, repo: Path) -> None:
    shutil.copytree(repo / "reviews" / "1", repo / "reviews" / "2")
    set_live(repo, "reviews", "2")
    until(lambda: FAILED_ONCE in client.get("/metrics").text)
    assert version(client) == "1"


def test_nothing_ends_the_watch_of_the_repository(
    client: TestClient, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "__init__", None)  # a fault that nobody expects
        make_bundle(repo, seed=2)
        until(lambda: FAILED_ONCE in client.get("/metrics").text)
    make_bundle(repo, seed=3)
    until(lambda: version(client) == "3")


def test_a_bundle_without_golden_logits_for_its_variant_is_refused(client: TestClient, repo: Path) -> None:
    make_bundle(repo, golden_variant="cuda")
    until(lambda: "no golden logits for cpu" in client.post("/v2/repository/index").text)
    assert version(client) == "1"


def test_a_damaged_serving_json_is_counted_and_mended_without_a_restart(client: TestClient, repo: Path) -> None:
    make_bundle(repo, live=False)
    serving = repo / "reviews" / "serving.json"
    serving.write_text('{"live": 2}')
    until(lambda: FAILED_ONCE in client.get("/metrics").text)
    assert version(client) == "1"
    serving.write_text('{"live": "2"}')
    until(lambda: version(client) == "2")


def test_a_refused_version_is_tried_again_when_it_is_made_live_again(client: TestClient, repo: Path) -> None:
    bundle = make_bundle(repo, live=False)
    whole = (bundle.path / "golden.jsonl").read_bytes()
    (bundle.path / "golden.jsonl").write_bytes(b"")
    set_live(repo, "reviews", "2")
    until(lambda: FAILED_ONCE in client.get("/metrics").text)
    (bundle.path / "golden.jsonl").write_bytes(whole)
    set_live(repo, "reviews", "1")
    until(lambda: client.post("/v2/repository/index").json()[1]["reason"] == "not live")
    set_live(repo, "reviews", "2")
    until(lambda: version(client) == "2")


def test_a_model_that_was_never_made_live_does_not_stop_the_start(start: Start, repo: Path) -> None:
    make_bundle(repo, "other", live=False)
    assert version(start()) == "1"


def test_model_info_names_the_live_version_only(client: TestClient, repo: Path) -> None:
    digest = make_bundle(repo, seed=1).digest
    until(lambda: version(client) == "2")
    info = [line for line in client.get("/metrics").text.splitlines() if line.startswith("plumbline_model_info{")]
    assert len(info) == 1
    assert digest in info[0]
    assert 'provider="CPUExecutionProvider"' in info[0]


def test_a_model_that_appears_later_is_served(client: TestClient, repo: Path) -> None:
    make_bundle(repo, "second", labels=("neutral", "positive"))
    until(lambda: client.get("/v2/models/second/ready").status_code == 200)


def test_probes_tell_starting_from_ready(start: Start, repo: Path) -> None:
    truncate(repo / "reviews" / "1")
    client = start(ready=False)
    assert client.get("/livez").status_code == 200
    assert client.get("/startupz").status_code == 503
    assert client.get("/readyz").status_code == 503
    assert client.post("/predict", json={"inputs": "good"}).json()["code"] == "not_ready"


def test_a_bundle_of_a_task_that_is_not_known_here_is_refused_by_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "models")
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    (bundle.path / "manifest.json").write_text(json.dumps(manifest | {"task": "summarization"}))
    resources = Resources("cpu", 1, 0, 0, shares_core=False, cuda_graphs=False)
    with pytest.raises(BundleError, match="for the task 'summarization'"):
        load(bundle.path, resources, Metrics())
