"""Entities on the wire, in the shape of transformers' pipeline for token classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from fastapi import Response
from pydantic import BaseModel, Field

from service.models.predictor import Answer
from service.tasks.entities import OUTSIDE, Aggregation, entities, tagged
from service.tasks.task import Floats
from service.tasks.tokenizer import Places

Strategy = Literal["none", "simple", "first", "average", "max"]
_PREDICTION = "x-prediction-id"


class FoundEntity(BaseModel):
    id: str = Field(description="of the prediction, for /feedback")
    entity_group: str | None = Field(default=None, description="what it is")
    entity: str | None = Field(default=None, description="the label of a token, where tokens are asked for")
    index: int | None = Field(default=None, description="of the token")
    score: float = Field(description="mean probability of its tokens, or words")
    word: str = Field(description="its characters, as they are in the text")
    start: int = Field(description="the first character, counted in code points")
    end: int = Field(description="the first character behind it")


def found_entities(
    answer: Answer, wanted: Strategy | None = None, ignored: Sequence[str] | None = None
) -> list[list[dict[str, Any]]]:
    """The entities of each text, in the shape of :class:`FoundEntity`, in the order of the text.

    :param wanted: how tokens become entities; None as the model was judged.
    :param ignored: kinds to leave out, or labels where tokens are wanted.
    """
    found: list[list[dict[str, Any]]] = []
    for prediction, text, seen in zip(answer.predictions, answer.texts, answer.seen, strict=True):
        places, probs = seen.batch.tokens[seen.row].places, answer.task.probabilities(seen.batch.logits_of(seen.row))
        if places is None:
            rows = []
        elif wanted == "none":
            rows = _tokens(probs, places, answer.manifest.labels, (OUTSIDE,) if ignored is None else ignored)
        else:
            strategy = wanted or cast(Aggregation, answer.task.settings["aggregation"])
            rows = _entities(probs, places, answer.manifest.labels, ignored or (), strategy)
        found.append([{"id": prediction.id, **row, "word": str(text)[row["start"] : row["end"]]} for row in rows])
    return found


def name_prediction(response: Response, answer: Answer) -> Response:
    """Say the id of the only prediction in a header: where nothing was found there is nothing that could bear it."""
    if len(answer.predictions) == 1:
        response.headers[_PREDICTION] = answer.predictions[0].id
    return response


def _entities(
    probs: Floats, places: Places, labels: Sequence[str], ignored: Sequence[str], strategy: Aggregation
) -> list[dict[str, Any]]:
    return [
        {"entity_group": one.span.kind, "score": one.score, "start": one.span.start, "end": one.span.end}
        for one in entities(tagged(probs, places, strategy), labels)
        if one.span.kind not in ignored
    ]


def _tokens(probs: Floats, places: Places, labels: Sequence[str], ignored: Sequence[str]) -> list[dict[str, Any]]:
    best, scores = probs.argmax(axis=1).tolist(), probs.max(axis=1).tolist()
    rows = enumerate(zip(best, scores, places.spans, places.words, strict=True))
    return [
        {"entity": labels[tag], "score": score, "index": index, "start": start, "end": end}
        for index, (tag, score, (start, end), word) in rows
        if word >= 0 and labels[tag] not in ignored
    ]
