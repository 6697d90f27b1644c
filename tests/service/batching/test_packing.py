"""Which lengths run together, and what batches are thought to cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.packing import BatchCost, pack
from service.engine.cost import fit, measure
from service.tasks.tokenizer import Tokens

histograms = st.dictionaries(st.integers(1, 60), st.integers(1, 30), min_size=1, max_size=20)


def price(taken: dict[int, int], overhead: float) -> float:
    """What a token of these texts costs in one batch."""
    items = sum(taken.values())
    return (overhead + items * max(taken)) / sum(length * count for length, count in taken.items())


@given(histograms, st.data(), st.integers(1, 400), st.floats(0, 1000))
def test_a_batch_holds_the_length_asked_for_keeps_the_budget_and_takes_no_more_than_is_there(
    waiting: dict[int, int], data: st.DataObject, budget: int, overhead: float
) -> None:
    length = data.draw(st.sampled_from(sorted(waiting)))
    taken = pack(waiting, length, BatchCost(overhead, budget, 1.0))
    assert taken[length] >= 1
    assert all(0 < count <= waiting[one] for one, count in taken.items())
    assert taken == {length: 1} or sum(taken.values()) * max(taken) <= budget
    chosen = sorted(taken)
    assert chosen == [one for one in sorted(waiting) if chosen[0] <= one <= chosen[-1]]


@given(histograms, st.data(), st.integers(1, 400), st.floats(0, 1000))
def test_company_never_makes_a_token_dearer(
    waiting: dict[int, int], data: st.DataObject, budget: int, overhead: float
) -> None:
    length = data.draw(st.sampled_from(sorted(waiting)))
    taken = pack(waiting, length, BatchCost(overhead, budget, 1.0))
    assert price(taken, overhead) <= price({length: 1}, overhead) + 1e-9


def test_where_a_batch_costs_little_more_than_its_tokens_only_neighbours_run_together() -> None:
    waiting = {8: 5, 20: 3, 22: 2, 60: 4}
    assert pack(waiting, 20, BatchCost(overhead=5, budget=512, per_second=1.0)) == {20: 3}
    assert pack({20: 1, 22: 1, 60: 4}, 20, BatchCost(5, 512, 1.0)) == {20: 1, 22: 1}


def test_where_starting_a_batch_is_dear_it_is_filled() -> None:
    waiting = {8: 5, 20: 3, 22: 2, 60: 4}
    assert pack(waiting, 20, BatchCost(overhead=5000, budget=10_000, per_second=1.0)) == waiting


def test_a_line_through_the_times_gives_the_overhead_and_the_rate() -> None:
    tokens = [32, 64, 128, 256, 512, 1024]
    cost = fit(tokens, [0.0001 * (8 + one) for one in tokens])
    assert cost.overhead == pytest.approx(8)
    assert cost.budget == 1024
    assert cost.per_second == pytest.approx(1024 / (0.0001 * 1032))


@pytest.mark.parametrize("seconds", [[0.001, 0.001, 0.001], [0.001, 0.004, 0.016], [0.002, 0.001, 0.001]])
def test_times_that_make_no_sense_still_give_a_cost_to_work_with(seconds: list[float]) -> None:
    cost = fit([32, 64, 128], seconds)
    assert cost.overhead >= 4
    assert cost.budget == 128


def test_no_batch_is_as_long_as_one_that_took_too_long() -> None:
    cost = measure(lambda batch: time.sleep(0.006 * len(batch)), max_length=32, most=0)
    assert cost.budget == 4 * 32
    assert measure(lambda batch: None, max_length=32, most=100).budget == 100


def test_by_the_clock_of_its_thread_a_batch_costs_the_same_on_a_busy_core() -> None:
    def run(batch: Sequence[object]) -> None:
        time.sleep(0.01)  # others have the core
        end = time.thread_time() + 0.001 * len(batch)
        while time.thread_time() < end:
            pass

    cost = measure(run, max_length=32, most=0, clock=time.thread_time)
    assert cost.budget == 32 * 32
    assert cost.overhead <= 16


def test_measuring_runs_growing_batches_of_one_length() -> None:
    seen: list[int] = []

    def run(batch: list[Tokens]) -> None:
        assert {len(tokens) for tokens in batch} == {16}
        seen.append(len(batch))

    cost = measure(run, max_length=16, most=0)  # type: ignore[arg-type]
    assert seen == sorted(seen)
    assert seen[-1] > 1
    assert cost.budget >= 16
