"""The accuracy gate: is the exported variant non-inferior to the checkpoint on the evaluation rows?

The verdict, for a margin of ``max_drop`` points:

- ``pass``: the one-sided 95 % lower bound of the paired difference is above the margin;
- ``fail``: the one-sided 95 % upper bound is below the margin;
- ``inconclusive``: neither is shown; the rows are too few to tell. It is published all the same, marked *unproven*,
  unless what is unproven is refused, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from export.judge.calibration import BINS, calibration_error, class_changes, missed_labels
from export.judge.paired import compared, rows_needed
from service.card.sentences import explain
from service.contract.bundle import Calibration, Quality, VariantName, Verdict
from service.contract.dataset import Dataset
from service.contract.errors import Refused
from service.contract.inputs import Input
from service.tasks import Task
from service.tasks.task import Booleans, Doubles, Floats
from service.tasks.tokenizer import Tokens

__all__ = [
    "PredictedLabels",
    "check_baseline",
    "explain",
    "judge_quality",
    "may_publish",
    "predicted",
    "refuse_unless_published",
    "verdict",
]

# Share of labels that may change with the rows beside a row: dynamic int8 scales activations by the whole batch.
MAX_BATCH_FLIPS = 0.02


def verdict(lower: float, upper: float, margin: float) -> Verdict:
    """Bounds and margin in the same unit; ``margin`` is not negative."""
    if lower > -margin:
        return "pass"
    return "fail" if upper < -margin else "inconclusive"


@dataclass(frozen=True)
class PredictedLabels:
    """The labels given to n rows, and the (n,) probabilities that they are right."""

    labels: Sequence[str]
    confidence: Floats


def predicted(logits: Floats, labels: Sequence[str], task: Task, tokens: Sequence[Tokens]) -> PredictedLabels:
    """What (units, labels) logits answer to the texts of ``tokens``."""
    probs = task.probabilities(logits)
    return PredictedLabels(task.answers(probs, labels, tokens), task.confidences(probs, tokens))


def judge_quality(
    baseline: PredictedLabels,
    exported: PredictedLabels,
    batched: Sequence[str],
    targets: Sequence[str],
    inputs: Sequence[Input],
    *,
    task: Task,
    max_drop: float,
    trained_on: int = 0,
) -> Quality:
    """Compare predictions row by row.

    ``baseline`` is the checkpoint's, ``exported`` the variant's run one by one, ``batched`` the variant's labels run
    beside others and padded, for the first ``len(batched)`` rows. ``max_drop`` is in points. ``trained_on`` counts the
    eval rows that are not among these because they were trained on.
    """
    targets = task.truth(targets, baseline.labels)
    before, after = task.merits(baseline.labels, targets), task.merits(exported.labels, targets)
    paired = compared(task, before, after)
    margin = max_drop / 100
    answer = verdict(paired.lower, paired.upper, margin)
    old, new, true = (list(map(task.as_labels, side)) for side in (baseline.labels, exported.labels, targets))
    needed = rows_needed(paired, margin) if answer == "inconclusive" else None
    return Quality(
        metric=task.metric,
        baseline=task.score(before),
        exported=task.score(after),
        difference=100 * paired.difference,
        lower_bound=100 * paired.lower,
        max_drop=max_drop,
        verdict=answer,
        rows=paired.rows,
        trained_on=trained_on,
        majority=task.trivial_score(targets, inputs)[1],
        flips=int((~task.same(exported.labels, baseline.labels)).sum()),
        batch_flip_rate=flip_rate(task, exported.labels, batched),
        batched_rows=min(len(exported.labels), len(batched)),
        rows_needed=needed,
        calibration=_calibration(baseline, exported, before, after),
        classes=class_changes(old, new, true) if task.categorical else {},
        missed=missed_labels(new, true) if task.categorical else {},
    )


def _calibration(
    baseline: PredictedLabels, exported: PredictedLabels, before: Booleans | Doubles, after: Booleans | Doubles
) -> Calibration | None:
    """None where answers have no confidence."""
    if before.dtype != np.bool_ or np.isnan(baseline.confidence).any():
        return None
    return Calibration(
        baseline=calibration_error(baseline.confidence, before.astype(np.bool_)),
        exported=calibration_error(exported.confidence, after.astype(np.bool_)),
        bins=BINS,
    )


def flip_rate(task: Task, alone: Sequence[str], batched: Sequence[str]) -> float:
    """The share of rows whose answer changes when they are run beside others; of the first ones, if not all were."""
    rows = min(len(alone), len(batched))
    return float((~task.same(alone[:rows], batched[:rows])).mean()) if rows else 0.0


def flips_too_often(quality: Quality) -> bool:
    """Whether more than 2 % of labels flip in batches, with 95 % confidence (Clopper and Pearson's lower bound)."""
    if not quality.batched_rows:
        return False
    flips = round(quality.batch_flip_rate * quality.batched_rows)
    return float(binomtest(flips, quality.batched_rows, MAX_BATCH_FLIPS, alternative="greater").pvalue) < 0.05


def may_publish(quality: Quality, *, strict: bool) -> bool:
    """Whether it is not shown to be worse; with ``strict``, whether it is shown not to be."""
    if flips_too_often(quality):
        return False
    return quality.verdict == "pass" or (quality.verdict == "inconclusive" and not strict)


def refuse_unless_published(qualities: Mapping[VariantName, Quality], *, strict: bool) -> None:
    """:raises Refused: if any variant may not be published, with its figures and what would mend it."""
    refused = {name: quality for name, quality in qualities.items() if not may_publish(quality, strict=strict)}
    if refused:
        figures = " ".join(f"{name}: {_reason(quality)}" for name, quality in refused.items())
        unproven = all(may_publish(quality, strict=False) for quality in refused.values())
        mend = "Give more eval rows or leave out --strict." if unproven else "Give a wider --max-drop."
        raise Refused(f"the accuracy gate did not pass, nothing was published. {figures} {mend}")


def check_baseline(baseline: PredictedLabels, rows: Dataset, task: Task) -> None:
    """:raises Refused: if the checkpoint is no better on these rows than the same answer to all of them would be."""
    targets = task.truth(rows.targets, baseline.labels)
    scored = task.score(task.merits(baseline.labels, targets))
    answer, trivial = task.trivial_score(targets, rows.texts)
    if scored <= trivial:
        raise Refused(
            f"the checkpoint has {task.metric} {scored:.4f} on the {len(rows)} eval rows, and {answer} "
            f"would have {trivial:.4f}. Check that the checkpoint, the names of its labels and the file "
            "belong together, or export it all the same with --allow-weak."
        )


def _reason(quality: Quality) -> str:
    if not flips_too_often(quality):
        return explain(quality)
    return (
        f"{quality.batch_flip_rate:.1%} of labels change when rows are batched with others; {MAX_BATCH_FLIPS:.0%} may. "
        + explain(quality)
    )
