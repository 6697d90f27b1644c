"""Two results compared: the verdict, its interval, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.load.compare import Compared, compare, overall
from loadtest.load.result import Maximum, Result
from service.contract.errors import InvalidInput
from tests.loadtest.load.results import latencies, result, stage_result


def of(median_ms: float, seed: int = 0, **other: object) -> Result:
    return result([stage_result(latencies(median_ms, seed=seed), **other)])


def by_figure(found: list[Compared]) -> dict[str, Compared]:
    return {one.figure: one for one in found}


def test_what_is_a_fifth_slower_is_worse_and_the_other_way_round_better() -> None:
    slow = by_figure(compare(of(10), of(12, seed=1), 0.05))
    assert slow["p50"].verdict == slow["p99"].verdict == "worse"
    assert slow["p50"].ratio.low < 1.2 < slow["p50"].ratio.high
    assert slow["share answered"].verdict == "no difference"
    assert overall(list(slow.values())) == "worse"
    assert overall(compare(of(12), of(10, seed=1), 0.05)) == "better"


def test_a_difference_within_the_tolerance_is_none() -> None:
    assert overall(compare(of(10), of(10.4, seed=1), 0.05)) == "no difference"
    assert by_figure(compare(of(10), of(10.4, seed=1), 0.0))["p50"].verdict == "worse"


def test_the_same_server_is_seldom_called_different() -> None:
    verdicts = [overall(compare(of(10, seed=2 * one), of(10, seed=2 * one + 1), 0.0)) for one in range(15)]
    assert verdicts.count("no difference") >= 12


def test_clients_are_compared_by_answers_a_second() -> None:
    many, few = latencies(10, 4000), latencies(10, 3000)
    found = compare(result([stage_result(many, clients=8)]), result([stage_result(few, clients=8)]), 0.05)
    assert by_figure(found)["answers a second"].verdict == "worse"
    assert by_figure(found)["answers a second"].ratio.value == pytest.approx(0.75)


def test_more_failures_are_worse() -> None:
    found = compare(of(10), of(10, failed=400), 0.05)
    assert by_figure(found)["share answered"].verdict == "worse"


def test_nothing_answered_any_more_is_worse() -> None:
    found = compare(of(10), of(10, failed=4000), 0.05)
    assert by_figure(found).keys() == {"share answered"}
    assert overall(found) == "worse"


def test_rounds_that_differ_among_themselves_hide_a_difference() -> None:
    moods = (0.7, 1.0, 1.3)
    one, other = (
        result([stage_result(*(latencies(median * mood, seed=seed + place) for place, mood in enumerate(moods)))])
        for median, seed in ((10, 0), (11, 10))
    )
    assert by_figure(compare(one, other, 0.05))["p50"].verdict == "no difference"


def test_maxima_differ_where_their_intervals_do_not_meet() -> None:
    def found(rate: float, low: float, high: float | None) -> Result:
        maximum = Maximum(rate=rate, low=low, high=high)
        return result([stage_result(latencies(10))], p99_objective_ms=50, maximum=maximum)

    assert overall(compare(found(500, 480, 520), found(400, 380, 420), 0.05)) == "worse"
    assert overall(compare(found(400, 380, 420), found(500, 480, None), 0.05)) == "better"
    assert overall(compare(found(400, 380, 480), found(450, 380, 520), 0.05)) == "no difference"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (of(10, rate=300.0), "no stage in common"),
        (of(10).model_copy(update={"batch": 8}), "different requests"),
        (of(10, late_ms=30), "does not count"),
        (result([stage_result(latencies(10, 50))]), "has 50 requests; at least 100"),
    ],
)
def test_what_cannot_be_compared_is_said(other: Result, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compare(of(10), other, 0.05)


def test_figures_are_whole_after_a_file(tmp_path: object) -> None:
    before = of(10, failed=5)
    again = Result.model_validate_json(before.model_dump_json())
    assert again == before
    assert all(np.isfinite(one.ratio.value) for one in compare(before, again, 0.0))
