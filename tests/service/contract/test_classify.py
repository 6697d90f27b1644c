"""Logits to labels: against reference formulas, and for any finite logits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.contract.bundle import Task
from service.tasks.classification import Floats, confidences, correct, predicted_labels, probabilities
from service.tasks.observation import observe

# Beyond what a half-precision model can put out.
LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-70_000, 70_000, width=32),
)
TASKS: list[Task] = ["single-label", "multi-label"]


def reference(logits: Floats, task: Task) -> np.ndarray:
    """The textbook formula in double precision."""
    x = logits.astype(np.float64)
    if task == "multi-label":
        return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("task", TASKS)
class TestProbabilities:
    @given(logits=LOGITS)
    def test_they_equal_the_textbook_formula_without_a_warning(self, task: Task, logits: Floats) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            probs = probabilities(logits, task)
        assert probs.shape == logits.shape
        assert probs.dtype == np.float32
        np.testing.assert_allclose(probs, reference(logits, task), atol=1e-6)

    @given(logits=LOGITS)
    def test_they_lie_between_0_and_1(self, task: Task, logits: Floats) -> None:
        probs = probabilities(logits, task)
        assert ((probs >= 0) & (probs <= 1)).all()
        if task == "single-label":
            np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)

    @given(logits=LOGITS, shift=st.floats(-100, 100, width=32))
    def test_a_larger_logit_never_has_the_smaller_probability(self, task: Task, logits: Floats, shift: float) -> None:
        order = np.argsort(logits, axis=1)
        assert (np.diff(np.take_along_axis(probabilities(logits, task), order, axis=1), axis=1) >= 0).all()

    @given(logits=LOGITS)
    def test_confidence_lies_between_0_and_1(self, task: Task, logits: Floats) -> None:
        values = confidences(probabilities(logits, task), task)
        assert values.shape == (len(logits),)
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()

    def test_no_rows(self, task: Task) -> None:
        empty = np.zeros((0, 3), dtype=np.float32)
        assert probabilities(empty, task).shape == (0, 3)
        assert predicted_labels(empty, "abc", task) == []
        assert confidences(empty, task).shape == (0,)


class TestLabels:
    def test_one_label_is_the_most_probable(self) -> None:
        probs = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], dtype=np.float32)
        assert predicted_labels(probs, ["a", "b", "c"], "single-label") == ["b", "a"]
        assert confidences(probs, "single-label").tolist() == pytest.approx([0.5, 0.4])

    def test_several_labels_are_those_of_at_least_one_half_in_the_models_order(self) -> None:
        probs = np.array([[0.9, 0.5, 0.8], [0.1, 0.49, 0.2], [0.0, 0.0, 1.0]], dtype=np.float32)
        assert predicted_labels(probs, ["c", "b", "a"], "multi-label") == ["c|b|a", "", "a"]

    def test_several_labels_are_as_sure_as_all_of_them_together(self) -> None:
        probs = np.array([[0.9, 0.2], [0.5, 0.5]], dtype=np.float32)
        assert confidences(probs, "multi-label").tolist() == pytest.approx([0.72, 0.25])

    @given(logits=LOGITS)
    def test_a_label_is_predicted_if_its_logit_is_not_negative(self, logits: Floats) -> None:
        names = [str(index) for index in range(logits.shape[1])]
        for row, label in zip(
            logits, predicted_labels(probabilities(logits, "multi-label"), names, "multi-label"), strict=True
        ):
            # Logits that single precision cannot tell from 0 may fall on either side.
            chosen = set(label.split("|")) - {""}
            assert {name for name, logit in zip(names, row, strict=True) if logit >= 0} <= chosen
            assert not {name for name, logit in zip(names, row, strict=True) if logit < -1e-6} & chosen


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


def test_observations_are_these_functions_together() -> None:
    logits = np.array([[2.0, -1.0], [0.0, 3.0]], dtype=np.float32)
    seen = observe(logits, np.ones((2, 8), dtype=np.float32), ["a", "b"], "single-label")
    assert seen.labels == ["a", "b"]
    np.testing.assert_allclose(seen.probs, reference(logits, "single-label"), atol=1e-6)
    np.testing.assert_array_equal(seen.confidence, seen.probs.max(axis=1))
    assert seen.projected.shape == (2, 32)
