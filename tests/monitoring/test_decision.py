"""What counts as drift, and what never crashes a decision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import kstest

from monitoring.judging.decision import Decision, decide, holm
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.classifier import separation
from monitoring.signals.columns import Columns, columns_of
from monitoring.signals.detectors import accuracy_test, label_test, number_test, pool_sparse
from service.contract.features import hash_tokens
from service.contract.record import REFERENCE_SCHEMA
from tests.monitoring.world import DRIFTED, HOME, Kind, rows, table


def columns(count: int, kind: Kind = HOME, seed: int = 0) -> Columns:
    return columns_of(table(rows(count, kind, seed)))


def decided(window: Columns, reference: Columns | None = None) -> Decision:
    return decide(reference or columns(400, seed=1), window, Thresholds())


def test_rows_like_the_reference_do_not_drift() -> None:
    decision = decided(columns(200, seed=2))
    assert decision.severity == "none"
    assert {signal.name for signal in decision.signals} == {
        *("label", "confidence", "n_tokens", "embedding", "tokens", "constant")
    }


def test_texts_and_outputs_of_another_kind_are_a_warning_that_names_what_moved() -> None:
    decision = decided(columns(200, DRIFTED, seed=2))
    assert decision.severity == "warning"
    assert {"label", "confidence", "embedding", "tokens"} <= set(decision.drifted)
    assert {"photon", "laser", "qubit"} & {row.value for row in decision.tokens}
    assert decision.labels[0].value in ("yes", "no")
    directions = {signal.name: signal.direction for signal in decision.signals}
    assert directions["confidence"] == "lower"
    assert directions["label"] == "more of: yes"
    assert directions["tokens"].startswith("more of: ")


def test_a_fifth_of_new_texts_with_the_same_answers_is_only_a_notice() -> None:
    decision = decided(columns(400, Kind(foreign=0.2), seed=2))
    assert decision.severity == "notice"
    assert not {"label", "confidence"} & set(decision.drifted)


def test_answers_that_change_are_a_warning_even_if_the_texts_do_not() -> None:
    decision = decided(columns(400, Kind(yes=0.75), seed=2))
    assert decision.severity == "warning"
    assert "the mix of answers" in decision.reason
    assert decision.drifted == ("label",)


def test_a_significant_but_small_effect_is_no_drift() -> None:
    thresholds = Thresholds(effect_scale=100.0)
    assert decide(columns(400, seed=1), columns(200, DRIFTED, seed=2), thresholds).severity == "none"


def test_a_few_texts_repeated_many_times_are_not_many_observations() -> None:
    few = rows(10, seed=5) * 50
    assert decided(columns_of(table(few))).severity == "none"
    assert len(columns_of(table(few)).distinct) == 10


def test_features_only_rows_are_compared_by_their_hashed_tokens() -> None:
    hidden = [{**row, "tokens": hash_tokens(row["text"]), "text": None} for row in rows(200, Kind(foreign=1.0), 2)]
    decision = decided(columns_of(table(hidden)))
    assert "tokens" in decision.drifted
    assert decision.tokens == ()  # no words can be read back


def test_estimated_accuracy_falls_with_confidence() -> None:
    same = decided(columns(300, seed=2))
    worse = decided(columns(300, Kind(sharpness=1.0), seed=2))
    assert same.accuracy_reference == pytest.approx(0.94, abs=0.04)
    assert same.estimate is not None
    assert same.estimate.accuracy == pytest.approx(same.accuracy_reference, abs=0.03)
    assert worse.estimate is not None
    assert worse.estimate.accuracy < same.accuracy_reference - 0.05
    assert worse.estimate.trusted


def test_without_targets_there_is_no_accuracy() -> None:
    blind = columns_of(table([{**row, "target": None} for row in rows(100, seed=1)]))
    decision = decide(blind, columns(100), Thresholds())
    assert (decision.accuracy_reference, decision.estimate) == (None, None)


DEGENERATE = {
    "all texts null": {"text": None},
    "all texts empty": {"text": ""},
    "all texts equal": {"text": "hello"},
    "one class": {"label": "yes"},
    "all labels null": {"label": None},
    "confidence not a number": {"confidence": float("nan")},
    "confidence null": {"confidence": None},
    "confidence constant": {"confidence": 1.0},
    "infinite embedding": {"embedding": [float("inf")] * 32},
    "embedding null": {"embedding": None},
    "embedding constant": {"embedding": [0.0] * 32},
    "everything null": dict.fromkeys(REFERENCE_SCHEMA.names),
    "emoji": {"text": "🙂🙃 שלום"},
}


@pytest.mark.parametrize("change", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("side", ["window", "reference", "both"])
def test_degenerate_columns_never_crash_a_decision(change: dict[str, object], side: str) -> None:
    plain, broken = rows(60, seed=1), [{**row, **change} for row in rows(60, seed=2)]
    reference = columns_of(table(broken if side in ("reference", "both") else plain))
    window = columns_of(table(broken if side in ("window", "both") else plain))
    for signal in decide(reference, window, Thresholds()).signals:
        assert np.isfinite([signal.statistic, signal.p_value, signal.effect]).all()


def test_a_window_of_one_row_or_none_is_decided() -> None:
    assert decided(columns(1, DRIFTED)).severity == "none"
    assert decided(columns_of(table([]))).signals == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": "the same again"}, "more of one input"),
        ({"text": ""}, "more empty or placeholders"),
        ({"text": " \n"}, "more empty or placeholders"),
        ({"text": None, "tokens": None}, "more without a text"),
        ({"label": None}, "more without a label"),
        ({"confidence": None, "probs": None}, "more without a confidence"),
    ],
)
def test_a_window_that_says_nothing_new_is_critical(change: dict[str, object], says: str) -> None:
    decision = decided(columns_of(table([{**row, **change} for row in rows(200, seed=2)])))
    assert decision.severity == "critical"
    assert "constant" in decision.drifted
    assert {signal.name: signal.direction for signal in decision.signals}["constant"] == says


def test_some_repeats_are_ordinary() -> None:
    many = rows(200, seed=2)
    repeated = [many[0] if index % 7 == 0 else row for index, row in enumerate(many)]
    assert "constant" not in decided(columns_of(table(repeated))).drifted


def test_a_table_of_texts_alone_is_compared_by_words_and_their_number() -> None:
    texts = pa.table({"text": [row["text"] for row in rows(200, DRIFTED)]})
    names = {signal.name for signal in decided(columns_of(texts)).signals}
    assert names == {"tokens", "n_words", "constant"}


def test_a_label_never_seen_in_the_reference_counts() -> None:
    new = [{**row, "label": "maybe"} if index < 30 else row for index, row in enumerate(rows(200, seed=2))]
    test = label_test(columns(400, seed=1), columns_of(table(new)))
    assert test is not None
    assert test.p_value < 1e-6
    assert test.direction == "more of: maybe"


def test_rare_classes_are_pooled_until_each_is_expected_five_times() -> None:
    counts = np.array([[500.0, 300.0] + [5.0] * 40, [50.0, 30.0] + [0.5] * 40])
    pooled = pool_sparse(counts)
    expected = pooled.sum(axis=0) / pooled.sum() * pooled.sum(axis=1).min()
    assert (expected >= 5).all()
    assert pooled.sum(axis=1) == pytest.approx(counts.sum(axis=1))
    assert pooled.shape[1] >= 4


def test_holm_corrects_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.9]) == [1.0, 1.0]


def test_p_values_of_the_classifier_test_are_uniform_without_drift() -> None:
    random = np.random.default_rng(3)
    p_values = []
    for seed in range(80):
        data = random.standard_normal((120, 8)) @ random.standard_normal((8, 32))
        found = separation(data[:80], data[80:], permutations=99, seed=seed)
        assert found is not None
        p_values.append(found.p_value)
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) <= 0.11


def test_the_number_test_agrees_with_scipy() -> None:
    from scipy.stats import ks_2samp

    reference, window = columns(300, seed=1), columns(200, Kind(sharpness=5.0), seed=2)
    test = number_test("confidence", reference, window)
    assert test is not None
    assert reference.confidence is not None
    assert window.confidence is not None
    expected = ks_2samp(reference.confidence, window.confidence, method="asymp")
    assert test.statistic == pytest.approx(expected.statistic)
    assert test.p_value == pytest.approx(expected.pvalue, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("window_rows", [100, 500])
def test_false_alarms_stay_rare_and_drift_is_found(window_rows: int) -> None:
    """A thinner form of ``loadtest/bench_drift.py``: fails if calibration or power broke."""
    severities: dict[str, list[str]] = {"home": [], "away": []}
    for seed in range(40):
        reference = columns(436, seed=1000 + seed)
        for name, kind in (("home", HOME), ("away", Kind(foreign=0.5))):
            decision = decide(reference, columns(window_rows, kind, 2000 + seed), Thresholds(), seed=seed)
            severities[name].append(decision.severity)
    assert sum(severity != "none" for severity in severities["home"]) <= 3  # P < 0.01 at a true rate of 2 %
    assert sum(severity == "none" for severity in severities["away"]) <= 2


BASE = columns_of(table(rows(40)))


def with_outcomes(outcomes: np.ndarray) -> Columns:
    return replace(BASE, outcomes=outcomes)


@pytest.mark.slow
def test_looking_at_every_label_raises_no_more_false_alarms_than_looking_once() -> None:
    """Of 300 streams as good as the reference, each looked at after every tenth label up to 1,000."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(300):
        reference = with_outcomes(rng.random(500) < 0.9)
        stream = rng.random(1_000) < 0.9
        found = (accuracy_test(reference, with_outcomes(stream[:seen])) for seen in range(30, 1_001, 10))
        alarms += any(test is not None and test.p_value <= 0.01 for test in found)
    assert alarms <= 6  # 1 % and the share of references whose lower bound is too high; 3 are expected at most


@pytest.mark.parametrize(("accuracy", "labels"), [(0.6, 100), (0.75, 250)])
def test_an_accuracy_that_fell_is_found_by_few_labels(accuracy: float, labels: int) -> None:
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(40):
        test = accuracy_test(with_outcomes(rng.random(500) < 0.9), with_outcomes(rng.random(labels) < accuracy))
        assert test is not None
        found += test.p_value <= 0.01 / 8 and test.effect >= 0.05
    assert found >= 32


def test_a_recovered_accuracy_is_believed_again() -> None:
    reference = with_outcomes(np.arange(500) % 10 > 0)
    fallen = np.zeros(60, dtype=bool)
    after = np.concatenate([fallen, np.ones(900, dtype=bool)])
    during, later = (accuracy_test(reference, with_outcomes(one)) for one in (fallen, after))
    assert during is not None
    assert later is not None
    assert (during.p_value < 1e-6, later.p_value > 0.5) == (True, True)


def test_answers_that_were_always_wrong_are_no_baseline() -> None:
    test = accuracy_test(with_outcomes(np.zeros(50, dtype=bool)), with_outcomes(np.zeros(50, dtype=bool)))
    assert test is not None
    assert (test.p_value, test.effect) == (1.0, 0.0)
