"""Cleaning of training rows: duplicates, contradictions, and rows that leaked from the evaluation data."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from service.contract.dataset import Dataset, Origin
from service.contract.inputs import Input, joined
from service.contract.labels import split_labels

NEAR = 0.85
_SHINGLE = 5
_DIGIT = re.compile(r"\d")
_GAP = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Cleaned:
    """The rows that are left, and how many were dropped for each reason."""

    data: Dataset
    kept: list[int]
    dropped: dict[str, int]


@dataclass
class _Index:
    """Shingle sets that can be searched for one of Jaccard similarity at least ``NEAR``."""

    frequency: Counter[str]
    rows: list[frozenset[str]] = field(default_factory=list)
    places: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def _prefix(self, shingles: frozenset[str]) -> list[str]:
        """The rarest shingles, so many that two sets as alike as ``NEAR`` must share one (Chaudhuri et al. 2006)."""
        ordered = sorted(shingles, key=lambda shingle: (self.frequency[shingle], shingle))
        return ordered[: len(ordered) - math.ceil(NEAR * len(ordered)) + 1]

    def near(self, shingles: frozenset[str]) -> list[int]:
        """Places of the added sets that are near this one."""
        candidates = {place for shingle in self._prefix(shingles) for place in self.places.get(shingle, ())}
        return sorted(place for place in candidates if jaccard(shingles, self.rows[place]) >= NEAR)

    def add(self, shingles: frozenset[str]) -> None:
        for shingle in self._prefix(shingles):
            self.places[shingle].append(len(self.rows))
        self.rows.append(shingles)


def normalise(given: Input) -> str:
    """Case, width, punctuation, spaces and the value of digits put aside; a text of signs only stays itself."""
    text = joined(given)
    folded = _DIGIT.sub("0", unicodedata.normalize("NFKC", text).casefold())
    return _GAP.sub(" ", folded).strip() or text.strip()


def shingles(normalised: str) -> frozenset[str]:
    """Runs of five characters; a shorter text is one shingle."""
    return frozenset(normalised[at : at + _SHINGLE] for at in range(max(1, len(normalised) - _SHINGLE + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def clean(data: Dataset, evaluation: Iterable[Input], *, categorical: bool = True) -> Cleaned:
    """Drop rows, in this order of reasons: ``leaked``, ``conflicting``, ``duplicate``, ``near_duplicate``.

    Leaked rows are the same as, or near, an evaluation text. Rows with the same normalised text and different labels
    contradict each other and all go. Of the same text with the same label the first row stays, and likewise of near
    texts (Jaccard similarity of character 5-shingles at least 0.85); near texts with different labels both stay: one
    word can turn the meaning. If targets are numbers and not ``categorical``, two of the same text are two opinions,
    not a contradiction, and the first stays.
    """
    texts = [normalise(text) for text in data.texts]
    held = sorted({normalise(text) for text in evaluation})
    sets, held_sets = [shingles(text) for text in texts], [shingles(text) for text in held]
    frequency = Counter(shingle for one in (*sets, *held_sets) for shingle in one)
    leaks = _Index(frequency)
    for one in held_sets:
        leaks.add(one)
    labels = [frozenset(split_labels(target)) for target in data.targets]
    conflicting = _conflicting(texts, labels) if categorical else set[str]()
    dropped: Counter[str] = Counter()
    kept: list[int] = []
    index, seen = _Index(frequency), set[str]()
    for row, text in enumerate(texts):
        if leaks.near(sets[row]):
            dropped["leaked"] += 1
        elif text in conflicting:
            dropped["conflicting"] += 1
        elif text in seen:
            dropped["duplicate"] += 1
        elif any(labels[kept[place]] == labels[row] for place in index.near(sets[row])):
            dropped["near_duplicate"] += 1
        else:
            kept.append(row)
            seen.add(text)
            index.add(sets[row])
    counts = {reason: dropped[reason] for reason in ("leaked", "conflicting", "duplicate", "near_duplicate")}
    return Cleaned(take(data, kept), kept, counts)


def take(data: Dataset, rows: Sequence[int]) -> Dataset:
    """The rows with these numbers, in this order."""
    labels = None if data.labels is None else [data.labels[row] for row in rows]
    told = data.origin
    origin = Origin(told.path, told.unit, [told.numbers[row] for row in rows]) if told is not None else None
    return Dataset([data.texts[row] for row in rows], labels, data.sets, data.spans, origin)


def _conflicting(texts: Sequence[str], labels: Sequence[frozenset[str]]) -> set[str]:
    told: dict[str, set[frozenset[str]]] = defaultdict(set)
    for text, label in zip(texts, labels, strict=True):
        told[text].add(label)
    return {text for text, several in told.items() if len(several) > 1}
