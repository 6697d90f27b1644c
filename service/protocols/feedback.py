"""``POST /feedback``: the true label of an earlier prediction."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.context import body_of
from service.contract.labels import SEPARATOR
from service.fleet import Fleet
from service.predictor import Predictor
from service.protocols import documented, parse, predictor

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
    source: str = Field(default="api", max_length=200, description="who says so: a person, a rule, a later event")


class Accepted(BaseModel):
    id: str


@router.post("/feedback", status_code=202, openapi_extra=documented(FeedbackRequest, timed=False))
async def feedback(
    request: Request,
    predictor: Annotated[Predictor, Depends(predictor)],
) -> Accepted:
    """Keep a true label for ``plumbline retrain``. A label that the model does not know yet is welcome."""
    body = parse(FeedbackRequest, body_of(request.scope))
    known = predictor.remembered(str(body.id))
    if known is None:  # perhaps another worker answered
        fleet: Fleet = request.app.state.fleet
        known = next((tuple(one) for one in await fleet.ask("prediction", str(body.id)) if one), None)
    label = body.label if isinstance(body.label, str) else SEPARATOR.join(dict.fromkeys(body.label))
    predictor.feedback(known, str(body.id), label, body.source)
    return Accepted(id=str(body.id))
