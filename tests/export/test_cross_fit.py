"""Cross-fitting: the search and the gate share their rows, and what the gate calls shown is still true in 95 %."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.graph.quantize import DYNAMIC
from export.judge.paired import paired_difference
from export.measure.latency import Timed
from export.search.choice import LIKELY, choose, is_inside, most_faithful
from export.search.estimate import Judge
from export.search.trial import ANSWERS, SearchRows, Trial
from service.tasks import SINGLE_LABEL
from service.tasks.classification import correct
from service.tasks.tokenizer import Tokens

LABELS = ("a", "b")
NOISE = (0.0, 0.1, 0.2, *np.linspace(0.3, 1.5, 13))  # of the candidates' logits, from slow to fast
UNPRUNED = 3
TOKENS = Tokens([1], [0], truncated=False, unk_share=0.0)

Floats = npt.NDArray[np.float32]


def answers(rng: np.random.Generator, rows: int) -> tuple[Floats, list[Floats], npt.NDArray[np.bool_]]:
    """Logits of a checkpoint that knows how likely it is right, of its noisy candidates, and whether "a" is true."""
    margin = rng.normal(0, 3, rows)
    true = rng.random(rows) < 1 / (1 + np.exp(-margin))
    common, own = rng.normal(0, 1, rows), rng.normal(0, 1, (len(NOISE), rows))
    moved = [margin + noise * (0.6 * common + 0.8 * one) for noise, one in zip(NOISE, own, strict=True)]
    wanted, *others = (np.stack([one, np.zeros(rows)], axis=1).astype(np.float32) for one in (margin, *moved))
    return wanted, others, true


def right(logits: Floats, targets: list[str]) -> npt.NDArray[np.bool_]:
    return correct(SINGLE_LABEL.answers(SINGLE_LABEL.probabilities(logits), LABELS, ()), targets)


@pytest.fixture(scope="module")
def truth() -> list[float]:
    """Points that each candidate loses on very many rows."""
    wanted, others, true = answers(np.random.default_rng(0), 400_000)
    targets = np.where(true, "a", "b").tolist()
    before = right(wanted, targets)
    return [100 * float((right(one, targets).astype(int) - before).mean()) for one in others]


def walked(trials: list[Trial], max_drop: float) -> list[Trial]:
    """The unpruned ones, and five others, each chosen by what the rows said of those before: as the walk does."""
    tried, low, high = set(range(UNPRUNED)), UNPRUNED - 1, len(trials)
    for _ in range(5):
        middle = (low + high) // 2
        if middle in tried:
            break
        tried.add(middle)
        low, high = (middle, high) if is_inside(trials[middle], max_drop, errors=LIKELY) else (low, middle)
    return [trials[place] for place in sorted(tried)]


@pytest.mark.slow
def test_what_is_shown_on_the_rows_that_also_searched_is_true(truth: list[float], tmp_path: Path) -> None:
    """Walk, cross-fitted choice and gate on the same rows, many times: a pass is wrong once in twenty at most."""
    draws, rows, max_drop = 300, 400, 1.0
    passed, wrong = 0, 0
    times = {f"{place}/graph": Timed(9.0 - place / 4, (9.0 - place / 4,) * 2, 9.0) for place in range(len(NOISE))}
    for place in range(len(NOISE)):
        (tmp_path / str(place)).mkdir()
    for seed in range(draws):
        wanted, others, true = answers(np.random.default_rng(seed + 1), rows)
        targets = np.where(true, "a", "b").tolist()
        judge = Judge(wanted, np.stack([true, ~true], axis=1), SINGLE_LABEL)
        everything = SearchRows([TOKENS] * rows, targets, judge, LABELS, SINGLE_LABEL)
        trials = []
        for place, logits in enumerate(others):
            np.save(tmp_path / str(place) / ANSWERS, logits)
            trials.append(
                Trial(
                    file=f"{place}/graph",
                    step=0,
                    model="",
                    speedup=1.0,
                    scheme=DYNAMIC,
                    divergence=NOISE[place],
                    batch_flip_rate=0.0,
                    quantized=1,
                    bytes=1,
                    **everything.figures(logits),
                )
            )
        tried = walked(trials, max_drop)
        pick = partial(choose, timed=times, max_drop=max_drop, target_speedup=None, unpruned="0/graph")
        taken = most_faithful([pick(half) for half in everything.halves(tried, tmp_path)], times)
        place = trials.index(next(one for one in trials if one.file == taken.file))
        shown = paired_difference(right(wanted, targets), right(others[place], targets)).lower > -max_drop / 100
        passed += shown
        wrong += shown and truth[place] < -max_drop
    assert passed > 0
    assert wrong / draws <= 0.05 + 2 * (0.05 * 0.95 / draws) ** 0.5
