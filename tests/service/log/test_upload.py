"""Copies of the sealed log: every file, once, whole, whatever fails in between; predictions never wait for them."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from starlette.testclient import TestClient

from service.contract.errors import SettingsError
from service.contract.record import Feedback, new_id, now_rfc3339
from service.contract.segments import drop_oldest, read_segment, sealed_segments, uploaded_marker, without_copy
from service.contract.settings import load_settings
from service.http.app import create_app
from service.log.upload import Uploader, UploadTarget, open_store
from service.settings import ServiceSettings
from tests.processes import until
from tests.service.log.test_recorder import record, recorder


@contextmanager
def uploader(
    log: Path, store: UploadTarget, every: float = 0.005
) -> Iterator[tuple[Uploader, Counter[str], list[int]]]:
    """An uploader, its results, and how many files waited over time."""
    results: Counter[str] = Counter()
    waiting: list[int] = []
    made = Uploader(
        log,
        store,
        every=every,
        on_result=lambda model, worked: results.update({f"{model} {'uploaded' if worked else 'failed'}": 1}),
        on_pending=waiting.append,
    )
    try:
        yield made, results, waiting
    finally:
        made.close(10)


def write_log(root: Path, segments: int = 3) -> list[str]:
    """Sealed segments of one record each and one of feedback; returns their keys."""
    with recorder(root, seal_bytes=4096) as (log, counts):
        log.offer("reviews", Feedback(new_id(), "negative", now_rfc3339(), "test"))
        for number in range(segments):
            log.offer("reviews", record(f"{number} " + "x" * 5000))
            until(lambda number=number: counts["written"] == number + 2)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.parquet"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def serving(repo: Path, log: Path, **options: Any) -> Iterator[TestClient]:
    """The app until the end of the block, which is the end of the server."""
    settings = ServiceSettings(repo=repo, log=log, threads=1, log_fsync_seconds=0.01, **options)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


class Faulty(UploadTarget):
    """Refuses the first attempts, or every one at a key."""

    def __init__(self, store: UploadTarget, failures: int = 0, never: str = "") -> None:
        self.tried: list[str] = []
        self._store = store
        self._failures = failures
        self._never = never

    def put(self, source: Path, key: str) -> None:
        self.tried.append(key)
        if len(self.tried) <= self._failures or key == self._never:
            raise ConnectionError("the store is away")
        self._store.put(source, key)


def test_every_sealed_file_is_copied_to_the_same_relative_path(tmp_path: Path) -> None:
    log, copy = tmp_path / "log", tmp_path / "copy"
    keys = write_log(log)
    with uploader(log, open_store(copy.as_uri())) as (_, results, waiting):
        until(lambda: results["reviews uploaded"] == 4)
        until(lambda: waiting[-1] == 0)
    assert content(copy) == {key: (log / key).read_bytes() for key in keys}
    assert max(waiting) == 4
    assert results == {"reviews uploaded": 4}


def test_what_was_copied_is_known_to_the_next_server_and_what_was_not_is_copied_by_it(tmp_path: Path) -> None:
    log, copy = tmp_path / "log", tmp_path / "copy"
    write_log(log)
    broken = Faulty(open_store(copy.as_uri()), failures=10**6)
    with uploader(log, broken) as (_, results, _):
        until(lambda: results["reviews failed"])
    first = Faulty(open_store(copy.as_uri()))
    with uploader(log, first):
        until(lambda: not without_copy(log))
    write_log(log, 1)
    second = Faulty(open_store(copy.as_uri()))
    with uploader(log, second):
        until(lambda: not without_copy(log))
    assert (len(first.tried), len(second.tried)) == (4, 2)
    assert set(content(copy)) == {*first.tried, *second.tried}


def test_a_store_that_is_away_is_tried_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, pauses = tmp_path / "log", []
    write_log(log, 0)

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread().name == "uploader":
                pauses.append(timeout)
                return super().wait(0)
            return super().wait(timeout)

    monkeypatch.setattr("service.log.upload.threading.Event", Event)
    store = Faulty(open_store((tmp_path / "copy").as_uri()), failures=12)
    with uploader(log, store, every=1.0) as (_, results, _):
        until(lambda: results["reviews uploaded"] == 1)
        until(lambda: len(pauses) > 14)
    assert pauses[:15] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0, 300.0, 1.0, 1.0]
    assert results == {"reviews failed": 12, "reviews uploaded": 1}


def test_one_file_that_cannot_be_copied_does_not_hold_up_the_others(tmp_path: Path) -> None:
    log, copy = tmp_path / "log", tmp_path / "copy"
    keys = write_log(log)
    with uploader(log, Faulty(open_store(copy.as_uri()), never=keys[0])) as (_, results, _):
        until(lambda: results["reviews uploaded"] == 3)
    assert set(content(copy)) == set(keys[1:])
    assert [path.relative_to(log).as_posix() for path in without_copy(log)] == keys[:1]


def test_a_copy_of_another_size_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, copy = tmp_path / "log", tmp_path / "copy"
    (key,) = write_log(log, 0)
    files = fsspec.filesystem("file")
    short = [True]

    def put_file(source: str, target: str, **options: Any) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[: -1 if short.pop() else None])
        short.append(False)

    monkeypatch.setattr(files, "put_file", put_file)
    with uploader(log, UploadTarget(files, str(copy))) as (_, results, _):
        until(lambda: results["reviews uploaded"] == 1)
    assert results["reviews failed"] == 1
    assert content(copy) == {key: (log / key).read_bytes()}


def test_two_servers_of_one_log_do_not_copy_the_same_file_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_log(log)
    inside, most, lock = [0], [0], threading.Lock()

    class Counting(UploadTarget):
        def __init__(self) -> None:
            pass

        def put(self, source: Path, key: str) -> None:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.01)
            with lock:
                inside[0] -= 1

    with uploader(log, Counting()) as (_, one, _), uploader(log, Counting()) as (_, other, _):
        until(lambda: not without_copy(log))
    assert most == [1]
    assert one["reviews uploaded"] + other["reviews uploaded"] == 4


def test_what_is_sealed_at_the_end_is_still_copied(repo: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with serving(repo, tmp_path / "log", log_upload=copy.as_uri(), log_upload_seconds=3600) as client:
        client.post("/predict", json={"inputs": ["good", "bad"]})
    (segment,) = sealed_segments(copy, "reviews", "predictions")
    assert read_segment(segment, "predictions").column("text").to_pylist() == ["good", "bad"]


def test_a_store_that_hangs_slows_no_prediction_and_the_end_only_briefly(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.lifespan._LAST_UPLOADS", 0.1)
    hanging, release = threading.Event(), threading.Event()

    def hang(self: UploadTarget, source: Path, key: str) -> None:
        hanging.set()
        release.wait(60)

    monkeypatch.setattr(UploadTarget, "put", hang)
    often = {"log_upload_seconds": 0.01, "log_seal_seconds": 0.01}
    with serving(repo, tmp_path / "log", log_upload="memory://logs", **often) as client:
        client.post("/predict", json={"inputs": "good"})
        assert hanging.wait(10)
        assert client.post("/predict", json={"inputs": "good"}).status_code == 200
        assert "plumbline_uploads_pending 1.0" in client.get("/metrics").text
    release.set()


def test_the_metrics_count_copies_and_failures(
    start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fail = UploadTarget.put, [True]

    def once(self: UploadTarget, source: Path, key: str) -> None:
        if fail:
            fail.clear()
            raise ConnectionError("the store is away")
        real(self, source, key)

    monkeypatch.setattr(UploadTarget, "put", once)
    client = start(log_upload="memory://counted", log_upload_seconds=0.01, log_seal_seconds=0.01)
    client.post("/predict", json={"inputs": "good"})
    for result in ("failed", "uploaded"):
        sample = f'plumbline_uploads_total{{model="reviews",result="{result}"}} 1.0'
        until(lambda sample=sample: sample in client.get("/metrics").text)
    assert len(fsspec.filesystem("memory").find("/counted")) == 1


def test_the_quota_takes_files_with_a_copy_first_and_counts_only_what_is_lost(tmp_path: Path) -> None:
    write_log(tmp_path, 4)
    segments = sealed_segments(tmp_path, "reviews", "predictions")
    for age, path in enumerate(reversed(segments)):
        os.utime(path, (1000 - age, 1000 - age))
    oldest, older, newer, newest = segments
    for path in (older, newer):
        uploaded_marker(path).touch()
    size = sum(path.stat().st_size for path in segments)
    assert drop_oldest(tmp_path, size - 1) == {}
    assert sealed_segments(tmp_path, "reviews", "predictions") == [oldest, newer, newest]
    assert not uploaded_marker(older).exists()
    assert drop_oldest(tmp_path, 0) == {"reviews": 1}
    assert sealed_segments(tmp_path, "reviews", "predictions") == [newest]
    assert len(without_copy(tmp_path)) == 2  # the newest, and the feedback


def test_a_file_that_the_quota_takes_while_it_is_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_log(log, 0)
    (path,) = without_copy(log)

    class Racing(UploadTarget):
        def __init__(self) -> None:
            pass

        def put(self, source: Path, key: str) -> None:
            path.unlink()

    with uploader(log, Racing()) as (_, results, waiting):
        until(lambda: 0 in waiting[1:])
    assert not uploaded_marker(path).exists()
    assert results == {}


def test_markers_are_no_segments(tmp_path: Path) -> None:
    keys = write_log(tmp_path, 1)
    for key in keys:
        uploaded_marker(tmp_path / key).touch()
    assert len(sealed_segments(tmp_path, "reviews", "predictions")) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket", "nosuch://bucket, which cannot be used: Protocol not known"),
        ("sftp://user:secret@host/logs", "holds a password"),
        ("gs://bucket/logs", r"-e '\.\[upload\]'"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_the_start(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    with pytest.raises(SettingsError, match=message) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


def test_a_url_without_a_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_LOG", raising=False)
    with pytest.raises(SettingsError, match="PLUMBLINE_LOG names none"):
        load_settings(ServiceSettings, log_upload="s3://bucket/logs")


def test_segments_arrive_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    log = tmp_path / "log"
    keys = write_log(log)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="logs")
        with uploader(log, open_store("s3://logs/production"), every=0.05) as (_, results, _):
            until(lambda: results["reviews uploaded"] == 4)
        found = {one["Key"] for one in s3.list_objects_v2(Bucket="logs")["Contents"]}
        assert found == {f"production/{key}" for key in keys}
        body = s3.get_object(Bucket="logs", Key=f"production/{keys[0]}")["Body"].read()
        assert body == (log / keys[0]).read_bytes()
        with uploader(log, open_store("s3://nowhere/production"), every=0.05) as (_, results, _):
            shutil.rmtree(log / "reviews" / "feedback")
            for path in sealed_segments(log, "reviews", "predictions"):
                uploaded_marker(path).unlink()
            until(lambda: results["reviews failed"])
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["logs"]  # none is made by mistake
    finally:
        server.stop()
