"""The batcher, against a fake engine: nothing lost, nothing answered twice, the budget kept, nobody starved."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.batcher import Batcher
from service.batching.packing import BatchCost
from service.errors import DeadlinePassed, NotReady, Overloaded


class FakeEngine:
    """Answers each text with itself in capitals and remembers the batches; can be held at a gate."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        if not held:
            self.gate.set()

    def run(self, batch: Sequence[str]) -> list[str]:
        self.batches.append(list(batch))
        assert self.gate.wait(10)
        if "poison" in batch:
            raise ValueError("poison")
        return [text.upper() for text in batch]


def make(
    engine: FakeEngine, *, batch_tokens: int = 32, queue_tokens: int = 10_000, in_place: bool = False
) -> Batcher[str, str]:
    cost = BatchCost(overhead=4, budget=batch_tokens, per_second=10_000)
    thread = None if in_place else ThreadPoolExecutor(1)
    return Batcher(engine.run, padded_length=lambda n: n, cost=cost, queue_tokens=queue_tokens, thread=thread)


async def until(condition: object, what: object) -> None:
    for _ in range(1000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.005)
    raise AssertionError(what)


async def held(batcher: Batcher[str, str], engine: FakeEngine) -> asyncio.Task[object]:
    """Occupy the engine, so that what follows waits."""
    first = asyncio.create_task(batcher.submit(["first"]))
    await until(lambda: engine.batches, "the first batch")
    return first  # type: ignore[return-value]


async def test_some_requests_find_room_however_many_tokens_they_have() -> None:
    engine = FakeEngine(held=True)
    cost = BatchCost(overhead=4, budget=32, per_second=10_000)
    batcher: Batcher[str, str] = Batcher(
        engine.run,
        padded_length=lambda n: n,
        cost=cost,
        queue_tokens=10,
        least_requests=3,
        thread=ThreadPoolExecutor(1),
    )
    waiting = [asyncio.create_task(batcher.submit(["x" * 30] * 4)) for _ in range(3)]
    await until(lambda: batcher.tokens == 3 * 4 * 30, "three requests")
    with pytest.raises(Overloaded):
        await batcher.submit(["x"])
    waiting[1].cancel()  # its place is free again
    await asyncio.gather(waiting[1], return_exceptions=True)
    last = asyncio.create_task(batcher.submit(["y"]))
    engine.gate.set()
    assert [one.answer for one in await last] == ["Y"]
    assert [len(answers) for answers in await asyncio.gather(waiting[0], waiting[2])] == [4, 4]
    await batcher.close()


async def test_answers_come_in_the_order_of_the_items() -> None:
    batcher = make(FakeEngine())
    answers = await batcher.submit(["ccc", "a", "bb"])
    assert [one.answer for one in answers] == ["CCC", "A", "BB"]
    await batcher.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=30),
    st.integers(1, 64),
    st.booleans(),
)
def test_every_item_is_answered_once_and_no_batch_is_over_budget(
    requests: list[list[int]], budget: int, in_place: bool
) -> None:
    engine = FakeEngine()
    texts = [[f"{i}.{j}".ljust(n, "x") for j, n in enumerate(request)] for i, request in enumerate(requests)]

    async def scenario() -> list[list[str]]:
        batcher = make(engine, batch_tokens=budget, queue_tokens=10**9, in_place=in_place)
        found = await asyncio.gather(*(batcher.submit(request) for request in texts))
        assert batcher.tokens == 0
        await batcher.close()
        return [[one.answer for one in request] for request in found]

    assert asyncio.run(scenario()) == [[text.upper() for text in request] for request in texts]
    ran = [text for batch in engine.batches for text in batch]
    assert sorted(ran) == sorted(text for request in texts for text in request)
    for batch in engine.batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= budget


