"""KServe's first protocol: ``/v1/models`` and ``:predict``, with texts as instances."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.context import body_of
from service.predictor import Predictor
from service.protocols import documented, most_values, parse, predictor, within
from service.protocols.predict import Scored, respond

router = APIRouter(prefix="/v1/models", tags=["KServe V1"])

Models = Annotated[Predictor, Depends(predictor)]


class Instance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str


_Element = TypeVar("_Element")
_AtLeastOne = Annotated[list[_Element], Field(min_length=1)]


class InstancesRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    instances: _AtLeastOne[str] | _AtLeastOne[Instance] = Field(description='texts, or {"text": …} for each')

    @field_validator("instances", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        """Stop at the first instance that is neither."""
        if isinstance(value, list):
            kind = str if value and isinstance(value[0], str) else dict
            for place, one in enumerate(value):
                if not isinstance(one, kind) or (isinstance(one, dict) and not isinstance(one.get("text"), str)):
                    raise ValueError(f'instance {place} is not a string or {{"text": …}}, all in the same shape')
        return value


class Predictions(BaseModel):
    predictions: list[Scored]


@router.post("/{name}:predict", response_model=Predictions, openapi_extra=documented(InstancesRequest))
async def predict(name: str, request: Request, predictor: Models) -> Response:
    """The most probable label of each instance."""
    body = parse(InstancesRequest, body_of(request.scope), most_values(request))
    texts = [one if isinstance(one, str) else one.text for one in body.instances]
    answer = await predictor.predict(predictor.who_answers(name), texts, within(request))
    rows = [{"id": one.id, "label": one.label, "score": one.confidence} for one in answer.predictions]
    return respond({"predictions": rows}, answer)


@router.get("")
async def models(predictor: Models) -> dict[str, list[str]]:
    return {"models": list(predictor.models)}


@router.get("/{name}")
async def model(name: str, predictor: Models) -> dict[str, Any]:
    predictor.model(name)
    return {"name": name, "ready": True}
