"""Token classification: entities in a text, as names of people or what must not be published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from service.contract import spans
from service.contract.inputs import Input, parts
from service.contract.labels import SEPARATOR, split_labels
from service.tasks.classification import correct, softmax
from service.tasks.entities import Aggregation, Entity, entities, kinds_of, tagged
from service.tasks.task import Booleans, Doubles, Floats
from service.tasks.tokenizer import Tokens
from service.tasks.told import Told

_WORD = re.compile(r"\S+")


def per_text(units: Floats, tokens: Sequence[Tokens]) -> Iterator[Floats]:
    """The (tokens, labels) rows of each text."""
    start = 0
    for one in tokens:
        yield units[start : start + len(one)]
        start += len(one)


def entities_of(probs: Floats, labels: Sequence[str], tokens: Tokens, aggregation: Aggregation) -> list[Entity]:
    """The entities of one text by its (tokens, labels) probabilities; none if nobody told where its tokens are."""
    if tokens.places is None:
        return []
    return entities(tagged(probs, tokens.places, aggregation), labels)


@dataclass(frozen=True)
class TokenClassification(Told):
    """Answers are entities as :mod:`service.contract.spans` writes them, aggregated by :mod:`service.tasks.entities`.

    The score is F1 over entities: the harmonic mean of precision and recall, an entity being right if its place and its
    kind are (as conlleval counts, Tjong Kim Sang and De Meulder 2003). An answer is right if all its entities are the
    true ones.
    """

    aggregation: Aggregation = "first"
    name: str = "token-classification"
    problem_type: str | None = None
    metric: str = "entity F1"
    categorical: bool = True
    several: bool = True
    per_token: bool = True
    trivial: str = "Calling every word an entity of the most frequent kind"

    @property
    def settings(self) -> Mapping[str, float | bool | str]:
        return {"aggregation": self.aggregation}

    def described(self, labels: Sequence[str]) -> str:
        kinds = kinds_of(labels)
        return f"token classifier for {len(kinds)} kinds of entity ({', '.join(kinds)})"

    def fitted(self, targets: Sequence[str]) -> TokenClassification:
        return self

    def problem(self, target: str, given: Input) -> str | None:
        if not isinstance(given, str):
            return "is a pair of texts, and entities are found in single ones"
        try:
            return spans.problem(spans.split_spans(target), given)
        except ValueError as error:
            return str(error)

    def classes(self, labels: Sequence[str]) -> Sequence[str]:
        return kinds_of(labels)

    def outputs_of(self, classes: Sequence[str]) -> Sequence[str]:
        return [f"{prefix}-{kind}" for kind in classes for prefix in "BI"]

    def as_labels(self, answer: str) -> str:
        return SEPARATOR.join(sorted(set(spans.kinds(answer))))

    def probabilities(self, logits: Floats) -> Floats:
        return softmax(logits)

    def decided(self, probs: Floats) -> Booleans:
        return np.asarray(np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None])

    def answers(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        return [
            spans.join_spans(one.span for one in entities_of(rows, labels, seen, self.aggregation))
            for rows, seen in zip(per_text(probs, tokens), tokens, strict=True)
        ]

    def confidences(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        """That of the token of which the model is least sure."""
        best = probs.max(axis=1)
        best[_special(tokens)] = 1.0
        return np.minimum.reduceat(best, _starts(tokens)) if len(tokens) else best

    def by_text(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        """For each tag the probability of the token that is likeliest to have it."""
        ordinary = np.where(_special(tokens)[:, None], np.float32(0), probs)
        return np.maximum.reduceat(ordinary, _starts(tokens), axis=0) if len(tokens) else ordinary

    def named(self, answer: str) -> Sequence[str]:
        return spans.kinds(answer)

    def correct(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans:
        return correct(predicted, targets)

    def same(self, answers: Sequence[str], others: Sequence[str]) -> Booleans:
        return correct(answers, others)

    def merits(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans | Doubles:
        """(n, 3): how many entities are right, how many were found, and how many there are."""
        rows = (
            (set(split_labels(one)), set(split_labels(other))) for one, other in zip(predicted, targets, strict=True)
        )
        counts = [(len(found & wanted), len(found), len(wanted)) for found, wanted in rows]
        return np.array(counts, dtype=np.float64).reshape(-1, 3)

    def score(self, merits: Booleans | Doubles) -> float:
        right, found, wanted = merits.mean(axis=0).tolist()
        return 2 * right / (found + wanted) if found + wanted else 1.0

    def trivial_score(self, targets: Sequence[str], inputs: Sequence[Input]) -> tuple[str, float]:
        counts = Counter(kind for target in targets for kind in spans.kinds(target))
        if not counts:
            return "finding nothing", 1.0
        kind = counts.most_common(1)[0][0]
        every = [
            spans.join_spans(spans.Span(*word.span(), kind) for word in _WORD.finditer(text))
            for given in inputs
            for text in parts(given)[:1]
        ]
        return f"calling every word {kind!r}", self.score(self.merits(every, targets))


def _starts(tokens: Sequence[Tokens]) -> list[int]:
    """The first row of each text."""
    return list(accumulate(map(len, tokens[:-1]), initial=0))


def _special(tokens: Sequence[Tokens]) -> Booleans:
    """(units,) whether each is no token of the text."""
    return np.array(
        [word < 0 for one in tokens for word in (one.places.words if one.places else [-1] * len(one))], dtype=np.bool_
    )
