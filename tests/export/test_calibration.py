"""Calibration and the change of each label, on answers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from export.judge.calibration import calibration_error, class_changes
from export.judge.gate import PredictedLabels, judge_quality, predicted
from service.contract.bundle import ClassChange
from service.tasks import MULTI_LABEL, SINGLE_LABEL


def error(confidence: list[float], right: list[bool], bins: int = 15) -> float:
    return calibration_error(np.array(confidence, dtype=np.float32), np.array(right), bins)


def test_the_gap_of_each_bin_counts_by_its_rows() -> None:
    # bins (0.6, 0.8] and (0.8, 1]: two rows sure of 0.7 with one right, and eight sure of 0.9 with six right.
    found = error([0.7] * 2 + [0.9] * 8, [True, False] + [True] * 6 + [False] * 2, bins=5)
    assert found == pytest.approx(0.2 * abs(0.7 - 0.5) + 0.8 * abs(0.9 - 0.75), abs=1e-6)


def test_gaps_within_a_bin_cancel_and_across_bins_do_not() -> None:
    assert error([0.75, 0.75], [True, False], bins=1) == pytest.approx(0.25)
    assert error([0.25, 0.75], [True, False], bins=1) == pytest.approx(0.0)
    assert error([0.25, 0.75], [True, False], bins=2) == pytest.approx(0.75)


def test_certainty_and_its_opposite_have_bins_of_their_own() -> None:
    assert error([1.0, 1.0], [True, True]) == 0.0
    assert error([0.0, 1.0], [False, True]) == 0.0
    assert error([1.0, 1.0], [False, False]) == 1.0


def test_confidence_as_it_ought_to_be_has_next_to_no_error() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1.0, 40_000).astype(np.float32)
    assert calibration_error(confidence, rng.uniform(size=40_000) < confidence) < 0.01


def test_recall_of_each_label_on_the_rows_that_carry_it() -> None:
    targets = ["a", "a", "a", "b"]
    changes = class_changes(["a", "a", "b", "b"], ["a", "b", "b", "b"], targets)
    assert changes == {
        "a": ClassChange(rows=3, baseline=2 / 3, exported=1 / 3),
        "b": ClassChange(rows=1, baseline=1.0, exported=1.0),
    }


def test_one_of_several_labels_counts_by_itself_and_none_predicted_is_a_miss() -> None:
    changes = class_changes(["a|b", "a"], ["b", ""], ["b|a", "a"])
    assert changes["a"] == ClassChange(rows=2, baseline=1.0, exported=0.0)
    assert changes["b"] == ClassChange(rows=1, baseline=1.0, exported=1.0)


def test_the_labels_that_changed_most_come_first_and_the_rest_is_left_out() -> None:
    targets = [label for label in "abcd" for _ in range(4)]
    exported = ["x" if row in (4, 8, 9) else label for row, label in enumerate(targets)]  # one of b, two of c
    assert list(class_changes(targets, exported, targets)) == ["c", "b", "a", "d"]
    assert list(class_changes(targets, exported, targets, most=2)) == ["c", "b"]


def test_the_gate_reports_both_for_the_checkpoint_and_the_variant() -> None:
    targets = ["a", "b"]
    before = PredictedLabels(["a", "b"], np.array([1.0, 1.0], dtype=np.float32))
    after = PredictedLabels(["a", "a"], np.array([1.0, 1.0], dtype=np.float32))
    quality = judge_quality(before, after, [], targets, (), task=SINGLE_LABEL, max_drop=1.0)
    assert quality.calibration is not None
    assert (quality.calibration.baseline, quality.calibration.exported, quality.calibration.bins) == (0.0, 0.5, 15)
    assert list(quality.classes) == ["b", "a"]


def test_the_confidence_of_several_labels_is_that_of_the_whole_set() -> None:
    logits = np.log(np.array([[0.8 / 0.2, 0.4 / 0.6]], dtype=np.float32))
    answer = predicted(logits, ["a", "b"], MULTI_LABEL, ())
    assert answer.labels == ["a"]
    assert answer.confidence[0] == pytest.approx(0.8 * 0.6)
