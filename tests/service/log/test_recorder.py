"""The inference log: bounded, durable, and honest about what it dropped."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.contract.features import encode_embedding, hash_tokens, project
from service.contract.record import Feedback, Record, new_id, now_rfc3339
from service.contract.redact import Redactor
from service.contract.sampling import share_of
from service.contract.segments import Kind, read_segment, seal_orphans, sealed_segments
from service.log.recorder import Recorder, as_logged
from tests.fakes import WIDTH
from tests.processes import until

import numpy as np  # isort: skip


def record(text: str = "good") -> Record:
    return Record(
        id=new_id(),
        ts=now_rfc3339(),
        model="reviews",
        version="1",
        digest="d" * 64,
        text=text,
        text_pair=None,
        tokens=None,
        n_tokens=3,
        truncated=False,
        unk_share=0.0,
        label="positive",
        confidence=0.9,
        probs=[0.1, 0.9],
        embedding=encode_embedding(project(np.ones((1, WIDTH), dtype=np.float32))[0]),
        latency_ms=1.0,
    )


@contextmanager
def recorder(root: Path, **options: Any) -> Iterator[tuple[Recorder, Counter[str]]]:
    """A recorder and what it counted: ``written``, ``queue``, ``disk``."""
    counts: Counter[str] = Counter()
    defaults: dict[str, Any] = {
        "queue": 1000,
        "fsync_seconds": 0.005,
        "seal_seconds": 60.0,
        "seal_bytes": 10**9,
        "quota_bytes": 10**9,
    }
    made = Recorder(
        root,
        **(defaults | options),
        on_written=lambda model, count: counts.update(written=count),
        on_dropped=lambda model, reason, count: counts.update({reason: count}),
    )
    try:
        yield made, counts
    finally:
        made.close()


def rows(root: Path, kind: Kind = "predictions") -> list[dict[str, Any]]:
    return [row for path in sealed_segments(root, "reviews", kind) for row in read_segment(path, kind).to_pylist()]


def test_what_was_offered_is_sealed_in_order_when_the_recorder_closes(tmp_path: Path) -> None:
    texts = ["a", "", "שלום 😀", "line\nbreak", "x" * 1_000_000]
    with recorder(tmp_path) as (log, counts):
        assert all(log.offer("reviews", record(text)) for text in texts)
    assert [row["text"] for row in rows(tmp_path)] == texts
    assert counts == {"written": 5}
    assert not list(tmp_path.rglob("*.jsonl"))


def test_feedback_is_kept_apart_from_predictions(tmp_path: Path) -> None:
    with recorder(tmp_path) as (log, _):
        log.offer("reviews", record())
        log.offer("reviews", Feedback(new_id(), "negative", now_rfc3339(), "test"))
    assert len(rows(tmp_path)) == 1
    assert rows(tmp_path, "feedback")[0]["label"] == "negative"


def test_a_segment_is_sealed_by_size_and_by_age(tmp_path: Path) -> None:
    with recorder(tmp_path / "size", seal_bytes=4096) as (log, _):
        log.offer("reviews", record("x" * 5000))
        until(lambda: sealed_segments(tmp_path / "size", "reviews", "predictions"))
    with recorder(tmp_path / "age", seal_seconds=0.05) as (log, _):
        log.offer("reviews", record())
        until(lambda: sealed_segments(tmp_path / "age", "reviews", "predictions"))


def test_a_full_queue_drops_and_counts_and_does_not_block(tmp_path: Path) -> None:
    with recorder(tmp_path, queue=10, fsync_seconds=0.5) as (log, counts):
        kept = [log.offer("reviews", record()) for _ in range(25)]
    assert kept.count(False) == counts["queue"] == 15
    assert len(rows(tmp_path)) == counts["written"] == 10


def test_a_full_disk_drops_whole_batches_and_writing_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def half_then_full(descriptor: int, data: Any) -> int:
        if len(data) > 100:
            return real(descriptor, bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with recorder(tmp_path) as (log, counts):
        log.offer("reviews", record("before"))
        until(lambda: counts["written"] == 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half_then_full)
            log.offer("reviews", record("lost"))
            until(lambda: counts["disk"] == 1)
        log.offer("reviews", record("after"))
    assert [row["text"] for row in rows(tmp_path)] == ["before", "after"]
    assert counts == {"written": 2, "disk": 1}


def test_a_record_that_is_not_valid_unicode_costs_only_itself(tmp_path: Path) -> None:
    with recorder(tmp_path) as (log, counts):
        log.offer("reviews", record("\ud800"))
        log.offer("reviews", record("good"))
    assert [row["text"] for row in rows(tmp_path)] == ["good"]
    assert counts == {"written": 1, "invalid": 1}


def test_an_open_segment_is_never_taken_for_an_orphan(tmp_path: Path) -> None:
    with recorder(tmp_path) as (log, counts):
        log.offer("reviews", record())
        until(lambda: counts["written"] == 1)
        assert seal_orphans(tmp_path) == 0
        log.offer("reviews", record())
    assert len(rows(tmp_path)) == 2


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        ("raw", "I am jo@example.org", None),
        ("redacted", "I am [EMAIL]", None),
        ("off", None, hash_tokens("I am [EMAIL]")),
    ],
)
def test_a_text_is_logged_redacted_raw_or_as_hashed_words_only(
    tmp_path: Path, mode: Any, text: str | None, words: list[int] | None
) -> None:
    with recorder(tmp_path, prepare=lambda one: as_logged(one, mode, Redactor())) as (log, _):
        log.offer("reviews", record("I am jo@example.org"))
    (row,) = rows(tmp_path)
    assert (row["text"], row["tokens"]) == (text, words)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert (b"jo@example.org" in written) == (mode == "raw")


def test_over_its_quota_the_log_loses_its_oldest_sealed_files_and_no_feedback(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    with recorder(tmp_path, seal_bytes=4096, quota_bytes=30_000) as (log, counts):
        log.offer("reviews", Feedback(new_id(), "negative", now_rfc3339(), "test"))
        for number in range(10):
            log.offer("reviews", record(f"{number} " + noise.bytes(4000).hex()))
            until(lambda number=number: counts["written"] == number + 2)
            time.sleep(0.02)
    kept = [int(row["text"].split()[0]) for row in rows(tmp_path)]
    assert sum(path.stat().st_size for path in sealed_segments(tmp_path, "reviews", "predictions")) <= 30_000
    assert 1 < len(kept) < 10
    assert sorted(kept) == list(range(10 - len(kept), 10))
    assert len(rows(tmp_path, "feedback")) == 1


def test_the_recorder_outlives_a_step_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(tmp_path) as (log, counts):
        with monkeypatch.context() as patch:
            failed = threading.Event()

            def fail(self: Recorder) -> None:
                failed.set()
                raise RuntimeError("can't start new thread")

            patch.setattr(Recorder, "_seal_full", fail)
            assert failed.wait(10)
        log.offer("reviews", record("after"))
        until(lambda: counts["written"] == 1)
    assert [row["text"] for row in rows(tmp_path)] == ["after"]


def test_feedback_names_no_person_either(tmp_path: Path) -> None:
    with recorder(tmp_path, prepare=lambda one: as_logged(one, "redacted", Redactor())) as (log, _):
        log.offer("reviews", Feedback(new_id(), "negative", now_rfc3339(), "jo@example.org"))
    assert rows(tmp_path, "feedback")[0]["source"] == "[EMAIL]"


def test_a_sample_is_chosen_by_id_counted_and_the_same_every_time(tmp_path: Path) -> None:
    left_out: list[str] = []
    records = [record(str(number)) for number in range(400)]
    for root in (tmp_path / "one", tmp_path / "two"):
        with recorder(root, sample=0.25, on_left_out=left_out.append) as (log, counts):
            assert all(log.offer("reviews", one) for one in records)
        assert counts["written"] == len(rows(root))
    kept = [row["id"] for row in rows(tmp_path / "one")]
    assert kept == [one.id for one in records if share_of(one.id) < 0.25]
    assert kept == [row["id"] for row in rows(tmp_path / "two")]
    assert left_out == ["reviews"] * 2 * (400 - len(kept))
    assert 50 < len(kept) < 150


def test_feedback_is_kept_whatever_the_sample(tmp_path: Path) -> None:
    with recorder(tmp_path, sample=1e-9) as (log, _):
        for _ in range(20):
            log.offer("reviews", Feedback(new_id(), "negative", now_rfc3339(), "test"))
    assert len(rows(tmp_path, "feedback")) == 20
