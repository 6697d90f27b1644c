"""What the search believes of an accuracy: labels and the checkpoint's probabilities together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.data.labels import one_hot
from export.judge.paired import paired_difference, standard_error
from export.search.estimate import Estimate, Judge
from service.tasks import MULTI_LABEL, SINGLE_LABEL, Task

ROWS, LABELS = 60_000, 4
SHARPNESS = 2.5  # the checkpoint's logits are so many times too large


def drawn(task: Task, rows: int = ROWS, seed: int = 0) -> tuple[Any, Any, Any]:
    """(true logits, overconfident logits of a checkpoint that knows them, labels drawn by them)."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, (rows, LABELS))
    if task == SINGLE_LABEL:
        picked = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
        has = np.arange(LABELS) == picked[:, None]
    else:
        has = rng.random(true.shape) < 1 / (1 + np.exp(-true))
    return true, (SHARPNESS * true).astype(np.float32), has


def right(logits: Any, has: Any, task: Task) -> Any:
    predicted = np.arange(LABELS) == logits.argmax(axis=1)[:, None] if task == SINGLE_LABEL else logits >= 0
    return (predicted == has).all(axis=1)


def labelled(judge: Judge, logits: Any) -> Estimate:
    paired = paired_difference(right(judge.wanted, judge.has, judge.task), right(logits, judge.has, judge.task))
    return Estimate(100 * paired.difference, 100 * standard_error(paired))


def noisy(logits: Any, size: float, seed: int = 1) -> Any:
    return logits + np.random.default_rng(seed).normal(0, size, logits.shape).astype(np.float32)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_the_temperature_undoes_overconfidence(task: Task) -> None:
    _, wanted, has = drawn(task)
    assert Judge(wanted, has, task).temperature == pytest.approx(SHARPNESS, rel=0.03)


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_without_labels_that_count_the_probabilities_give_the_true_difference(task: Task) -> None:
    """The labels' account is given no weight: what is left must be what so many labels really say."""
    _, wanted, has = drawn(task)
    judge, student = Judge(wanted, has, task), noisy(wanted, 1.5)
    truth = labelled(judge, student)
    assert truth.points < -1
    found = judge.estimate(student, Estimate(0.0, 1e6))
    assert found.points == pytest.approx(truth.points, abs=3 * truth.error)


def test_few_rows_tell_more_than_their_labels_do() -> None:
    """Over many draws of 500 rows the estimate is nearer to the truth than the labels are, and its error honest."""
    _, wanted, has = drawn(SINGLE_LABEL)
    truth = labelled(Judge(wanted, has, SINGLE_LABEL), noisy(wanted, 0.8)).points
    misses = []
    for seed in range(100):
        _, wanted, has = drawn(SINGLE_LABEL, rows=500, seed=seed + 1)
        judge, student = Judge(wanted, has, SINGLE_LABEL), noisy(wanted, 0.8, seed)
        said = labelled(judge, student)
        found = judge.estimate(student, said)
        misses.append((said.points - truth, found.points - truth, found.error))
    by_labels, by_both, error = np.abs(np.array(misses)).mean(axis=0)
    assert by_both < 0.6 * by_labels
    assert by_both < error


def test_labels_are_believed_where_they_are_many() -> None:
    _, wanted, has = drawn(SINGLE_LABEL)
    judge = Judge(wanted, has, SINGLE_LABEL)
    found = judge.estimate(noisy(wanted, 1.5), Estimate(-7.0, 0.01))
    assert found.points == pytest.approx(-7.0, abs=0.05)
    assert found.error <= 0.01


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
def test_the_same_answers_lose_nothing_however_few_the_rows(task: Task) -> None:
    _, wanted, has = drawn(task, rows=20)
    assert Judge(wanted, has, task).estimate(2 * wanted, Estimate(0.0, 8.0)) == Estimate(0.0, 0.0)


def test_some_of_the_rows_are_judged_as_if_there_were_no_others() -> None:
    _, wanted, has = drawn(SINGLE_LABEL, rows=200)
    some, given = np.arange(0, 200, 2), Estimate(-1.0, 1.0)
    part = Judge(wanted[some], has[some], SINGLE_LABEL)
    assert Judge(wanted, has, SINGLE_LABEL).of_units(some).estimate(noisy(wanted, 1.5)[some], given) == part.estimate(
        noisy(wanted, 1.5)[some], given
    )


def test_one_hot_has_every_label_of_a_row() -> None:
    found = one_hot(["b", "a|c"], ["a", "b", "c"])
    assert found.tolist() == [[False, True, False], [True, False, True]]
