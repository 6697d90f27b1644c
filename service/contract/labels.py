"""Label strings: the one place where they are cleaned, split, joined and compared.

A target is one label, several joined by ``|``, or in a multi-label task the empty string: none of them. Their order
does not matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

SEPARATOR = "|"


def is_nan(cell: str) -> bool:
    """Whether a cell is what a missing number looks like as text, and so names no class."""
    return cell.strip().casefold() == "nan"


def clean_target(cell: str) -> str:
    """The target that a cell means: a blank one none, else see :func:`join_labels`."""
    return join_labels(cell.split(SEPARATOR)) if cell.strip() else ""


def join_labels(labels: Iterable[str]) -> str:
    """Labels as a target: the spaces around each go, and one said twice counts once. None give the empty string.

    :raises ValueError: if a label is empty, holds the separator or is ``nan``; the message is the end of a sentence.
    """
    cleaned = tuple(dict.fromkeys(label.strip() for label in labels))
    for label in cleaned:
        if not label:
            raise ValueError(f"has an empty label beside a {SEPARATOR!r}. Remove the stray separator")
        if SEPARATOR in label:
            raise ValueError(f"has {SEPARATOR!r} in the label {label!r}, which separates labels. Rename the label")
        if is_nan(label):
            raise ValueError(f"has {label!r} among its labels, which is a missing value. Fill it in or remove the row")
    return SEPARATOR.join(cleaned)


def split_labels(target: str) -> tuple[str, ...]:
    """The labels of a target, none for an empty one. Targets that nobody cleaned, as feedback, are borne with."""
    return tuple(dict.fromkeys(label.strip() for label in target.split(SEPARATOR) if label.strip()))


def folded(label: str) -> str:
    """What is left of a label without case, Unicode form, spaces and invisible characters."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(one for one in text if not one.isspace() and unicodedata.category(one) not in ("Cc", "Cf"))


def similar_labels(counts: Mapping[str, int], known: Sequence[str] = ()) -> dict[str, str]:
    """Each label that is another one but for case, Unicode form or spaces, and that other.

    A known label goes before the others, and a frequent one before a rare one. Known labels are never found.
    """
    others = sorted(counts.keys() - set(known), key=lambda label: (-counts[label], label))
    first: dict[str, str] = {}
    for label in (*known, *others):
        first.setdefault(folded(label), label)
    return {label: first[folded(label)] for label in others if first[folded(label)] != label}
