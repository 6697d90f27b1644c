"""``POST /feedback``: the true label of an earlier prediction."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.contract.labels import SEPARATOR
from service.errors import Contradiction, InvalidRequest
from service.http.requests import documented, parse, shown
from service.http.state import Server
from service.models.predictor import Predictor
from service.telemetry.context import body_of

router = APIRouter(tags=["feedback"])


_NOT_BLANK = r"[^\s\x1c-\x1f]"  # the controls are space to Python, but not to Unicode
_ONE_LABEL = r"^[^|]*[^|\s\x1c-\x1f][^|]*$"

Told = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=_NOT_BLANK)]
OneOfSeveral = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=_ONE_LABEL)
]


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: UUID = Field(description="the id that /predict gave")
    label: Told | Annotated[list[OneOfSeveral], Field(max_length=100, fail_fast=True)] = Field(
        description="the true label; several in a list or joined by '|', and an empty list for none of them"
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
    label = body.label if isinstance(body.label, str) else SEPARATOR.join(dict.fromkeys(body.label))
    model, predicted = known or (_named(body.model, predictor), None)
    if body.model not in (None, model):
        raise Contradiction(f"the prediction is of {model!r}, not of {shown(body.model)!r}.")
    await predictor.feedback(model, predicted, str(body.id), label, body.source)
    return Accepted(id=str(body.id), model=model, remembered=known is not None)


def _named(model: str | None, predictor: Predictor) -> str:
    """The model of a prediction that is not remembered."""
    if model is None and len(predictor.models) > 1:
        raise InvalidRequest(
            f"model: the prediction is not among the last ones; say which model made it: {', '.join(predictor.models)}."
        )
    return predictor.model(model).manifest.name
