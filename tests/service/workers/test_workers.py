"""Several processes, one server: one port, one set of numbers, one end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.contract.repository import set_live
from service.contract.segments import read_segment, sealed_segments
from service.workers import processes as workers
from service.workers.processes import WorkerEnded
from tests.fakes import make_bundle
from tests.processes import free_port, plumbline, running, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc"),
]


def command(repo: Path, port: int, *options: str | Path) -> list[str]:
    return plumbline("serve", "--repo", repo, "--port", str(port), "--workers", "3", "--threads", "1", *options)


def children(pid: int) -> list[int]:
    """The worker processes of a server."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


@contextlib.contextmanager
def serving(repo: Path, *options: str | Path, log: Path | None = None, **settings: str) -> Iterator[tuple[Any, str]]:
    """A server of three workers, and its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running(command(repo, port, *options), ready=f"{url}/readyz", log=log, **settings) as process:
        yield process, url


def post(url: str, body: object, **headers: str) -> httpx.Response:
    """One request on a connection of its own, so that any worker may get it."""
    return httpx.post(url, json=body, headers=headers, timeout=30)


def sample(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def worker_of_page(url: str) -> str:
    found = re.search(r"worker (\d) of 3", httpx.get(url, timeout=30).text)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """One server for the tests that do not end it: its address and its repository."""
    repo = tmp_path_factory.mktemp("workers") / "models"
    make_bundle(repo)
    with serving(repo, "--log", repo.parent / "log") as (_, url):
        yield url, repo


def test_connections_are_spread_and_numbers_add_up_wherever_they_are_asked(shared: tuple[str, Path]) -> None:
    url, _ = shared
    before = sample(url, "plumbline_predictions_total")
    for number in range(1, 41):
        assert post(f"{url}/predict", {"inputs": ["good", "bad"]}).status_code == 200
        assert sample(url, "plumbline_predictions_total") == before + 2 * number
    assert {worker_of_page(url) for _ in range(60)} == {"1", "2", "3"}
    assert sample(url, "plumbline_request_duration_seconds_count") >= 80
    assert sample(url, "plumbline_model_info") == 1
    statistics = httpx.get(f"{url}/v2/models/reviews/stats").json()["model_stats"][0]
    assert statistics["inference_count"] == before + 80


def test_feedback_is_known_to_every_worker(shared: tuple[str, Path]) -> None:
    url, _ = shared
    answer, _ = post(f"{url}/predict", {"inputs": "good"}).json()
    for _ in range(12):
        assert post(f"{url}/feedback", {"id": answer["id"], "label": answer["label"]}).status_code == 202
    assert sample(url, 'plumbline_feedback_total{correct="true"') == 12
    assert sample(url, 'plumbline_feedback_total{correct="unknown"') == 0


def test_load_and_unload_reach_every_worker(shared: tuple[str, Path]) -> None:
    url, _ = shared
    action = f"{url}/v2/repository/models/reviews"
    assert post(f"{action}/unload", {}).status_code == 200
    assert {post(f"{url}/predict", {"inputs": "good"}).status_code for _ in range(30)} == {503}
    assert post(f"{action}/load", {}).status_code == 200
    assert {post(f"{url}/predict", {"inputs": "good"}).status_code for _ in range(30)} == {200}


def test_every_worker_follows_a_new_version(shared: tuple[str, Path]) -> None:
    url, repo = shared
    make_bundle(repo, seed=2)

    def versions() -> set[str]:
        return {post(f"{url}/predict", {"inputs": "good"}).headers["x-model-version"] for _ in range(20)}

    until(lambda: versions() == {"2"})
    set_live(repo, "reviews", "1")
    until(lambda: versions() == {"1"})


def test_a_taken_port_is_refused_to_one_process_and_to_several(shared: tuple[str, Path]) -> None:
    url, repo = shared
    port = int(url.rpartition(":")[2])
    for arguments in (command(repo, port), plumbline("serve", "--repo", repo, "--port", str(port))):
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_sigterm_under_load_answers_and_logs_every_request_that_was_accepted(repo: Path, tmp_path: Path) -> None:
    log, statuses = tmp_path / "log", []

    def traffic() -> None:
        with httpx.Client(timeout=30) as client:
            while True:
                try:
                    statuses.append(client.post(f"{url}/predict", json={"inputs": ["good film"] * 4}).status_code)
                except httpx.TransportError:
                    return

    with serving(repo, "--log", log, PLUMBLINE_GRACE_SECONDS="0.5") as (process, url):
        threads = [threading.Thread(target=traffic) for _ in range(6)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) > 100, what="traffic")
        process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503, what="readiness to fail")
        assert process.wait(30) == 0
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    segments = sealed_segments(log, "reviews", "predictions")
    ids = [one for path in segments for one in read_segment(path, "predictions").column("id").to_pylist()]
    assert len(ids) == len(set(ids)) == 4 * len(statuses)
    assert len({path.name.rpartition("-")[0] for path in segments}) > 1  # writers with names of their own


@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_unasked_ends_the_server_and_the_others_finish_first(
    repo: Path, tmp_path: Path, ends: signal.Signals
) -> None:
    stderr = tmp_path / "stderr"
    with serving(repo, "--log", tmp_path / "log", log=stderr) as (process, url):
        for _ in range(9):
            post(f"{url}/predict", {"inputs": "good"})
        until(lambda: sample(url, "plumbline_records_total") == 9)
        processes = children(process.pid)
        assert len(processes) == 3
        os.kill(processes[1], ends)
        assert process.wait(30) == 1
    assert "worker-2 ended with exit code" in stderr.read_text()
    assert "Traceback" not in stderr.read_text()
    assert not any(Path(f"/proc/{one}").exists() for one in processes)
    assert len(list((tmp_path / "log").rglob("*.jsonl"))) <= 1  # of the killed one; the others sealed theirs


class Ended:
    """A process whose end is seen a little before its exit code is known."""

    name, pid = "worker-1", None

    def __init__(self, exitcode: int) -> None:
        self.sentinel, write = os.pipe()
        os.close(write)
        self._exitcode = exitcode
        self.exitcode: int | None = None

    def join(self) -> None:
        self.exitcode = self._exitcode
        os.close(self.sentinel)


@pytest.mark.parametrize(
    ("exitcodes", "asked", "ends_with"),
    [((-9,), False, 1), ((0,), False, 1), ((0, 2), True, 2), ((3, 0), False, 3), ((-9, 0), True, 1)],
)
def test_no_end_is_missed_that_nobody_asked_for(exitcodes: tuple[int, ...], asked: bool, ends_with: int) -> None:
    stopping = threading.Event()
    if asked:
        stopping.set()
    with pytest.raises(WorkerEnded) as ended:
        workers._wait([Ended(code) for code in exitcodes], stopping)  # type: ignore[misc]
    assert ended.value.exit_code == ends_with


def test_ends_that_were_asked_for_are_no_error() -> None:
    stopping = threading.Event()
    stopping.set()
    workers._wait([Ended(0), Ended(-signal.SIGTERM)], stopping)  # type: ignore[list-item]


def test_workers_do_not_outlive_a_parent_that_was_killed(repo: Path) -> None:
    with serving(repo) as (process, _):
        processes = children(process.pid)
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{one}").exists() for one in processes), what="workers to end")


def test_a_repository_that_cannot_be_served_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    ended = subprocess.run(command(tmp_path, free_port()), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "holds no model" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_log_lines_name_their_worker(repo: Path, tmp_path: Path) -> None:
    stderr = tmp_path / "stderr"
    with serving(repo, log=stderr):
        pass
    live = [line for line in stderr.read_text().splitlines() if "is live on" in line]
    assert {line.rpartition(" ")[2] for line in live} == {"worker=1", "worker=2", "worker=3"}


def test_workers_run_where_they_are_told_or_not_at_all(repo: Path) -> None:
    ended = subprocess.run(
        [*command(repo, free_port()), "--device", "cuda"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "has no variant for cuda" in ended.stderr
