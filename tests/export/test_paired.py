"""The bounds of a paired difference, and the verdict of the gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from sklearn.metrics import r2_score

from export.judge.gate import (
    PredictedLabels,
    check_baseline,
    explain,
    judge_quality,
    may_publish,
    refuse_unless_published,
    verdict,
)
from export.judge.paired import Paired, compared, lower_bound, paired_difference, rows_needed
from service.contract.dataset import Dataset
from service.contract.errors import Refused
from service.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

counts = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(80, 2000))


def counted(gained: int, lost: int, rows: int) -> Paired:
    return Paired(rows, gained, lost, (gained - lost) / rows, 0.0, 0.0)


def likelihood_bound(gained: int, lost: int, rows: int) -> float:
    """The same bound with nothing in closed form: the nuisance share is fitted by searching the likelihood."""

    def score(candidate: float) -> float:
        def loss(share: float) -> float:  # share of lost rows; gained is share + candidate
            terms = ((gained, share + candidate), (lost, share), (rows - gained - lost, 1 - 2 * share - candidate))
            return -sum(count * np.log(max(prob, 1e-300)) for count, prob in terms if count)

        low, high = max(0.0, -candidate), (1 - candidate) / 2
        share = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        return float((gained - lost - rows * candidate) / np.sqrt(rows * (2 * share + candidate - candidate**2)))

    return float(brentq(lambda candidate: score(candidate) - 1.6448536, -0.9, (gained - lost) / rows - 1e-6))


@pytest.mark.parametrize(("gained", "lost", "rows"), [(1, 7, 21), (12, 1, 44), (9, 9, 872), (30, 45, 872), (3, 0, 60)])
def test_agrees_with_a_search_of_the_likelihood(gained: int, lost: int, rows: int) -> None:
    assert lower_bound(gained, lost, rows) == pytest.approx(likelihood_bound(gained, lost, rows), abs=1e-4)


def test_no_discordant_row_among_few_is_not_certainty() -> None:
    z = 1.6448536269514722
    for rows in (20, 436, 872, 5000):
        assert lower_bound(0, 0, rows) == pytest.approx(-(z**2) / (rows + z**2), rel=1e-6)


@given(counts)
def test_bounds_enclose_the_estimate_and_mirror_each_other(case: tuple[int, int, int]) -> None:
    gained, lost, rows = case
    low, high = lower_bound(gained, lost, rows), -lower_bound(lost, gained, rows)
    assert -1 <= low <= (gained - lost) / rows <= high <= 1


@given(counts)
def test_more_rows_at_the_same_rates_narrow_the_bound(case: tuple[int, int, int]) -> None:
    gained, lost, rows = case
    assert lower_bound(4 * gained, 4 * lost, 4 * rows) >= lower_bound(gained, lost, rows) - 1e-9


def test_the_bound_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    shares, rows, trials = (0.02, 0.03), 400, 2000
    drawn = rng.multinomial(rows, [*shares, 1 - sum(shares)], size=trials)
    truth = shares[0] - shares[1]
    covered = np.mean([lower_bound(gained, lost, rows) <= truth for gained, lost, _ in drawn])
    assert 0.935 <= covered <= 0.97


def test_counts_which_rows_were_gained_and_lost() -> None:
    old = np.array([True, True, False, False, True])
    new = np.array([True, False, True, False, False])
    paired = paired_difference(old, new)
    assert (paired.gained, paired.lost, paired.difference) == (1, 2, -0.2)


def test_paired_arrays_must_match() -> None:
    with pytest.raises(ValueError, match="alike"):
        paired_difference(np.array([True]), np.array([True, False]))


MARGIN = 0.005


def settled(gained: int, lost: int, rows: int) -> bool:
    lower, upper = lower_bound(gained, lost, rows), -lower_bound(lost, gained, rows)
    return verdict(lower, upper, MARGIN) != "inconclusive"


@pytest.mark.parametrize("rows", [150, 400, 1_000])
def test_the_rows_said_to_be_needed_keep_their_promise(rows: int) -> None:
    """Models of all kinds are judged by few rows. So many new ones as were named last settle it in most cases, fewer
    than were named first in few."""
    rng = np.random.default_rng(rows)
    enough, too_few = [], []
    for _ in range(600):
        discordant = rng.choice([0.0, 0.005, 0.01, 0.03, 0.06])
        better = rng.uniform(0.2, 0.7)
        shares = [discordant * better, discordant * (1 - better), 1 - discordant]
        gained, lost, _same = rng.multinomial(rows, shares).tolist()
        if settled(gained, lost, rows):
            continue
        low, high = rows_needed(counted(gained, lost, rows), MARGIN)
        assert high is None or rows < low <= high
        if high is not None:
            enough.append(settled(*rng.multinomial(high, shares)[:2].tolist(), high))
        if (fewer := low // 2) > rows:
            too_few.append(settled(*rng.multinomial(fewer, shares)[:2].tolist(), fewer))
    assert np.mean(enough) >= 0.8
    assert np.mean(too_few) <= 0.3
    assert min(len(enough), len(too_few)) >= 30


def test_no_number_of_rows_is_sure_to_settle_an_estimate_on_the_margin() -> None:
    low, high = rows_needed(counted(0, 5, 1000), MARGIN)
    assert low > 1000
    assert high is None


def gate(lost: int, rows: int, **options: object):  # type: ignore[no-untyped-def]
    targets = ["a"] * rows
    exported = ["b"] * lost + ["a"] * (rows - lost)
    given = {"task": SINGLE_LABEL, "max_drop": 0.5} | options
    sure = np.ones(rows, dtype=np.float32)
    both = PredictedLabels(targets, sure), PredictedLabels(exported, sure)
    return judge_quality(*both, exported, targets, (), **given)  # type: ignore[arg-type]


def test_the_same_answers_on_many_rows_pass() -> None:
    assert gate(0, 1000).verdict == "pass"


def test_an_eval_set_too_small_to_judge_is_inconclusive_and_says_how_many_rows_it_takes() -> None:
    quality = gate(0, 100)
    assert quality.verdict == "inconclusive"
    assert quality.rows_needed is not None
    low, high = quality.rows_needed
    assert 250 < low < 900
    assert high is None or high > 900
    assert "eval rows" in explain(quality)


def test_a_plain_loss_is_never_published() -> None:
    quality = gate(60, 1000)
    assert (quality.verdict, quality.rows_needed) == ("fail", None)
    assert quality.difference == pytest.approx(-6)
    assert quality.flips == 60
    assert not may_publish(quality, strict=False)
    with pytest.raises(Refused, match=r"fail.*--max-drop"):
        refuse_unless_published({"cpu": quality}, strict=False)


def test_inconclusive_is_refused_only_if_that_was_asked_for() -> None:
    assert may_publish(gate(0, 100), strict=False)
    assert not may_publish(gate(0, 100), strict=True)
    with pytest.raises(Refused, match=r"inconclusive.*--strict") as refused:
        refuse_unless_published({"cpu": gate(0, 100)}, strict=True)
    assert refused.value.exit_code == 3


def test_the_most_frequent_label_is_the_least_to_be_better_than() -> None:
    targets = ["a"] * 6 + ["b"] * 4
    assert SINGLE_LABEL.trivial_score(targets, ()) == ("always answering 'a'", 0.6)
    assert MULTI_LABEL.trivial_score(["b|a", "a|b", "a"], ())[1] == pytest.approx(2 / 3)
    sure = np.ones(10, dtype=np.float32)
    check_baseline(PredictedLabels(["a"] * 7 + ["b"] * 3, sure), Dataset(["t"] * 10, targets), SINGLE_LABEL)
    with pytest.raises(Refused, match=r"accuracy 0.6000 on the 10 eval rows, and always answering 'a' would have 0.6"):
        check_baseline(PredictedLabels(["a"] * 10, sure), Dataset(["t"] * 10, targets), SINGLE_LABEL)


def test_labels_that_are_never_right_are_named() -> None:
    targets, sure = ["a", "a", "b", "b", "b", "c", "c"], np.ones(7, dtype=np.float32)
    quality = judge_quality(
        PredictedLabels(targets, sure),
        PredictedLabels(["a"] * 6 + ["c"], sure),
        [],
        targets,
        (),
        task=SINGLE_LABEL,
        max_drop=100.0,
    )
    assert quality.missed == {"b": 3}


def test_several_labels_count_as_right_only_together_and_in_any_order() -> None:
    sure = np.ones(2, dtype=np.float32)
    before, after = PredictedLabels(["a|b", "a"], sure), PredictedLabels(["b|a", "b"], sure)
    quality = judge_quality(before, after, ["b|a", "a"], ["a|b", "a"], (), task=MULTI_LABEL, max_drop=1.0)
    assert (quality.metric, quality.baseline, quality.exported, quality.flips) == ("exact match", 1.0, 0.5, 1)
    assert quality.batch_flip_rate == 0.5


@pytest.mark.parametrize(("flips", "published"), [(3, True), (15, False)])
def test_labels_that_change_in_batches_too_often_are_refused(flips: int, published: bool) -> None:
    """2 % of 300 rows are 6 flips; 3 prove nothing and 15 prove more."""
    alone = PredictedLabels(["a"] * 300, np.ones(300, dtype=np.float32))
    batched = ["b"] * flips + ["a"] * (300 - flips)
    quality = judge_quality(alone, alone, batched, alone.labels, (), task=SINGLE_LABEL, max_drop=5.0)
    assert quality.verdict == "pass"
    assert may_publish(quality, strict=True) is published
    if not published:
        with pytest.raises(Refused, match=r"5.0% of labels change when rows are batched"):
            refuse_unless_published({"cpu": quality}, strict=False)


class TestNumbers:
    """Of regression: rows are not right or wrong, and the bootstrap bounds what is between two models."""

    def answers(self, truth: np.ndarray, noise: float, seed: int) -> list[str]:
        return [f"{one:.6g}" for one in truth + np.random.default_rng(seed).normal(0, noise, len(truth))]

    def test_the_score_is_the_coefficient_of_determination(self) -> None:
        truth = np.random.default_rng(0).normal(3, 1, 500)
        given = self.answers(truth, 0.5, 1)
        targets = [str(one) for one in truth]
        found = REGRESSION.score(REGRESSION.merits(given, targets))
        assert found == pytest.approx(r2_score(truth, [float(one) for one in given]))
        assert REGRESSION.score(REGRESSION.merits([str(truth.mean())] * 500, targets)) == pytest.approx(0, abs=1e-9)

    @pytest.mark.slow
    def test_its_lower_bound_holds_in_nineteen_of_twenty_draws(self) -> None:
        """Both models are as good as each other in the long run, so the bound must lie below 0."""
        below = 0
        for draw in range(200):
            truth = np.random.default_rng(draw).normal(0, 1, 300)
            targets = [str(one) for one in truth]
            merits = [REGRESSION.merits(self.answers(truth, 0.5, seed), targets) for seed in (draw + 1000, draw + 2000)]
            below += compared(REGRESSION, *merits).lower < 0
        assert below >= 184  # 95 % of 200, less three standard errors

    def test_a_worse_model_is_found(self) -> None:
        truth = np.random.default_rng(0).normal(0, 1, 1000)
        targets = [str(one) for one in truth]
        before, after = (REGRESSION.merits(self.answers(truth, noise, 1), targets) for noise in (0.3, 0.5))
        found = compared(REGRESSION, before, after)
        assert found.upper < 0
        assert found.gained is None
        assert rows_needed(found, 0.005) is None

    def test_few_rows_that_agree_prove_little(self) -> None:
        merits = REGRESSION.merits(["1", "2", "3.1", "3.9"], ["1", "2", "3", "4"])
        found = compared(REGRESSION, merits, merits)
        assert found.difference == 0
        assert found.lower < 0 < found.upper
