"""The log on disk: no row is lost that was whole, none is seen twice, whatever stops the writer."""

from __future__ import annotations

import fcntl
import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contract import segments
from service.contract.features import decode_embedding
from service.contract.record import FEEDBACK_SCHEMA, RECORD_SCHEMA, Feedback, Record, new_id, now_rfc3339, parse_line
from service.contract.segments import Kind, read_segment, seal, seal_orphans, sealed_segments, segment_path
from tests.service.contract.test_record import make_record

OPENED = datetime(2026, 1, 31, 7, 59, tzinfo=UTC)


def open_segment(
    root: Path,
    lines: list[bytes],
    *,
    sequence: int = 0,
    kind: Kind = "predictions",
    model: str = "reviews",
    writer: str = "host.example-17",
) -> Path:
    """An open segment that nobody holds."""
    path = segment_path(root, model, kind, OPENED, writer, sequence)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def numbers(path: Path) -> list[float]:
    """Which records of :func:`make_record` a sealed segment holds."""
    return read_segment(path, "predictions").column("latency_ms").to_pylist()  # type: ignore[no-any-return]


def records(count: int) -> list[bytes]:
    return [make_record(number).to_json() for number in range(count)]


class TestPaths:
    def test_an_hour_has_a_folder(self, tmp_path: Path) -> None:
        path = segment_path(tmp_path, "reviews", "predictions", OPENED, "host-17", 42)
        assert path == tmp_path / "reviews" / "date=2026-01-31" / "hour=07" / "host-17-000042.jsonl"

    def test_feedback_is_kept_apart(self, tmp_path: Path) -> None:
        path = segment_path(tmp_path, "reviews", "feedback", OPENED, "host-17", 42)
        assert path.relative_to(tmp_path / "reviews" / "feedback").parts[0] == "date=2026-01-31"

    def test_sealed_segments_come_oldest_first_and_by_kind(self, tmp_path: Path) -> None:
        late = seal(open_segment(tmp_path, records(1), sequence=10), "predictions")
        early = seal(open_segment(tmp_path, records(1), sequence=9), "predictions")
        line = Feedback(new_id(), "a", now_rfc3339(), "http").to_json()
        feedback = seal(open_segment(tmp_path, [line], kind="feedback"), "feedback")
        open_segment(tmp_path, records(1), sequence=11)
        assert sealed_segments(tmp_path, "reviews", "predictions") == [early, late]
        assert sealed_segments(tmp_path, "reviews", "feedback") == [feedback]
        assert sealed_segments(tmp_path, "other", "predictions") == []


class TestSeal:
    def test_rows_keep_their_order_and_the_open_segment_goes(self, tmp_path: Path) -> None:
        segment = open_segment(tmp_path, records(20))
        sealed = seal(segment, "predictions")
        assert sealed == segment.with_suffix(".parquet")
        assert numbers(sealed) == list(range(20))
        assert list(segment.parent.iterdir()) == [sealed]

    def test_every_field_survives(self, tmp_path: Path) -> None:
        kept = [make_record(), make_record(text=None, tokens=[1, 16383])]
        sealed = seal(open_segment(tmp_path, [record.to_json() for record in kept]), "predictions")
        assert sealed is not None
        table = read_segment(sealed, "predictions")
        assert table.schema.equals(RECORD_SCHEMA)
        for row, record in zip(table.to_pylist(), kept, strict=True):
            assert row["ts"] == datetime.fromisoformat(record.ts)
            assert row["embedding"] == decode_embedding(record.embedding).tolist()
            for name in set(Record.__slots__) - {"ts", "embedding"}:
                assert row[name] == getattr(record, name), name

    def test_the_embedding_is_kept_to_half_precision(self, tmp_path: Path) -> None:
        sealed = seal(open_segment(tmp_path, [make_record().to_json()]), "predictions")
        assert sealed is not None
        embedding = read_segment(sealed, "predictions").column("embedding").to_pylist()[0]
        np.testing.assert_allclose(embedding, np.linspace(-3, 3, 32), rtol=2**-11)

    def test_feedback(self, tmp_path: Path) -> None:
        feedback = Feedback(new_id(), "a|b", now_rfc3339(), "http")
        sealed = seal(open_segment(tmp_path, [feedback.to_json()], kind="feedback"), "feedback")
        assert sealed is not None
        table = read_segment(sealed, "feedback")
        assert table.schema.equals(FEEDBACK_SCHEMA)
        row = table.to_pylist()[0]
        assert (row["id"], row["label"], row["source"]) == (feedback.id, "a|b", "http")

    @pytest.mark.parametrize("content", [b"", b"\n", b'{"torn'])
    def test_a_segment_without_a_whole_row_is_removed(self, tmp_path: Path, content: bytes) -> None:
        segment = open_segment(tmp_path, [])
        segment.write_bytes(content)
        assert seal(segment, "predictions") is None
        assert list(segment.parent.iterdir()) == []


