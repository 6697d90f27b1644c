"""Books that are put off: kept soon, in order, all of them, and before anybody reads them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from service.telemetry.deferred import DeferredWork
from service.telemetry.metrics import Metrics

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


async def test_what_was_put_off_is_done_soon_and_in_order() -> None:
    deferred, done = DeferredWork(), list[int]()
    for number in range(3):
        deferred.schedule(done.append, number)
    assert done == []
    await asyncio.sleep(0.1)
    assert done == [0, 1, 2]
    deferred.schedule(done.append, 3)  # there is a timer again
    await asyncio.sleep(0.1)
    assert done == [0, 1, 2, 3]


async def test_much_is_not_put_off_for_long() -> None:
    deferred, done = DeferredWork(), list[int]()
    for number in range(60):
        deferred.schedule(done.append, number)
    await asyncio.sleep(0)
    assert done == list(range(60))


async def test_it_can_be_done_at_once_and_then_is_not_done_again() -> None:
    deferred, done = DeferredWork(), list[int]()
    deferred.schedule(done.append, 1)
    deferred.flush()
    assert done == [1]
    await asyncio.sleep(0.1)
    assert done == [1]


async def test_a_failure_is_logged_and_keeps_nothing_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    deferred, done = DeferredWork(), list[int]()
    deferred.schedule(int, "no number")
    deferred.schedule(done.append, 1)
    deferred.flush()
    assert done == [1]
    assert "could not be counted or logged" in caplog.text


@pytest.mark.parametrize("times", [1, 60])
async def test_it_is_done_in_the_name_of_no_request(times: int) -> None:
    deferred, seen = DeferredWork(), list[str]()
    whose.set("a request's")
    for _ in range(times):
        deferred.schedule(lambda: seen.append(whose.get()))
    await asyncio.sleep(0.1)
    assert seen == ["nobody's"] * times


async def test_metrics_are_counted_before_they_are_read() -> None:
    metrics = Metrics()
    metrics.deferred.schedule(metrics.batch_size.labels("m").observe, 3)
    assert metrics.registry.get_sample_value("plumbline_batch_size_count", {"model": "m"}) == 1
