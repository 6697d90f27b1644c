"""From what a model says of each token to entities: grouped as transformers' pipeline for token classification does.

Tags are ``B-PER`` for the first token of an entity and ``I-PER`` for the others, ``PER`` meaning the latter, and ``O``
for what is none. Aggregation says what comes before that: nothing (``simple``), or each word gets one tag, that of its
first token (``first``), of the token that is surest (``max``), or the best of the mean over its tokens (``average``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal, get_args

import numpy as np

from service.contract.spans import Span
from service.tasks.task import Floats
from service.tasks.tokenizer import Places

Aggregation = Literal["simple", "first", "average", "max"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Tagged:
    """A token, or word, by the index of its tag, with its probability and its place."""

    tag: int
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Entity:
    """A :class:`service.contract.spans.Span` with the mean probability of its tokens, or words."""

    span: Span
    score: float


@lru_cache(64)
def parted(labels: tuple[str, ...]) -> tuple[tuple[bool, str], ...]:
    """Of each label whether it begins an entity, and the entity's kind."""
    return tuple((one.startswith("B-"), one[2:] if one.startswith(("B-", "I-")) else one) for one in labels)


def kinds_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The kinds of entity that tags are made of, in order."""
    return tuple(dict.fromkeys(kind for _, kind in parted(tuple(labels)) if kind != OUTSIDE))


def tagged(probs: Floats, places: Places, aggregation: Aggregation) -> list[Tagged]:
    """The tokens of a text, or its words; ``probs`` are (tokens, labels), special tokens included."""
    if aggregation == "simple":
        best = probs.argmax(axis=1).tolist()
        scores = probs.max(axis=1).tolist()
        rows = zip(best, scores, places.spans, places.words, strict=True)
        return [Tagged(tag, score, start, end) for tag, score, (start, end), word in rows if word >= 0]
    return [_word(probs, places, rows, aggregation) for rows in _words(places)]


def entities(found: Iterable[Tagged], labels: Sequence[str]) -> list[Entity]:
    """Neighbours of one kind are one entity, unless the second begins one of its own."""
    names = parted(tuple(labels))
    groups: list[list[Tagged]] = []
    last = OUTSIDE
    for one in found:
        begins, kind = names[one.tag]
        if kind != OUTSIDE:
            if kind == last and not begins:
                groups[-1].append(one)
            else:
                groups.append([one])
        last = kind
    return [
        Entity(
            Span(group[0].start, group[-1].end, names[group[0].tag][1]),
            sum(one.score for one in group) / len(group),
        )
        for group in groups
    ]


def _words(places: Places) -> Iterator[list[int]]:
    """The rows of each word's tokens."""
    rows = (row for row, word in enumerate(places.words) if word >= 0)
    for _, alike in groupby(rows, key=places.words.__getitem__):
        yield list(alike)


def _word(probs: Floats, places: Places, rows: list[int], aggregation: Aggregation) -> Tagged:
    if aggregation == "average":
        scores = np.asarray(probs[rows].mean(axis=0))
    elif aggregation == "max":
        scores = probs[max(rows, key=lambda row: float(probs[row].max()))]
    else:
        scores = probs[rows[0]]
    tag = int(scores.argmax())
    return Tagged(tag, float(scores[tag]), places.spans[rows[0]][0], places.spans[rows[-1]][1])
