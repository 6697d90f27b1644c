"""``POST /feedback``: the true label of an earlier prediction."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from service.contract.labels import SEPARATOR
from service.contract.spans import Span, problem, split_spans
from service.errors import Contradiction, InvalidRequest
from service.http.requests import AS_DESCRIBED, documented, parse, shown
from service.http.state import Server
from service.models.loaded import LoadedModel
from service.models.predictor import Predictor
from service.telemetry.context import body_of

router = APIRouter(tags=["feedback"])


_NOT_BLANK = r"[^\s\x1c-\x1f]"  # the controls are space to Python, but not to Unicode
_ONE_LABEL = r"^[^|]*[^|\s\x1c-\x1f][^|]*$"

Told = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=_NOT_BLANK)]
OneOfSeveral = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=_ONE_LABEL)
]


class TrueEntity(BaseModel):
    """An entity as the server gives it, or with ``label`` for what it is; what else it says is not read."""

    start: Annotated[int, Field(ge=0), AS_DESCRIBED]
    end: Annotated[int, Field(ge=1), AS_DESCRIBED]
    label: OneOfSeveral = Field(validation_alias=AliasChoices("label", "entity_group"))


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: UUID = Field(description="the id that /predict gave")
    label: (
        Told
        | Annotated[list[OneOfSeveral], Field(max_length=100, fail_fast=True)]
        | Annotated[list[TrueEntity], Field(min_length=1, max_length=1000, fail_fast=True)]
    ) = Field(
        description="the true label; several in a list or joined by '|', and an empty list for none of them; "
        "or the true entities"
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="who made the prediction; needed where several models are served and it is not one of the last",
    )
    source: str = Field(default="api", max_length=200, description="who says so: a person, a rule, a later event")


class Accepted(BaseModel):
    id: str
    model: str = Field(description="whose prediction it is")
    remembered: bool = Field(description="whether it is among the last predictions; others are looked for in the log")


@router.post("/feedback", status_code=202, openapi_extra=documented(FeedbackRequest, timed=False))
async def feedback(request: Request, server: Server) -> Accepted:
    """Keep a true label for ``plumbline retrain``; 202 when it is on the disk. New labels are welcome."""
    body, predictor = parse(FeedbackRequest, body_of(request.scope)), server.predictor
    known = predictor.remembered(str(body.id))
    if known is None:  # perhaps another worker answered
        known = next((tuple(one) for one in await server.fleet.ask("prediction", str(body.id)) if one), None)
    model, predicted = known or (_named(body.model, predictor), None)
    if body.model not in (None, model):
        raise Contradiction(f"the prediction is of {model!r}, not of {shown(body.model)!r}.")
    label = _label(body, predictor.models.get(model))
    await predictor.feedback(model, predicted, str(body.id), label, body.source)
    return Accepted(id=str(body.id), model=model, remembered=known is not None)


def _label(body: FeedbackRequest, live: LoadedModel | None) -> str:
    """The true label as it is kept.

    :raises Contradiction: if entities are told of a classifier. :raises InvalidRequest: if they are none, or overlap.
    """
    given = body.label
    if live is not None and live.task.vector:
        raise Contradiction(f"{live.manifest.name!r} gives embeddings, and nobody can tell the true ones.")
    entities = isinstance(given, list) and bool(given) and isinstance(given[0], TrueEntity)
    if live is not None and entities and not live.task.per_token:
        raise Contradiction(f"{live.manifest.name!r} finds no entities: give a label, or a list of labels.")
    if isinstance(given, str):
        label = given
    else:
        written = [str(Span(one.start, one.end, one.label)) if isinstance(one, TrueEntity) else one for one in given]
        label = SEPARATOR.join(dict.fromkeys(written))
    if live is not None and live.task.per_token:
        try:
            wrong = problem(split_spans(label))
        except ValueError as error:
            wrong = str(error)
        if wrong is not None:
            raise InvalidRequest(f"label: it {wrong}.")
    return label


def _named(model: str | None, predictor: Predictor) -> str:
    """The model of a prediction that is not remembered."""
    if model is None and len(predictor.models) > 1:
        raise InvalidRequest(
            f"model: the prediction is not among the last ones; say which model made it: {', '.join(predictor.models)}."
        )
    return predictor.model(model).manifest.name
