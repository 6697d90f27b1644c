"""Logits to labels: against reference formulas, and for any finite logits."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.contract.errors import BundleError
from service.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS, Task, task_named
from service.tasks.classification import correct
from service.tasks.observation import observe
from service.tasks.regression import Regression
from service.tasks.task import Floats
from service.tasks.tokenizer import Tokens

CATEGORICAL = [task for task in TASKS.values() if task.categorical and not task.per_token]

# Beyond what a half-precision model can put out.
LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-70_000, 70_000, width=32),
)


def reference(logits: Floats, task: Task) -> np.ndarray:
    """The textbook formula in double precision."""
    x = logits.astype(np.float64)
    if task is MULTI_LABEL:
        return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("task", CATEGORICAL, ids=[task.name for task in CATEGORICAL])
class TestProbabilities:
    @given(logits=LOGITS)
    def test_they_equal_the_textbook_formula_without_a_warning(self, task: Task, logits: Floats) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            probs = task.probabilities(logits)
        assert probs.shape == logits.shape
        assert probs.dtype == np.float32
        np.testing.assert_allclose(probs, reference(logits, task), atol=1e-6)

    @given(logits=LOGITS)
    def test_they_lie_between_0_and_1(self, task: Task, logits: Floats) -> None:
        probs = task.probabilities(logits)
        assert ((probs >= 0) & (probs <= 1)).all()
        if task is SINGLE_LABEL:
            np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)

    @given(logits=LOGITS, shift=st.floats(-100, 100, width=32))
    def test_a_larger_logit_never_has_the_smaller_probability(self, task: Task, logits: Floats, shift: float) -> None:
        order = np.argsort(logits, axis=1)
        assert (np.diff(np.take_along_axis(task.probabilities(logits), order, axis=1), axis=1) >= 0).all()

    @given(logits=LOGITS)
    def test_confidence_lies_between_0_and_1(self, task: Task, logits: Floats) -> None:
        values = task.confidences(task.probabilities(logits), ())
        assert values.shape == (len(logits),)
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()

    def test_no_rows(self, task: Task) -> None:
        empty = np.zeros((0, 3), dtype=np.float32)
        assert task.probabilities(empty).shape == (0, 3)
        assert task.answers(empty, "abc", ()) == []
        assert task.confidences(empty, ()).shape == (0,)


class TestLabels:
    def test_one_label_is_the_most_probable(self) -> None:
        probs = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], dtype=np.float32)
        assert SINGLE_LABEL.answers(probs, ["a", "b", "c"], ()) == ["b", "a"]
        assert SINGLE_LABEL.confidences(probs, ()).tolist() == pytest.approx([0.5, 0.4])

    def test_several_labels_are_those_of_at_least_one_half_in_the_models_order(self) -> None:
        probs = np.array([[0.9, 0.5, 0.8], [0.1, 0.49, 0.2], [0.0, 0.0, 1.0]], dtype=np.float32)
        assert MULTI_LABEL.answers(probs, ["c", "b", "a"], ()) == ["c|b|a", "", "a"]

    def test_several_labels_are_as_sure_as_all_of_them_together(self) -> None:
        probs = np.array([[0.9, 0.2], [0.5, 0.5]], dtype=np.float32)
        assert MULTI_LABEL.confidences(probs, ()).tolist() == pytest.approx([0.72, 0.25])

    @given(logits=LOGITS)
    def test_a_label_is_predicted_if_its_logit_is_not_negative(self, logits: Floats) -> None:
        names = [str(index) for index in range(logits.shape[1])]
        answers = MULTI_LABEL.answers(MULTI_LABEL.probabilities(logits), names, ())
        for row, label in zip(logits, answers, strict=True):
            # Logits that single precision cannot tell from 0 may fall on either side.
            chosen = set(label.split("|")) - {""}
            assert {name for name, logit in zip(names, row, strict=True) if logit >= 0} <= chosen
            assert not {name for name, logit in zip(names, row, strict=True) if logit < -1e-6} & chosen


class TestNumbers:
    def test_an_answer_is_the_output_or_its_sigmoid(self) -> None:
        logits = np.array([[0.0], [1.25], [-2.0]], dtype=np.float32)
        squashed = Regression(squashed=True)
        assert REGRESSION.answers(REGRESSION.probabilities(logits), ["score"], ()) == ["0", "1.25", "-2"]
        assert [float(one) for one in squashed.answers(squashed.probabilities(logits), ["score"], ())] == pytest.approx(
            [0.5, 0.777300, 0.119203], abs=1e-6
        )

    def test_it_is_right_within_half_the_spread_of_what_was_trained_on(self) -> None:
        task = REGRESSION.fitted(["0", "4"])  # a standard deviation of 2
        assert task.settings["spread"] == 2
        assert task.correct(["1", "1", "1"], ["2", "2.01", "nonsense"]).tolist() == [True, False, False]
        assert task.same(["1", "1"], ["1.49", "1.51"]).tolist() == [True, False]

    @pytest.mark.parametrize("target", ["", "good", "nan", "inf", "1|2"])
    def test_what_is_no_finite_number_is_named(self, target: str) -> None:
        assert "wants a finite number" in str(REGRESSION.problem(target, "a text"))

    def test_its_settings_come_back_from_a_manifest(self) -> None:
        task = Regression(squashed=True, spread=1.5)
        assert task_named("regression", task.settings) == task
        with pytest.raises(BundleError, match=r"with \{'unheard': 1\}"):
            task_named("regression", {"unheard": 1})


class TestCorrect:
    def test_the_order_of_several_labels_does_not_matter(self) -> None:
        found = correct(["a|b", "a", "", "a", "a|b"], ["b|a", "a", "", "b", "a"])
        assert found.dtype == np.bool_
        assert found.tolist() == [True, True, True, False, False]

    def test_spaces_and_repetitions_do_not_matter_and_none_is_a_set_too(self) -> None:
        found = correct(["a|b", "a", "", "a", ""], ["b | a|b", " a ", " ", "", "a"])
        assert found.tolist() == [True, True, True, False, False]

    def test_as_many_targets_as_predictions(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            correct(["a", "b"], ["a"])

    def test_a_label_is_compared_whole(self) -> None:
        assert not correct(["refund"], ["refunds"])[0]


@pytest.mark.parametrize("task", CATEGORICAL, ids=[task.name for task in CATEGORICAL])
@given(logits=LOGITS)
def test_an_answer_names_what_was_decided(task: Task, logits: Floats) -> None:
    names = [f"label {index}" for index in range(logits.shape[1])]
    probs = task.probabilities(logits)
    for answer, decided in zip(task.answers(probs, names, ()), task.decided(probs), strict=True):
        named = [one for one in task.named(answer) if one]
        assert named == [name for name, has in zip(names, decided, strict=True) if has]
        assert task.several or len(named) == 1


def test_a_bundle_of_an_unknown_task_is_refused_by_name() -> None:
    with pytest.raises(BundleError, match=r"'summarization'.*single-label, multi-label"):
        task_named("summarization")


def test_nothing_but_the_tasks_themselves_asks_for_the_name_of_one() -> None:
    """No other module writes a task's name, and none compares one."""
    name = "|".join(map(re.escape, [*TASKS, *(task.problem_type for task in TASKS.values() if task.problem_type)]))
    compared = re.compile(
        rf"[\"'](?:{name})[\"']"
        r"|\btask(?:\.name)?\s+(?:==|!=|is\s+(?:not\s+)?(?:[A-Z]{2}|[\"'])|(?:not\s+)?in\s+[\[({\"'])"
    )
    root = Path(__file__).parents[3]
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for package in ("service", "export", "monitoring", "plumbline")
        for path in sorted((root / package).rglob("*.py"))
        if path.parent.name != "tasks"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if compared.search(line)
    ]
    assert found == []


def test_observations_are_these_functions_together() -> None:
    logits = np.array([[2.0, -1.0], [0.0, 3.0]], dtype=np.float32)
    seen = observe(
        logits,
        np.ones((2, 8), dtype=np.float32),
        ["a", "b"],
        SINGLE_LABEL,
        [Tokens([1, 2], [0, 0], truncated=False, unk_share=0.0)] * 2,
    )
    assert seen.labels == ["a", "b"]
    np.testing.assert_allclose(seen.probs, reference(logits, SINGLE_LABEL), atol=1e-6)
    np.testing.assert_array_equal(seen.confidence, seen.probs.max(axis=1))
    assert seen.projected.shape == (2, 32)
