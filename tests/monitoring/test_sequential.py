"""The detector that looks at every request."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from monitoring.judging.sequential import Detector, deserialize, feed, serialize
from monitoring.signals.columns import Columns, columns_of
from tests.monitoring.world import Kind, rows

THRESHOLD = 10_000.0


def texts(count: int, kind: Kind, seed: int) -> Columns:
    return columns_of(pa.table({"text": [row["text"] for row in rows(count, kind, seed)]}))


def delay(reference: Columns, kind: Kind, seed: int, count: int = 600) -> int | None:
    """Requests until the threshold is crossed."""
    detector = Detector.start()
    stream = rows(count, kind, seed)
    for start in range(0, count, 8):
        part = columns_of(pa.table({"text": [row["text"] for row in stream[start : start + 8]]}))
        detector, peak = feed(detector, reference, part, seed)
        if peak >= THRESHOLD:
            return start + 8
    return None


def test_new_words_are_noticed_within_a_hundred_requests() -> None:
    reference = texts(400, Kind(), 1)
    delays = [delay(reference, Kind(foreign=1.0), seed) for seed in range(5)]
    assert all(found is not None and found <= 100 for found in delays), delays


def test_a_mixture_takes_longer() -> None:
    reference = texts(600, Kind(), 1)
    found = delay(reference, Kind(foreign=0.3), 3)
    assert found is not None
    assert 40 < found <= 400


def test_requests_like_the_reference_raise_nothing() -> None:
    """12 streams of 600: at a rate of 1 in 10,000, three alarms or more have a probability below 0.04."""
    alarms = [delay(texts(300, Kind(), 100 + seed), Kind(), seed) for seed in range(12)]
    assert sum(alarm is not None for alarm in alarms) <= 2


def test_the_same_few_texts_again_and_again_are_no_evidence() -> None:
    reference = texts(400, Kind(), 1)
    few = rows(6, Kind(), 7) * 100
    detector, peak = feed(Detector.start(), reference, columns_of(pa.table({"text": [r["text"] for r in few]})), 0)
    assert peak < 100
    assert detector.used <= 12


def test_an_epoch_ends_with_the_fresh_reference_rows_and_nothing_is_carried_over() -> None:
    reference = texts(64, Kind(), 1)
    detector, _ = feed(Detector.start(), reference, texts(64, Kind(foreign=1.0), 2), 0)
    assert (detector.epoch, detector.used) == (0, 64)
    following, _ = feed(detector, reference, texts(8, Kind(), 3), 0)
    assert (following.epoch, following.used) == (1, 8)
    assert following.evidence < detector.evidence
    assert len(following.seen) == 8


def test_a_detector_is_continued_from_its_stored_arrays() -> None:
    reference, first, second = texts(200, Kind(), 1), texts(40, Kind(), 2), texts(40, Kind(), 3)
    detector, _ = feed(Detector.start(), reference, first, 0)
    stored = deserialize(serialize(detector))
    for found, expected in zip(feed(stored, reference, second, 0), feed(detector, reference, second, 0), strict=True):
        if isinstance(found, Detector):
            assert isinstance(expected, Detector)
            assert found.statistic == pytest.approx(expected.statistic, rel=1e-4)
            assert (found.epoch, found.used) == (expected.epoch, expected.used)


def test_no_pickle_is_ever_loaded() -> None:
    import io

    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([object()], dtype=object))
    with pytest.raises((ValueError, KeyError)):
        deserialize(buffer.getvalue())


def test_rows_without_text_or_tokens_and_tiny_references_are_passed_over() -> None:
    nothing = columns_of(pa.table({"text": pa.array([None] * 20, pa.string())}))
    detector, peak = feed(Detector.start(), texts(50, Kind(), 1), nothing, 0)
    assert (detector.used, peak) == (0, 0.0)
    assert feed(Detector.start(), texts(3, Kind(), 1), texts(50, Kind(), 2), 0)[1] == 0.0
