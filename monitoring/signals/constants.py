"""Whether a window's inputs are broken upstream: nothing, a placeholder, or one text again and again.

The two-sample tests count an input once however often it comes, so a window of nothing but ``""`` or ``"undefined"``
would look like no window at all to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from monitoring.signals.columns import Booleans, Columns
from service.contract.features import hash_tokens

# What programs write where there is nothing; as bags of hashed words, so that logs without texts have them, too.
PLACEHOLDERS = frozenset(
    tuple(hash_tokens(text))
    for text in ("", "undefined", "null", "(null)", "nil", "none", "nan", "n/a", "[object object]", "{}", "[]", '""')
)
_PROBE = 0.02  # share of the reference from which one input is an ordinary repeat, as a health probe's
_FEWEST = 50  # rows beside the probes that are judged by themselves


@dataclass(frozen=True)
class Constant:
    """The kind of row whose share grew most: of ``rows`` now ``share``, ``before`` of the reference's."""

    what: str
    share: float
    before: float
    rows: int
    p_value: float


def most_constant(reference: Columns, window: Columns) -> Constant | None:
    """The largest growth of a share of rows that say nothing: of one input, of placeholders, or without a value.

    Shares are taken twice: of all rows, and of those that are no repeats which the reference already holds, so that a
    share of health probes in the traffic hides nothing of the rest. The p-value is binomial, times the number of
    things that were looked at (Bonferroni). None if a side has no rows.
    """
    if not reference.rows or not window.rows:
        return None
    probes = {
        key for key, count in Counter(reference.inputs).items() if count > 2 and count >= _PROBE * reference.rows
    } - PLACEHOLDERS
    views = [(np.ones(reference.rows, dtype=np.bool_), np.ones(window.rows, dtype=np.bool_))]
    if probes:
        rest = [np.array([key not in probes for key in side.inputs], dtype=np.bool_) for side in (reference, window)]
        if min(rest[0].sum(), rest[1].sum()) >= _FEWEST:
            views.append((rest[0], rest[1]))
    found = [one for before, after in views for one in _grown(reference, before, window, after)]
    looked = len(views) * len(window.distinct)
    best = max(found, key=lambda one: (one.share - one.before, one.what))
    expected = (best.before * reference.rows + 1) / (reference.rows + 2)
    p_value = float(binom.sf(round(best.share * best.rows) - 1, best.rows, expected))
    return Constant(best.what, best.share, best.before, best.rows, min(1.0, p_value * looked))


def _grown(reference: Columns, before: Booleans, window: Columns, after: Booleans) -> Iterator[Constant]:
    """The shares of the chosen rows, by what is the same in them."""
    rows = int(after.sum())
    counts, old = _inputs(window, after), _inputs(reference, before)
    per_row = 1 / before.sum()
    if counts:
        grown = max(counts, key=lambda key: counts[key] / rows - old[key] * per_row)
        yield Constant("of one input", _again(counts[grown]) / rows, _again(old[grown]) * per_row, rows, 1.0)
    empty = [sum(counted[key] for key in PLACEHOLDERS) for counted in (counts, old)]
    yield Constant("empty or placeholders", empty[0] / rows, empty[1] * per_row, rows, 1.0)
    missing_before, missing_after = _missing(reference), _missing(window)
    for what in missing_before.keys() & missing_after.keys():
        now, then = float(missing_after[what][after].mean()), float(missing_before[what][before].mean())
        yield Constant(what, now, then, rows, 1.0)


def _inputs(side: Columns, chosen: Booleans) -> Counter[object]:
    """How often each known input occurs among the chosen rows."""
    taken = chosen & side.known_bags
    return Counter(key for key, there in zip(side.inputs, taken, strict=True) if there)


def _again(count: int) -> int:
    """Rows that repeat another: a first one is news."""
    return max(0, count - 1)


def _missing(side: Columns) -> dict[str, Booleans]:
    found: dict[str, Booleans] = {"without a text": ~side.known_bags}
    if side.labels is not None:
        found["without a label"] = np.array([label is None for label in side.labels], dtype=np.bool_)
    if side.confidence is not None:
        found["without a confidence"] = np.isnan(side.confidence)
    return found
