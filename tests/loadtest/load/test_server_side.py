"""What is read from the server's own metrics."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from loadtest.load.server_side import HISTOGRAMS, parse_counters, read_counters, report
from service.telemetry.metrics import Metrics
from tests.loadtest.load.stub import Asked, stub
from tests.processes import free_port


def counters(metrics: Metrics) -> object:
    return parse_counters(generate_latest(metrics.registry).decode())


def test_only_what_happened_between_two_readings_is_reported() -> None:
    metrics = Metrics()
    metrics.queue_seconds.labels("reviews").observe(9)
    metrics.requests.labels("reviews", "/predict", "200").inc(5)
    before = counters(metrics)
    for waited in [0.002] * 99 + [0.2]:
        metrics.queue_seconds.labels("reviews").observe(waited)
    metrics.batch_size.labels("reviews").observe(4)
    metrics.batch_size.labels("others").observe(8)
    metrics.rejected.labels("reviews", "overloaded").inc(3)
    metrics.requests.labels("reviews", "/predict", "200").inc(100)
    found = report(before, counters(metrics))
    assert found is not None
    assert found.requests == 100
    assert found.spreads["queue_ms"].mean == pytest.approx((99 * 2 + 200) / 100)
    assert 1 < found.spreads["queue_ms"].p99 <= 2.5  # the bucket of 2 ms ends there
    assert found.spreads["batch_size"].mean == 6
    assert "padding" not in found.spreads
    assert found.rejected == {"overloaded": 3}


def test_every_histogram_that_is_read_is_one_of_the_service() -> None:
    names = {family.name for family in Metrics().registry.collect()}
    assert {name for name, _ in HISTOGRAMS.values()} <= names


@pytest.mark.parametrize("answer", [(404, b""), (200, b"something_else 1\n"), (200, b"<html>{")])
def test_a_server_without_such_metrics_has_no_report(answer: tuple[int, bytes]) -> None:
    with stub(lambda asked: answer) as server:
        assert read_counters(server.url) is None
    assert read_counters(f"http://127.0.0.1:{free_port()}") is None
    assert report(None, {("plumbline_requests_total", ""): 1.0}) is None


def test_a_server_that_is_busy_is_asked_again() -> None:
    metrics = Metrics()
    metrics.batch_size.labels("reviews").observe(4)

    def answer(asked: Asked) -> tuple[int, bytes]:
        return (503, b"busy") if len(server.asked) < 3 else (200, generate_latest(metrics.registry))

    with stub(answer) as server:
        assert read_counters(server.url) is not None