class TestDamage:
    def test_a_long_segment_keeps_its_order_and_names_its_damaged_lines(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        lines = [*records(1_300), b"", b"{torn"]
        lines.insert(700, b"no JSON")
        with caplog.at_level(logging.WARNING):
            sealed = seal(open_segment(tmp_path, lines), "predictions")
        assert sealed is not None
        assert numbers(sealed) == list(range(1_300))
        assert [record.args[1] for record in caplog.records if record.args] == [701, 1303]  # type: ignore[index]

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(share=st.floats(0, 1))
    def test_a_torn_tail_is_cut_and_what_was_whole_is_kept(self, tmp_path: Path, share: float) -> None:
        lines = records(4)
        whole = b"".join(line + b"\n" for line in lines)
        cut = int(share * len(whole))
        segment = open_segment(tmp_path, [])
        segment.write_bytes(whole[:cut])
        sealed = seal(segment, "predictions")
        # A last line that lacks only its line feed is whole.
        ends = np.cumsum([len(line) + 1 for line in lines]) - 1
        expected = list(range(int((ends <= cut).sum())))
        assert (numbers(sealed) if sealed else []) == expected
        if sealed:
            sealed.unlink()

    @pytest.mark.parametrize("damage", [b'{"torn', b"\x00\xff\x00", b"[]", b'{"ts": 5}', b'{"ts": null, "id": "a"}'])
    def test_a_damaged_line_in_the_middle_is_left_out_and_logged(
        self, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        lines = records(5)
        lines[2] = damage
        segment = open_segment(tmp_path, lines)
        with caplog.at_level(logging.WARNING):
            sealed = seal(segment, "predictions")
        assert sealed is not None
        assert numbers(sealed) == [0, 1, 3, 4]
        assert f"{segment} line 3" in caplog.text

    @pytest.mark.parametrize("field", ["n_tokens", "embedding"])
    def test_a_line_that_does_not_fit_the_schema_is_left_out_too(self, tmp_path: Path, field: str) -> None:
        lines = records(3)
        wrong = {"n_tokens": "seven", "embedding": "AAAA" * 2}
        lines[1] = orjson.dumps(orjson.loads(lines[1]) | {field: wrong[field]})
        sealed = seal(open_segment(tmp_path, lines), "predictions")
        assert sealed is not None
        assert numbers(sealed) == [0, 2]


class TestCrash:
    def test_before_the_rename_the_segment_is_still_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segment = open_segment(tmp_path, records(3))
        with monkeypatch.context() as patch:
            patch.setattr(segments, "fsync_path", _crash)
            with pytest.raises(KeyboardInterrupt):
                seal(segment, "predictions")
        assert sealed_segments(tmp_path, "reviews", "predictions") == []
        assert seal_orphans(tmp_path) == 1
        [sealed] = sealed_segments(tmp_path, "reviews", "predictions")
        assert numbers(sealed) == [0, 1, 2]
        assert list(segment.parent.iterdir()) == [sealed]

    def test_between_rename_and_removal_no_row_is_seen_twice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segment = open_segment(tmp_path, records(3))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", _crash)
            with pytest.raises(KeyboardInterrupt):
                seal(segment, "predictions")
        assert segment.exists()
        [sealed] = sealed_segments(tmp_path, "reviews", "predictions")
        seal_orphans(tmp_path)
        assert sealed_segments(tmp_path, "reviews", "predictions") == [sealed]
        assert numbers(sealed) == [0, 1, 2]
        assert not segment.exists()


def _crash(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class TestOrphans:
    def test_a_locked_segment_is_left_alone_and_an_unlocked_one_is_sealed(self, tmp_path: Path) -> None:
        alive = open_segment(tmp_path, records(2), writer="alive")
        dead = open_segment(tmp_path, records(3), writer="dead")
        with alive.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert seal_orphans(tmp_path) == 1
            assert alive.exists()
            assert not dead.exists()
            assert [numbers(path) for path in sealed_segments(tmp_path, "reviews", "predictions")] == [[0, 1, 2]]
        assert seal_orphans(tmp_path) == 1
        assert seal_orphans(tmp_path) == 0
        assert len(sealed_segments(tmp_path, "reviews", "predictions")) == 2

    def test_of_every_model_and_kind(self, tmp_path: Path) -> None:
        line = Feedback(new_id(), "a", now_rfc3339(), "http").to_json()
        open_segment(tmp_path, records(1), model="a")
        open_segment(tmp_path, records(1), model="b")
        open_segment(tmp_path, [line], model="b", kind="feedback")
        assert seal_orphans(tmp_path) == 3
        assert len(sealed_segments(tmp_path, "b", "feedback")) == 1

    def test_an_empty_one_is_removed_and_not_counted(self, tmp_path: Path) -> None:
        segment = open_segment(tmp_path, [])
        assert seal_orphans(tmp_path) == 0
        assert not segment.exists()

    def test_no_log_yet(self, tmp_path: Path) -> None:
        assert seal_orphans(tmp_path / "none") == 0


def test_one_orphan_that_cannot_be_sealed_does_not_stop_the_others(tmp_path: Path) -> None:
    hour = tmp_path / "reviews" / "date=2026-01-31" / "hour=07"
    (hour / "a-000001.jsonl").mkdir(parents=True)
    (hour / "b-000001.jsonl").write_bytes(b"".join(line + b"\n" for line in records(2)))
    assert seal_orphans(tmp_path) == 1
    assert len(sealed_segments(tmp_path, "reviews", "predictions")) == 1


def test_a_segment_that_was_sealed_before_there_were_pairs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    older = pa.schema([field for field in RECORD_SCHEMA if field.name != "text_pair"])
    row = parse_line(make_record().to_json())
    del row["text_pair"]
    pq.write_table(pa.Table.from_pylist([row], schema=older), path)
    table = read_segment(path, "predictions")
    assert table.schema == RECORD_SCHEMA
    assert table.column("text_pair").to_pylist() == [None]
    assert table.column("text").to_pylist() == [row["text"]]
