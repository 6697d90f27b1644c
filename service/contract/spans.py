"""Entities in a text as one string, as they are logged, compared and sent back: ``0 5 PER|10 16 LOC``.

Each is the number of its first character, that of the first one behind it, and what it is. Characters are Unicode code
points, as Python counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.contract.labels import SEPARATOR, join_labels


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters ``start`` to ``end``, the latter not included, that are a ``kind``."""

    start: int
    end: int
    kind: str

    def __str__(self) -> str:
        return f"{self.start} {self.end} {self.kind}"


def join_spans(spans: Iterable[Span]) -> str:
    """In order of their places. The inverse of :func:`split_spans`."""
    return SEPARATOR.join(map(str, sorted(spans)))


def split_spans(target: str) -> tuple[Span, ...]:
    """The entities of a string. :raises ValueError: saying what is wrong with it, as the end of a sentence."""
    return tuple(_span(one.strip()) for one in target.split(SEPARATOR) if one.strip())


def kinds(target: str) -> tuple[str, ...]:
    """What the entities of a string are, one for each; what cannot be read is left out."""
    found = (one.strip().split(" ", 2) for one in target.split(SEPARATOR))
    return tuple(words[2] for words in found if len(words) == 3)


def problem(spans: Sequence[Span], text: str | None = None) -> str | None:
    """What is wrong with entities, of a text if it is known, as the end of a sentence; None if nothing is."""
    last: Span | None = None
    for one in sorted(spans):
        if not 0 <= one.start < one.end:
            return f"has an entity {str(one)!r}, and its end is not behind its start"
        if text is not None and one.end > len(text):
            return f"has an entity {str(one)!r}, and the text has {len(text)} characters"
        if last is not None and one.start < last.end:
            return f"has entities that overlap, {str(last)!r} and {str(one)!r}"
        last = one
    return None


def span_of(value: object) -> Span:
    """An entity of a JSON file: ``{"start": 0, "end": 5, "label": "PER"}`` or ``[0, 5, "PER"]``.

    What it is may be called ``label``, ``entity_group``, ``entity`` or ``type``.

    :raises ValueError: as the end of a sentence, if it is none.
    """
    parts = value
    if isinstance(value, dict):
        kind = next((value[name] for name in ("label", "entity_group", "entity", "type") if name in value), None)
        parts = [value.get("start"), value.get("end"), kind]
    if not (isinstance(parts, list | tuple) and len(parts) == 3 and isinstance(parts[2], str)):
        raise ValueError(f"has {str(value)[:80]} for an entity; it is an object with start, end and label")
    start, end, kind = parts
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in (start, end)):
        raise ValueError(f"has an entity from {start!r} to {end!r}; both are numbers of characters")
    return Span(start, end, join_labels([kind]))


def _span(text: str) -> Span:
    words = text.split(" ", 2)
    if len(words) != 3 or not (words[0].isdecimal() and words[1].isdecimal()):
        raise ValueError(f"has {text[:80]!r} for an entity; it is written start, end and label, as '0 5 PER'")
    return Span(int(words[0]), int(words[1]), words[2])
