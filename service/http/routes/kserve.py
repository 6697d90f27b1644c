"""KServe's first protocol: ``/v1/models`` and ``:predict``, with texts as instances."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.contract.inputs import input_of
from service.http.requests import documented, most_values, parse, within
from service.http.route_table import Policy, policy
from service.http.routes.embed import vectors
from service.http.routes.entities import FoundEntity, found_entities
from service.http.routes.predict import Scored, respond
from service.http.state import Server
from service.telemetry.context import body_of

router = APIRouter(prefix="/v1/models", tags=["KServe V1"])


class Instance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    text_pair: str | None = Field(default=None, description="the second text, of a model that reads pairs")


_Element = TypeVar("_Element")
_AtLeastOne = Annotated[list[_Element], Field(min_length=1)]


class InstancesRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    instances: _AtLeastOne[str] | _AtLeastOne[Instance] = Field(
        description='texts, or {"text": …} for each, with "text_pair" where pairs are read'
    )

    @field_validator("instances", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        """Stop at the first instance that is neither."""
        if isinstance(value, list):
            kind = str if value and isinstance(value[0], str) else dict
            for place, one in enumerate(value):
                if not isinstance(one, kind) or (isinstance(one, dict) and not _is_instance(one)):
                    raise ValueError(f'instance {place} is not a string or {{"text": …}}, all in the same shape')
        return value


def _is_instance(given: dict[str, object]) -> bool:
    return isinstance(given.get("text"), str) and isinstance(given.get("text_pair"), str | None)


class Prediction(Scored):
    entities: list[FoundEntity] | None = Field(default=None, description="of a model that finds them")


class Predictions(BaseModel):
    predictions: list[Prediction] | list[list[float]] = Field(description="vectors of a model that gives embeddings")


@router.post("/{name}:predict", response_model=Predictions, openapi_extra=documented(InstancesRequest))
@policy(Policy(predicts=True))
async def predict(name: str, request: Request, server: Server) -> Response:
    """The most probable label of each instance."""
    body = parse(InstancesRequest, body_of(request.scope), most_values(request))
    texts = [one if isinstance(one, str) else input_of(one.text, one.text_pair) for one in body.instances]
    predictor = server.predictor
    answer = await predictor.predict(predictor.who_answers(name), texts, within(request))
    if answer.task.vector:
        return respond({"predictions": vectors(answer, unit=bool(answer.task.settings["normalized"])).tolist()}, answer)
    rows: list[dict[str, Any]] = [{"id": one.id, "label": one.label, "score": one.score} for one in answer.predictions]
    if answer.task.per_token:
        rows = [{**row, "entities": found} for row, found in zip(rows, found_entities(answer), strict=True)]
    return respond({"predictions": rows}, answer)


@router.get("")
async def models(server: Server) -> dict[str, list[str]]:
    return {"models": list(server.predictor.models)}


@router.get("/{name}")
async def model(name: str, server: Server) -> dict[str, Any]:
    server.predictor.model(name)
    return {"name": name, "ready": True}
