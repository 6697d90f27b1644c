"""``POST /predict`` in the shape of Text Embeddings Inference, ``POST /`` in that of Hugging Face's endpoints."""

from __future__ import annotations

from operator import itemgetter
from typing import Annotated

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from service.context import body_of
from service.predictor import Answer, Predictor
from service.protocols import AS_DESCRIBED, described, documented, most_values, parse, within

router = APIRouter(tags=["predict"])

_PROBABILITY = itemgetter(0)


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    top_k: Annotated[int, Field(ge=1), AS_DESCRIBED] | None = Field(
        default=None, description="labels per text, most probable first"
    )


_NONE = Parameters()

# How many there may be is checked by the predictor; this is for the description.
Texts = Annotated[list[str], WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1})]


class PredictRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: str | Texts = Field(description="a text, or a list of texts; a list is a batch, never a pair")
    parameters: Parameters = Field(default_factory=lambda: _NONE)  # pydantic would copy a default, at some cost

    @field_validator("inputs", mode="before")
    @classmethod
    def _strings(cls, value: object) -> object:
        """Stop at the first element that is no string: half a million errors would take minutes to list."""
        if isinstance(value, list):
            for place, element in enumerate(value):
                if not isinstance(element, str):
                    raise ValueError(f"element {place} is not a string")
        return value


class Scored(BaseModel):
    id: str = Field(description="of the prediction, for /feedback")
    label: str
    score: float


@router.post("/predict", response_model=list[Scored] | list[list[Scored]], openapi_extra=documented(PredictRequest))
async def predict(request: Request) -> Response:
    """Classify a text, or a list of texts: ``[{"id", "label", "score"}]``, nested for a list."""
    body = parse(PredictRequest, body_of(request.scope), most_values(request))
    answer = await _classify(body, request)
    scored = _scored(answer, body.parameters.top_k or 1)
    return _respond(scored[0] if isinstance(body.inputs, str) else scored, answer)


@router.post("/", response_model=list[list[Scored]], openapi_extra=documented(PredictRequest))
async def endpoint(request: Request) -> Response:
    """As ``/predict``, but nested for a single text too, and with every label unless ``top_k`` says less."""
    body = parse(PredictRequest, body_of(request.scope), most_values(request))
    answer = await _classify(body, request)
    return _respond(_scored(answer, body.parameters.top_k), answer)


HANDLERS = {"/predict": predict, "/": endpoint}


async def _classify(body: PredictRequest, request: Request) -> Answer:
    state = request.app.state
    predictor: Predictor = state.predictor
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    return await predictor.predict(predictor.who_answers(state.settings.model), texts, within(request))


def _scored(answer: Answer, top_k: int | None) -> list[list[dict[str, str | float]]]:
    """The most probable labels of each text, in the shape of :class:`Scored`."""
    labels = answer.manifest.labels
    return [
        [
            {"id": prediction.id, "label": label, "score": prob}
            for prob, label in sorted(zip(prediction.probs, labels, strict=True), key=_PROBABILITY, reverse=True)[
                :top_k
            ]
        ]
        for prediction in answer.predictions
    ]


def _respond(content: object, answer: Answer) -> Response:
    """Serialized here: these answers are made of what is known to fit, so they are not validated once more."""
    response = Response(orjson.dumps(content), media_type="application/json")
    response.raw_headers += described(answer)
    return response
