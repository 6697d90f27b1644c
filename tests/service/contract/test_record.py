"""Inference records and feedback: one line of JSON each, and ids that sort by time."""

from __future__ import annotations

import dataclasses
import time
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest

from service.contract.features import encode_embedding
from service.contract.record import (
    FEEDBACK_SCHEMA,
    RECORD_SCHEMA,
    REFERENCE_SCHEMA,
    Feedback,
    Record,
    new_id,
    now_rfc3339,
    parse_line,
)


def make_record(number: int = 0, **changes: object) -> Record:
    """A record; ``number`` shows in its latency."""
    embedding = np.linspace(-3, 3, 32, dtype=np.float32).astype(np.float16)
    record = Record(
        id=new_id(),
        ts=now_rfc3339(),
        model="reviews",
        version="3",
        digest="ab" * 32,
        text="😀 שלום\nline two",
        text_pair=None,
        tokens=None,
        n_tokens=7,
        truncated=False,
        unk_share=0.25,
        label="positive",
        confidence=0.75,
        probs=[0.25, 0.75],
        embedding=encode_embedding(embedding),
        latency_ms=float(number),
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


class TestIds:
    def test_they_are_uuids_of_version_7(self) -> None:
        made = uuid.UUID(new_id())
        assert (made.version, made.variant) == (7, uuid.RFC_4122)

    def test_they_sort_in_the_order_of_making(self) -> None:
        ids = [new_id() for _ in range(1000)]
        assert ids == sorted(ids)
        assert len(set(ids)) == 1000

    def test_they_tell_the_time(self) -> None:
        milliseconds = uuid.UUID(new_id()).int >> 80
        # They run ahead of the clock by a millisecond for each that is made within the same one.
        assert abs(milliseconds / 1000 - time.time()) < 60


class TestTime:
    def test_it_is_utc_in_rfc_3339(self) -> None:
        text = now_rfc3339()
        assert text.endswith("Z")
        moment = datetime.fromisoformat(text)
        assert moment.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)

    def test_it_has_the_same_length_always(self) -> None:
        assert {len(now_rfc3339()) for _ in range(100)} == {27}


class TestJson:
    def test_a_record_survives(self) -> None:
        record = make_record()
        line = record.to_json()
        assert b"\n" not in line
        assert Record(**orjson.loads(line)) == record

    def test_a_record_without_text_survives(self) -> None:
        record = make_record(text=None, tokens=[3, 3, 16383])
        assert Record(**orjson.loads(record.to_json())) == record

    def test_feedback_survives(self) -> None:
        feedback = Feedback(new_id(), "a|b", now_rfc3339(), "http")
        assert Feedback(**orjson.loads(feedback.to_json())) == feedback

    def test_a_lone_surrogate_is_refused(self) -> None:
        with pytest.raises(TypeError, match="surrogates"):
            make_record(text="cut emoji \ud83d").to_json()


class TestParsing:
    def test_a_line_becomes_a_row_of_its_schema(self) -> None:
        record = make_record()
        row = parse_line(record.to_json())
        assert set(row) == set(RECORD_SCHEMA.names)
        assert row["ts"] == datetime.fromisoformat(record.ts)
        np.testing.assert_allclose(row["embedding"], np.linspace(-3, 3, 32), rtol=2**-11)

    def test_a_line_of_feedback(self) -> None:
        assert set(parse_line(Feedback(new_id(), "a", now_rfc3339(), "http").to_json())) == set(FEEDBACK_SCHEMA.names)

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"{}",
            b'{"ts": "yesterday"}',
            b'{"ts": "2026-01-02T03:04:05Z", "embedding": "???"}',
            b'{"ts": "2026-01-02T03:04:05Z", "embedding": "AAA="}'[:-3],
            b"\xff\xfe",
        ],
    )
    def test_what_is_no_record_is_refused(self, line: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  the docstring promises no more
            parse_line(line)

    def test_an_embedding_of_another_width_is_refused(self) -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            parse_line(make_record(embedding=encode_embedding(np.zeros(31, dtype=np.float16))).to_json())


def test_a_reference_row_is_a_record_without_its_request_and_with_its_target() -> None:
    request = {"id", "ts", "model", "version", "digest", "latency_ms"}
    assert set(REFERENCE_SCHEMA.names) == set(RECORD_SCHEMA.names) - request | {"target"}
    for name in set(REFERENCE_SCHEMA.names) - {"target"}:
        assert REFERENCE_SCHEMA.field(name).equals(RECORD_SCHEMA.field(name))