@pytest.mark.parametrize(("in_place", "next_batch"), [(False, ["L" * 30]), (True, ["L" * 30, "M" * 30])])
async def test_what_an_answer_brings_can_be_in_the_next_batch_on_the_event_loop(
    in_place: bool, next_batch: list[str]
) -> None:
    engine = FakeEngine()
    batcher = make(engine, batch_tokens=60, in_place=in_place)

    async def user() -> None:
        await batcher.submit(["first"])
        await batcher.submit(["M" * 30])

    full = ["F" * 60]
    await asyncio.gather(batcher.submit(full), user(), batcher.submit(["L" * 30]))
    assert engine.batches[:3] == [full, ["first"], next_batch]
    await batcher.close()


async def test_on_the_event_loop_an_idle_engine_starts_before_anything_else_is_heard_of() -> None:
    engine = FakeEngine()
    batcher = make(engine, in_place=True)
    answers = asyncio.gather(batcher.submit(["a", "b"]), batcher.submit(["c"]))
    await asyncio.sleep(0)
    assert engine.batches == [["a", "b"]]
    await answers
    assert engine.batches == [["a", "b"], ["c"]]
    await batcher.close()


async def test_on_the_event_loop_batches_run_on_its_own_thread_and_let_others_have_their_turn() -> None:
    threads: list[int] = []
    turns = 0

    def run(batch: Sequence[str]) -> Sequence[str]:
        threads.append(threading.get_ident())
        return batch

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    cost = BatchCost(overhead=4, budget=1, per_second=10_000)
    batcher: Batcher[str, str] = Batcher(run, padded_length=lambda n: n, cost=cost, queue_tokens=10_000)
    counting = asyncio.create_task(count())
    await asyncio.gather(*(batcher.submit(["x"]) for _ in range(10)))
    counting.cancel()
    assert threads == [threading.get_ident()] * 10
    assert turns >= 2 * len(threads)
    await batcher.close()


async def test_the_oldest_item_is_always_in_the_next_batch() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine, batch_tokens=32)
    first = await held(batcher, engine)
    long = asyncio.create_task(batcher.submit(["L" * 30]))
    await asyncio.sleep(0)
    short = [asyncio.create_task(batcher.submit([f"s{i}"])) for i in range(100)]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, long, *short)
    assert engine.batches[1] == ["L" * 30]
    await batcher.close()


async def test_neighbours_in_length_are_batched_together() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine, batch_tokens=32)
    first = await held(batcher, engine)
    waiting = [asyncio.create_task(batcher.submit([text])) for text in ("a" * 4, "b" * 30, "c" * 4, "d" * 5, "e" * 29)]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, *waiting)
    assert [sorted(map(len, batch)) for batch in engine.batches[1:]] == [[4, 4, 5], [30], [29]]
    await batcher.close()


async def test_a_request_that_does_not_fit_the_queue_is_refused_whole() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine, queue_tokens=20)
    first = await held(batcher, engine)
    with pytest.raises(Overloaded) as refused:
        await batcher.submit(["x" * 10, "y" * 10])
    assert refused.value.retry_after >= 1
    engine.gate.set()
    await first
    assert [one.answer for one in await batcher.submit(["x" * 10, "y" * 10])] == ["X" * 10, "Y" * 10]
    await batcher.close()


async def test_cancelling_one_request_drops_it_and_leaves_its_neighbours_alone() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine)
    first = await held(batcher, engine)
    gone = asyncio.create_task(batcher.submit(["gone"]))
    stays = asyncio.create_task(batcher.submit(["stay"]))
    await asyncio.sleep(0)
    gone.cancel()
    engine.gate.set()
    await first
    assert (await stays)[0].answer == "STAY"
    assert ["gone"] not in engine.batches
    assert not any("gone" in batch for batch in engine.batches)
    await until(lambda: batcher.tokens == 0, "tokens of the cancelled request")
    await batcher.close()


async def test_an_item_past_its_deadline_is_dropped_before_it_is_run() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine)
    first = await held(batcher, engine)
    late = asyncio.create_task(batcher.submit(["late"], time.monotonic() + 0.01))
    await asyncio.sleep(0.05)
    engine.gate.set()
    with pytest.raises(DeadlinePassed):
        await late
    await first
    assert not any("late" in batch for batch in engine.batches)
    assert batcher.tokens == 0
    await batcher.close()


