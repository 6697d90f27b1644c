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

from pydantic import JsonValue

from export.judge.gate import explain, may_publish, verdict
from export.judge.paired import Paired, as_points, compared
from service.contract.bundle import Challenge, Champion, Quality, VariantName
from service.tasks import Task


@dataclass(frozen=True)
class Contest:
    """Two models on the same rows: their scores, and what is between them."""

    champion: float
    challenger: float
    paired: Paired


def contest(task: Task, champion: Sequence[str], challenger: Sequence[str], targets: Sequence[str]) -> Contest:
    """Compare the answers of both with the true ones."""
    before, after = task.merits(champion, targets), task.merits(challenger, targets)
    return Contest(task.score(before), task.score(after), compared(task, before, after))


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
            "champion": round(one.champion, 6),
            "challenger": round(one.challenger, 6),
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
        f"{paired.rows} {which} rows: {one.champion:.4f} -> {one.challenger:.4f}, "
        f"{100 * paired.difference:+.2f} points (95 % sure of more than {100 * paired.lower:+.2f})"
    )
