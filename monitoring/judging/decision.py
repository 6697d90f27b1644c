"""From tests to one verdict: correction for the number of signals, a least effect, and a severity.

A signal has drifted if its p-value, corrected by Holm's method over all signals tested, is at most ``alpha`` *and*
its effect is what its line in :mod:`monitoring.signals.registry` says, or more: with enough rows any difference is
significant, and with few rows chance makes large differences.

What it means for people is in :mod:`monitoring.judging.severity`. The false-alarm rates and the power that these
values give are measured by ``loadtest/bench_drift.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.judging.accuracy import Estimate, estimate_accuracy
from monitoring.judging.severity import Severity, severity_of
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import Columns
from monitoring.signals.detectors import MIN_LABELS, Chance, Test, accuracy_bound
from monitoring.signals.registry import BY_NAME, run_tests
from service.contract.events import Moved, Signal
from service.contract.features import words

MOVED = 10  # words and labels named in an event
_LEAST_MOVE = 3.0  # standard errors
_MIN_WORD = 2


@dataclass(frozen=True)
class Decision:
    """The answer for one window; ``reason`` says in words why it is so severe."""

    severity: Severity
    reason: str
    signals: tuple[Signal, ...]
    tokens: tuple[Moved, ...]
    labels: tuple[Moved, ...]
    accuracy_reference: float | None
    estimate: Estimate | None

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the signals that drifted."""
        return tuple(signal.name for signal in self.signals if signal.drifted)


def decide(reference: Columns, window: Columns, thresholds: Thresholds, *, seed: int = 0) -> Decision:
    """Judge a window; ``seed`` makes the permutation tests reproducible."""
    tests = run_tests(reference, window, Chance(thresholds.permutations, seed))
    tokens = moved_tokens(reference, window)
    signals = mark_drifted(tests, thresholds, tokens)
    measured, estimate = estimate_accuracy(reference, window, signals)
    severity, reason = severity_of(signals, measured, estimate, _labelled(window), thresholds.tolerance)
    return Decision(
        severity=severity,
        reason=reason,
        signals=signals,
        tokens=tokens,
        labels=moved_labels(reference, window),
        accuracy_reference=measured,
        estimate=estimate,
    )


def _labelled(window: Columns) -> float | None:
    """What the accuracy is at least, by the labels of answers since inputs moved; None below 30."""
    recent = window.recent_outcomes
    return accuracy_bound(recent) if recent is not None and len(recent) >= MIN_LABELS else None


def mark_drifted(tests: Sequence[Test], thresholds: Thresholds, tokens: Sequence[Moved] = ()) -> tuple[Signal, ...]:
    """Correct the p-values for their number and mark what has drifted."""
    corrected = holm([test.p_value for test in tests])
    signals = []
    for test, p_value in zip(tests, corrected, strict=True):
        least = BY_NAME[test.name].least
        threshold = thresholds.tolerance if least is None else least * thresholds.effect_scale
        signals.append(
            Signal(
                name=test.name,
                method=test.method,
                statistic=test.statistic,
                p_value=p_value,
                alpha=thresholds.alpha,
                effect=test.effect,
                effect_threshold=threshold,
                direction=_direction(test, tokens),
                drifted=p_value <= thresholds.alpha and test.effect >= threshold,
            )
        )
    return tuple(signals)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): adjusted p-values in the given order."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def moved_tokens(reference: Columns, window: Columns) -> tuple[Moved, ...]:
    """Words whose share of distinct texts changed most, in standard errors; empty if either side has no texts."""
    before, rows_before = _word_counts(reference)
    after, rows_after = _word_counts(window)
    if not rows_before or not rows_after:
        return ()
    scored = []
    for word in before.keys() | after.keys():
        first, second = before[word] / rows_before, after[word] / rows_after
        pooled = (before[word] + after[word] + 1) / (rows_before + rows_after + 2)
        error = math.sqrt(pooled * (1 - pooled) * (1 / rows_before + 1 / rows_after))
        if abs(second - first) > _LEAST_MOVE * error:
            scored.append((abs(second - first) / error, word, first, second))
    scored.sort(key=lambda row: (-row[0], row[1]))
    return tuple(Moved(value=word, reference_share=a, window_share=b) for _, word, a, b in scored[:MOVED])


def moved_labels(reference: Columns, window: Columns) -> tuple[Moved, ...]:
    """Predicted labels by how much their share changed, largest first."""
    before = Counter(label for label in reference.labels or () if label is not None)
    after = Counter(label for label in window.labels or () if label is not None)
    if not before or not after:
        return ()
    rows = [
        Moved(value=name, reference_share=before[name] / before.total(), window_share=after[name] / after.total())
        for name in sorted(before.keys() | after.keys())
    ]
    rows = [row for row in rows if row.window_share != row.reference_share]
    return tuple(sorted(rows, key=lambda row: -abs(row.window_share - row.reference_share))[:MOVED])


def _word_counts(side: Columns) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    rows = 0
    for index in side.distinct:
        text = side.texts[int(index)]
        if text is not None:
            rows += 1
            counts.update({word for word in words(text) if len(word) >= _MIN_WORD})
    return counts, rows


def _direction(test: Test, tokens: Sequence[Moved]) -> str:
    if test.name != "tokens" or not tokens:
        return test.direction
    more = [row.value for row in tokens if row.window_share > row.reference_share][:3]
    less = [row.value for row in tokens if row.window_share < row.reference_share][:3]
    parts = [f"more of: {', '.join(more)}"] if more else []
    return "; ".join(parts + ([f"less of: {', '.join(less)}"] if less else []))
