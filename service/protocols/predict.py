"""``POST /predict`` in the shape of Text Embeddings Inference, ``POST /`` in that of Hugging Face's endpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from service.predictor import Answer, Prediction, Predictor
from service.protocols import TimeoutHeader, describe, predictor, seconds, settings
from service.settings import ServiceSettings

router = APIRouter(tags=["predict"])


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(default=None, ge=1, description="labels per text, most probable first")


# How many there may be is checked by the predictor; this is for the description.
Texts = Annotated[list[str], WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1})]


class PredictRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: str | Texts = Field(description="a text, or a list of texts; a list is a batch, never a pair")
    parameters: Parameters = Parameters()

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


@router.post("/predict")
async def predict(
    body: PredictRequest,
    response: Response,
    predictor: Annotated[Predictor, Depends(predictor)],
    settings: Annotated[ServiceSettings, Depends(settings)],
    timeout_ms: TimeoutHeader = None,
) -> list[Scored] | list[list[Scored]]:
    """Classify a text, or a list of texts: ``[{"id", "label", "score"}]``, nested for a list."""
    scored = await _classify(body, response, predictor, settings, timeout_ms, body.parameters.top_k or 1)
    return scored[0] if isinstance(body.inputs, str) else scored


@router.post("/")
async def endpoint(
    body: PredictRequest,
    response: Response,
    predictor: Annotated[Predictor, Depends(predictor)],
    settings: Annotated[ServiceSettings, Depends(settings)],
    timeout_ms: TimeoutHeader = None,
) -> list[list[Scored]]:
    """As ``/predict``, but nested for a single text too, and with every label unless ``top_k`` says less."""
    return await _classify(body, response, predictor, settings, timeout_ms, body.parameters.top_k)


async def _classify(
    body: PredictRequest,
    response: Response,
    predictor: Predictor,
    settings: ServiceSettings,
    timeout_ms: int | None,
    top_k: int | None,
) -> list[list[Scored]]:
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    answer = await predictor.predict(predictor.who_answers(settings.model), texts, seconds(timeout_ms))
    describe(answer, response)
    return [_scored(answer, prediction, top_k) for prediction in answer.predictions]


def _scored(answer: Answer, prediction: Prediction, top_k: int | None) -> list[Scored]:
    ranked = sorted(zip(prediction.probs, answer.manifest.labels, strict=True), key=lambda pair: -pair[0])
    return [Scored(id=prediction.id, label=label, score=prob) for prob, label in ranked[:top_k]]
