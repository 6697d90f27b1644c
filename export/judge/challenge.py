"""Challenger against champion: may the retrained version take over?

Both answer the same rows in the form in which they are served. The rules:

1. New rows (held out of the new labels): the challenger must be better. The one-sided 95 % lower bound of the paired
   difference of accuracy must be above 0.
2. Old rows (the evaluation file): the challenger must not be worse than the margin. The estimate must not be below
   ``-max_drop``, and the bound and its verdict are recorded. To demand the bound itself above the margin would ask
   for thousands of rows, as two trained models differ on many; so a few hundred rows guard against harm of the size
   of the margin on average, and the figures say how sure that is.
3. Export: no variant may fail the gate against its own checkpoint, on old and new rows together. Inconclusive is
   enough, unless that is strict: rules 1 and 2 judge the variant that is served in its exported form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from export.judge.gate import explain, may_publish, verdict
from export.judge.paired import Paired, as_points, paired_difference
from service.contract.bundle import Challenge, Champion, Quality, VariantName
from service.tasks.classification import correct


@dataclass(frozen=True)
class Contest:
    """Two models on the same rows: whether each row is right, (n,) each."""

    champion: npt.NDArray[np.bool_]
    challenger: npt.NDArray[np.bool_]

    @property
    def paired(self) -> Paired:
        return paired_difference(self.champion, self.challenger)


def contest(champion: Sequence[str], challenger: Sequence[str], targets: Sequence[str]) -> Contest:
    """Compare the predicted labels of both with the true ones."""
    return Contest(correct(champion, targets), correct(challenger, targets))


def decide(
    champion: Champion,
    old: Contest,
    new: Contest,
    quality: Mapping[VariantName, Quality],
    *,
    max_drop: float,
    strict: bool = False,
) -> Challenge:
    """Apply the three rules; ``max_drop`` is in points. Every reason is a sentence with its figures."""
    against: list[str] = []
    rows = {"old": old.paired, "new": new.paired}
    if rows["new"].lower <= 0:
        against.append(f"not shown to be better on the {_describe('new', new)}")
    if rows["old"].difference < -max_drop / 100:
        against.append(f"worse than the allowed {max_drop:g} points on the {_describe('old', old)}")
    against += [
        f"the {name} variant did not pass its gate: {explain(one).rstrip('.')}"
        for name, one in quality.items()
        if not may_publish(one, strict=strict)
    ]
    figures: dict[str, JsonValue] = {
        name: {
            "champion": round(float(one.champion.mean()), 6),
            "challenger": round(float(one.challenger.mean()), 6),
            **as_points(one.paired),
        }
        for name, one in (("old", old), ("new", new))
    }
    figures["max_drop"] = max_drop
    figures["old_verdict"] = verdict(rows["old"].lower, rows["old"].upper, max_drop / 100)
    reasons = against or [
        f"better on the {_describe('new', new)}",
        f"within {max_drop:g} points on the {_describe('old', old)}",
    ]
    return Challenge(champion=champion, accepted=not against, reasons=tuple(reasons), figures=figures)


def _describe(which: str, one: Contest) -> str:
    paired = one.paired
    return (
        f"{paired.rows} {which} rows: {one.champion.mean():.4f} -> {one.challenger.mean():.4f}, "
        f"{100 * paired.difference:+.2f} points (95 % sure of more than {100 * paired.lower:+.2f})"
    )
