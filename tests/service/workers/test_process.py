"""The server as a process: killed, stopped under load, started on nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from loadtest.connection import BlockingConnection, post_request
from service.contract.segments import read_segment, seal_orphans, sealed_segments
from tests.processes import free_port, plumbline, running, until


def texts(log: Path) -> list[str]:
    segments = sealed_segments(log, "reviews", "predictions")
    return [text for path in segments for text in read_segment(path, "predictions").column("text").to_pylist()]


def written(url: str) -> int:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("plumbline_records_total{"))


def test_after_kill_9_every_record_that_was_forced_to_the_disk_is_read_exactly_once(repo: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = plumbline("serve", "--repo", repo, "--log", log, "--port", str(port), "--threads", "1")
    sent: list[str] = []
    for attempt in range(2):
        with running(command, ready=f"{url}/readyz") as process:
            for number in range(30):
                text = f"good {attempt} {number}"
                assert httpx.post(f"{url}/predict", json={"inputs": text}).status_code == 200
                sent.append(text)
            until(lambda: written(url) == 30, what="30 records on the disk")
            for number in range(5):
                httpx.post(f"{url}/predict", json={"inputs": f"maybe {attempt} {number}"})
            process.kill()
            process.wait()
        (torn,) = log.rglob("*.jsonl")
        with torn.open("ab") as file:
            file.write(b'{"id": "torn", "te')
        seal_orphans(log)
    found = texts(log)
    assert len(found) == len(set(found))
    assert set(sent) <= set(found)
    assert all(text.startswith("maybe") for text in set(found) - set(sent))
    assert not list(log.rglob("*.jsonl"))


def test_sigterm_under_load_answers_every_request_that_was_accepted(repo: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = plumbline("serve", "--repo", repo, "--log", log, "--port", str(port), "--threads", "1")
    statuses: list[int] = []

    def traffic() -> None:
        with httpx.Client(timeout=30) as client:
            while True:
                try:
                    statuses.append(client.post(f"{url}/predict", json={"inputs": ["good film"] * 8}).status_code)
                except httpx.TransportError:
                    return  # the connection was closed unread; had the server read the request, the log would show it

    with running(command, ready=f"{url}/readyz") as process:
        threads = [threading.Thread(target=traffic) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) > 50, what="traffic")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert len(texts(log)) == 8 * len(statuses)


def test_after_sigterm_readiness_fails_first_and_requests_are_answered_for_the_grace_time(repo: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = plumbline("serve", "--repo", repo, "--port", str(port), "--threads", "1")
    with running(command, ready=f"{url}/readyz", PLUMBLINE_GRACE_SECONDS="1.5") as process, httpx.Client() as client:
        process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503, what="readiness to fail")
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{url}/livez").status_code == 200
        answered = client.post(f"{url}/predict", json={"inputs": "good"})
        assert answered.status_code == 200
        assert answered.headers["connection"] == "close"
        assert process.wait(30) == 0


def test_an_idle_connection_is_closed_after_the_keep_alive_time_and_not_before(repo: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = plumbline("serve", "--repo", repo, "--port", str(port), "--threads", "1")
    with running(command, ready=f"{url}/readyz", PLUMBLINE_KEEP_ALIVE_SECONDS="2"):
        idle = BlockingConnection(f"{url}/predict")
        request = post_request(f"{url}/predict", "good film")
        assert idle.post(request).status == 200
        time.sleep(1)
        assert idle.post(request).status == 200
        time.sleep(3)
        with pytest.raises(ConnectionError):
            idle.post(request)
        idle.close()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(plumbline(*arguments), capture_output=True, text=True, timeout=60)


def test_an_empty_repository_ends_the_server_with_a_reason(tmp_path: Path) -> None:
    ended = run("serve", "--repo", tmp_path, "--port", str(free_port()))
    assert ended.returncode == 2
    assert "holds no model" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_corrupted_live_bundle_ends_the_server_with_a_reason(repo: Path) -> None:
    model = repo / "reviews" / "1" / "model.int8.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    ended = run("serve", "--repo", repo, "--port", str(free_port()))
    assert ended.returncode == 2
    assert "model.int8.onnx has" in ended.stderr


def test_a_port_in_use_ends_the_server_with_a_reason(repo: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running(plumbline("serve", "--repo", repo, "--port", str(port)), ready=f"{url}/readyz"):
        ended = run("serve", "--repo", repo, "--port", str(port))
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_the_hugging_face_client_runs_unchanged(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient, constants
    from huggingface_hub.utils import close_session

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the hub stays out of reach, this machine does not
    close_session()
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running(plumbline("serve", "--repo", repo, "--port", str(port)), ready=f"{url}/readyz"):
        client = InferenceClient(model=url)
        assert [one.label for one in client.text_classification("a great film")] == ["positive", "negative"]
        (best,) = client.text_classification("an awful film", top_k=1)
        assert best.label == "negative"


def test_the_log_is_json_with_request_ids_if_asked(repo: Path, tmp_path: Path) -> None:
    url, log = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "stderr"
    command = plumbline("serve", "--repo", repo, "--port", str(port), "--threads", "1")
    settings = {"PLUMBLINE_LOG_FORMAT": "json", "PLUMBLINE_LOG_REQUESTS": "true"}
    with running(command, ready=f"{url}/readyz", log=log, **settings):
        httpx.post(f"{url}/predict", json={"inputs": "a secret text"}, headers={"x-request-id": "mine"})
        httpx.get(f"{url}/a%0Ab?key=secret", headers={"x-request-id": "other"})
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (answered,) = (line for line in lines if line.get("request_id") == "mine")
    assert (answered["method"], answered["path"], answered["status"]) == ("POST", "/predict", 200)
    assert answered["milliseconds"] > 0
    (missed,) = (line for line in lines if line.get("request_id") == "other")
    assert (missed["path"], missed["status"]) == ("/a%0Ab", 404)
    assert any("is live on" in line["message"] for line in lines)
    assert "secret" not in log.read_text()
