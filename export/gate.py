"""The accuracy gate: is the exported variant non-inferior to the checkpoint on the evaluation rows?

The verdict, for a margin of ``max_drop`` points:

- ``pass``: the one-sided 95 % lower bound of the paired difference is above the margin;
- ``fail``: the one-sided 95 % upper bound is below the margin;
- ``inconclusive``: neither is shown; the rows are too few to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from export.paired import paired_difference, rows_needed
from service.contract.bundle import Quality, Task, VariantName, Verdict
from service.contract.classify import correct
from service.contract.errors import Refused

# Share of labels that may change with the rows beside a row: dynamic int8 scales activations by the whole batch.
MAX_BATCH_FLIPS = 0.02

METRIC: dict[Task, str] = {"single-label": "accuracy", "multi-label": "exact match"}


def verdict(lower: float, upper: float, margin: float) -> Verdict:
    """Bounds and margin in the same unit; ``margin`` is not negative."""
    if lower > -margin:
        return "pass"
    return "fail" if upper < -margin else "inconclusive"


def judge(
    baseline: Sequence[str],
    exported: Sequence[str],
    batched: Sequence[str],
    targets: Sequence[str],
    *,
    task: Task,
    max_drop: float,
    allow_inconclusive: bool = False,
) -> Quality:
    """Compare predicted labels row by row.

    ``baseline`` is the checkpoint's, ``exported`` the variant's run one by one, ``batched`` the variant's run beside
    others and padded, for the first ``len(batched)`` rows. ``max_drop`` is in points.
    """
    before, after = correct(baseline, targets), correct(exported, targets)
    paired = paired_difference(before, after)
    margin = max_drop / 100
    answer = verdict(paired.lower, paired.upper, margin)
    needed = rows_needed(paired.gained, paired.lost, paired.rows, margin) if answer == "inconclusive" else None
    return Quality(
        metric=METRIC[task],
        baseline=float(before.mean()),
        exported=float(after.mean()),
        difference=100 * paired.difference,
        lower_bound=100 * paired.lower,
        max_drop=max_drop,
        verdict=answer,
        rows=paired.rows,
        flips=int((~correct(exported, baseline)).sum()),
        batch_flip_rate=flip_rate(exported, batched),
        batched_rows=min(len(exported), len(batched)),
        rows_needed=needed,
        allowed_inconclusive=allow_inconclusive and answer == "inconclusive",
    )


def flip_rate(alone: Sequence[str], batched: Sequence[str]) -> float:
    """The share of rows whose label changes when they are run beside others; of the first ones, if not all were."""
    changed = [one != other for one, other in zip(alone, batched, strict=False)]
    return float(np.mean(changed)) if changed else 0.0


def flips_too_often(quality: Quality) -> bool:
    """Whether more than 2 % of labels flip in batches, with 95 % confidence (Clopper and Pearson's lower bound)."""
    if not quality.batched_rows:
        return False
    flips = round(quality.batch_flip_rate * quality.batched_rows)
    return float(binomtest(flips, quality.batched_rows, MAX_BATCH_FLIPS, alternative="greater").pvalue) < 0.05


def may_publish(quality: Quality) -> bool:
    if flips_too_often(quality):
        return False
    return quality.verdict == "pass" or (quality.verdict == "inconclusive" and quality.allowed_inconclusive)


def explain(quality: Quality) -> str:
    """The verdict with its figures, in one sentence for people."""
    figures = (
        f"{quality.metric} {quality.baseline:.4f} -> {quality.exported:.4f} on {quality.rows} rows, "
        f"{quality.difference:+.2f} points, 95 % sure of no worse than {quality.lower_bound:+.2f}; "
        f"allowed is -{quality.max_drop:g}: {quality.verdict}"
    )
    if flips_too_often(quality):
        figures += (
            f"; {quality.batch_flip_rate:.1%} of labels change in batches, which is more than {MAX_BATCH_FLIPS:.0%}"
        )
    if quality.verdict != "inconclusive":
        return figures + "."
    if quality.rows_needed is None:
        return figures + ". The estimate lies on the margin itself, so no number of rows would settle it."
    return figures + f". About {quality.rows_needed:,} eval rows would settle it."


def refuse_unless_published(qualities: Mapping[VariantName, Quality]) -> None:
    """:raises Refused: if any variant may not be published, with its figures and what would mend it."""
    refused = [f"{name}: {explain(quality)}" for name, quality in qualities.items() if not may_publish(quality)]
    if refused:
        raise Refused(
            "the accuracy gate did not pass, nothing was published. " + " ".join(refused) + " Give more eval rows, "
            "a wider --max-drop, or accept what cannot be proven with --allow-inconclusive."
        )
