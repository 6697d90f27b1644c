"""What workers say to each other, and how their numbers become one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.contract.errors import PlumblineError
from service.errors import NotReady
from service.workers.fleet import Fleet, FleetError
from service.workers.metric_sums import sum_metrics, to_plain


async def fleet_of(folder: Path, answers: list[Callable[[str, Any], Awaitable[Any]]]) -> list[Fleet]:
    fleets = [Fleet(index, len(answers), folder) for index in range(1, len(answers) + 1)]
    for fleet, answer in zip(fleets, answers, strict=True):
        await fleet.listen(answer)
    return fleets


async def test_each_asks_all_others(tmp_path: Path) -> None:
    def named(name: str) -> Callable[[str, Any], Awaitable[Any]]:
        async def answer(question: str, argument: Any) -> Any:
            return [name, question, argument]

        return answer

    fleets = await fleet_of(tmp_path, [named("a"), named("b"), named("c")])
    assert await fleets[1].ask("what", {"é": "x" * 10**6}) == [
        [name, "what", {"é": "x" * 10**6}] for name in ("a", "c")
    ]
    for fleet in fleets:
        await fleet.close()
    with pytest.raises(NotReady, match="worker 2 of 3 does not answer"):
        await fleets[0].ask("what")


async def test_a_fleet_of_one_asks_nobody() -> None:
    fleet = Fleet()

    async def never(question: str, argument: Any) -> Any:
        raise AssertionError

    await fleet.listen(never)
    assert await fleet.ask("what") == []
    await fleet.close()


async def test_what_another_worker_could_not_do_is_said(tmp_path: Path) -> None:
    async def refuse(question: str, argument: Any) -> Any:
        raise PlumblineError("the bundle is damaged.")

    fleets = await fleet_of(tmp_path, [refuse, refuse])
    with pytest.raises(FleetError, match=r"worker 2 of 2: the bundle is damaged\."):
        await fleets[0].ask("load", "reviews")
    for fleet in fleets:
        await fleet.close()


async def test_a_worker_that_hangs_or_breaks_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.workers.fleet._PATIENCE", 0.05)
    released = asyncio.Event()

    async def hang(question: str, argument: Any) -> Any:
        await released.wait()

    fleets = await fleet_of(tmp_path, [hang, hang])
    with pytest.raises(NotReady, match="worker 2 of 2 does not answer"):
        await fleets[0].ask("metrics")
    released.set()
    await asyncio.sleep(0.01)
    for fleet in fleets:
        await fleet.close()


def process(counts: dict[str, int], seconds: list[float], live: str | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    counter = Counter("plumbline_things", "Things.", ["kind"], registry=registry)
    for kind, count in counts.items():
        counter.labels(kind).inc(count)
    histogram = Histogram("plumbline_took", "Took.", buckets=(1.0, 2.0), registry=registry)
    for one in seconds:
        histogram.observe(one)
    Gauge("plumbline_waiting", "Waiting.", registry=registry).set(len(seconds))
    info = Gauge("plumbline_model_info", "Live.", ["version"], registry=registry)
    if live is not None:
        info.labels(live).set(1)
    return registry


def test_counters_histograms_and_gauges_add_up_and_facts_stay_facts() -> None:
    one = process({"a": 1, "b": 2}, [0.5, 1.5], "1")
    other = process({"b": 3, "c": 4}, [0.7, 5.0, 5.0], "1")
    late = process({}, [], None)
    sums = {
        (sample.name, *sample.labels.values()): sample.value
        for family in sum_metrics([to_plain(part.collect()) for part in (one, other, late)])
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert sums == {
        ("plumbline_things_total", "a"): 1,
        ("plumbline_things_total", "b"): 5,
        ("plumbline_things_total", "c"): 4,
        ("plumbline_took_bucket", "1.0"): 2,
        ("plumbline_took_bucket", "2.0"): 3,
        ("plumbline_took_bucket", "+Inf"): 5,
        ("plumbline_took_count",): 5,
        ("plumbline_took_sum",): pytest.approx(12.7),
        ("plumbline_waiting",): 5,
        ("plumbline_model_info", "1"): 1,
    }


def test_what_was_created_first_counts_as_created() -> None:
    parts = [to_plain(process({"a": 1}, [], None).collect()) for _ in range(2)]

    def created(part: list[Any]) -> float:
        return next(one[2] for family in part for one in family[3] if one[0] == "plumbline_things_created")

    assert created(parts[0]) < created(parts[1])
    for order in (parts, parts[::-1]):
        assert created(to_plain(sum_metrics(order))) == created(parts[0])