async def test_an_engine_error_reaches_its_batch_only() -> None:
    engine = FakeEngine()
    batcher = make(engine)
    with pytest.raises(ValueError, match="poison"):
        await batcher.submit(["poison"])
    assert (await batcher.submit(["fine"], math.inf))[0].answer == "FINE"
    await batcher.close()


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_batch_that_fails_is_run_again_one_by_one(
    in_place: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, counted = FakeEngine(), []
    batcher = make(engine, in_place=in_place)
    monkeypatch.setattr(batcher, "_on_batch", lambda *one: counted.append(one))
    requests = [["aaaaaa", "bbbbbb"], ["poison"], ["cccccc"]]
    blocker = asyncio.create_task(batcher.submit(["first"]))  # what comes meanwhile is one batch
    found = await asyncio.gather(*(batcher.submit(one) for one in requests), return_exceptions=True)
    await blocker
    assert max(map(len, engine.batches)) > 1
    assert [one.answer for one in found[0]] == ["AAAAAA", "BBBBBB"]  # type: ignore[union-attr]
    assert isinstance(found[1], ValueError)
    assert found[2][0].answer == "CCCCCC"  # type: ignore[index]
    assert batcher.tokens == 0
    assert sum(items for items, *_ in counted) == 4  # what failed is in no count
    assert all(seconds > 0 for *_, seconds in counted)
    assert "run again one by one: poison" in caplog.text
    await batcher.close()


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_batch_of_one_that_fails_is_not_run_again(in_place: bool) -> None:
    engine = FakeEngine()
    batcher = make(engine, in_place=in_place)
    with pytest.raises(ValueError, match="poison"):
        await batcher.submit(["poison"])
    assert engine.batches == [["poison"]]
    await batcher.close()


async def test_an_engine_that_answers_too_few_is_an_error_and_not_a_silence() -> None:
    cost = BatchCost(overhead=4, budget=32, per_second=10_000)
    batcher: Batcher[str, str] = Batcher(lambda batch: [], padded_length=lambda n: n, cost=cost, queue_tokens=100)
    with pytest.raises(ValueError, match="0 answers came for 1 items"):
        await batcher.submit(["a", "b"])
    await batcher.close()


async def test_an_error_in_one_batch_drops_the_rest_of_its_request() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine)
    first = await held(batcher, engine)
    failing = asyncio.create_task(batcher.submit(["poison"] + ["L" * 30] * 3))
    await asyncio.sleep(0)
    engine.gate.set()
    with pytest.raises(ValueError, match="poison"):
        await failing
    await first
    await until(lambda: batcher.tokens == 0, "tokens of the failed request")
    assert len(engine.batches) < 5
    await batcher.close()


async def test_what_arrives_together_at_an_idle_engine_is_one_batch() -> None:
    engine = FakeEngine()
    batcher = make(engine)
    await asyncio.gather(*(batcher.submit([text]) for text in ("aaaa", "bbbb", "cccc")))
    assert engine.batches == [["aaaa", "bbbb", "cccc"]]
    await batcher.close()


async def test_closing_runs_what_is_waiting_and_refuses_what_comes_later() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine)
    first = await held(batcher, engine)
    waiting = asyncio.create_task(batcher.submit(["wait"]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await batcher.submit(["late"])
    engine.gate.set()
    await closing
    assert (await waiting)[0].answer == "WAIT"
    await first


async def test_late_and_cancelled_items_leave_the_queue_at_once() -> None:
    engine = FakeEngine(held=True)
    batcher = make(engine, queue_tokens=40)
    first = await held(batcher, engine)
    late = asyncio.create_task(batcher.submit(["x" * 15], time.monotonic() + 0.02))
    gone = asyncio.create_task(batcher.submit(["y" * 15]))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(DeadlinePassed):
        await late
    assert batcher.tokens == len("first")
    fits = asyncio.create_task(batcher.submit(["z" * 30]))
    await asyncio.sleep(0)
    engine.gate.set()
    assert (await fits)[0].answer == "Z" * 30
    await first
    await batcher.close()
