"""``POST /predict`` in the shape of Text Embeddings Inference, ``POST /`` in that of Hugging Face's endpoints.

Both take both shapes of request: TEI's ``truncate``, ``truncation_direction`` and ``raw_scores``, and Hugging Face's
``parameters`` and ``options``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from service.contract.inputs import Input, TextPair
from service.errors import Contradiction
from service.http.requests import AS_DESCRIBED, documented, headers_of, most_values, parse, within
from service.http.route_table import Policy, policy
from service.http.routes.entities import FoundEntity, Strategy, found_entities, name_prediction
from service.http.state import state_of
from service.models.loaded import LoadedModel
from service.models.predictor import Answer
from service.tasks.classification import sigmoid, softmax
from service.tasks.task import Floats
from service.tasks.tokenizer import AS_TRAINED, Truncation
from service.telemetry.context import body_of

router = APIRouter(tags=["predict"])

_PROBABILITY = itemgetter(0)
_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda logits: logits,
}


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    top_k: Annotated[int, Field(ge=1), AS_DESCRIBED] | None = Field(
        default=None, description="labels per text, most probable first; all without it"
    )
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        default=None, description="what makes scores of the model's outputs; without it what the task asks for"
    )
    aggregation_strategy: Strategy | None = Field(
        default=None,
        description="of a model that finds entities: how tokens become such; none gives tokens; without it as the "
        "model was judged",
    )
    ignore_labels: Annotated[list[str], Field(max_length=1000, fail_fast=True)] | None = Field(
        default=None, description="of a model that finds entities: kinds to leave out, or labels of tokens"
    )


_NOTHING = Parameters()

# How many there may be is checked by the predictor; this is for the description.
Texts = Annotated[list[str], WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1})]
_ROW = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}
Rows = Annotated[list[Texts], WithJsonSchema({"type": "array", "items": _ROW, "minItems": 1})]


class Pair(BaseModel):
    """A pair of texts as Hugging Face's pipelines take it."""

    model_config = ConfigDict(extra="forbid")

    text: str
    text_pair: str


Pairs = Annotated[list[Pair], Field(min_length=1)]


class PredictRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: str | Texts | Rows | Pair | Pairs = Field(
        description="a text, or a list of texts, each maybe in a list of its own; of a model that reads pairs a list "
        "of two texts, or an object with text and text_pair, or a list of either"
    )
    truncate: bool | None = Field(default=None, strict=True, description="false refuses texts that are too long")
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        default=None, description="which end of a longer text is cut off; without it as the model was trained"
    )
    raw_scores: bool = Field(
        default=False, strict=True, description="the model's outputs, whatever function is asked for"
    )
    parameters: Parameters | None = None
    options: dict[str, Any] | None = Field(default=None, description="of Hugging Face's endpoints; nothing here")

    @field_validator("inputs", mode="before")
    @classmethod
    def _strings(cls, value: object) -> object:
        """Stop at the first element that is no string: half a million errors would take minutes to list."""
        if isinstance(value, list):
            kind = type(value[0]) if value and isinstance(value[0], list | dict) else str
            for index, element in enumerate(value):
                _check_element(index, element, kind)
        return value

    def alone(self, *, paired: bool) -> bool:
        """Whether it is one input and not a list of them, for a model that reads pairs or single texts."""
        if isinstance(self.inputs, list):
            return paired and len(self.inputs) == 2 and isinstance(self.inputs[0], str)
        return True

    def read(self, *, paired: bool) -> Sequence[Input]:
        """The inputs for such a model. What is not of its kind is for the model to refuse."""
        if isinstance(self.inputs, list) and not self.alone(paired=paired):
            return [_input(one) for one in self.inputs]
        return [_input(self.inputs)]

    @property
    def truncation(self) -> Truncation:
        if self.truncate is None and self.truncation_direction is None:
            return AS_TRAINED
        direction = self.truncation_direction
        return Truncation(self.truncate, None if direction is None else direction.lower() == "left")

    @property
    def top_k(self) -> int | None:
        return self.parameters.top_k if self.parameters is not None else None

    @property
    def function(self) -> Literal["softmax", "sigmoid", "none"] | None:
        if self.raw_scores:
            return "none"
        return self.parameters.function_to_apply if self.parameters is not None else None


_KINDS: dict[type[object], str] = {
    str: "a string",
    list: "a list of a string, or of two",
    dict: "an object with text and text_pair",
}


def _check_element(index: int, element: object, kind: type[object]) -> None:
    """:raises ValueError: if an element of a list is not of the first one's kind."""
    fits = isinstance(element, kind)
    if isinstance(element, list):
        fits = fits and 1 <= len(element) <= 2 and all(isinstance(one, str) for one in element)
    if isinstance(element, dict):
        fits = (
            fits and element.keys() == {"text", "text_pair"} and all(isinstance(one, str) for one in element.values())
        )
    if not fits:
        raise ValueError(f"element {index} is not {_KINDS[kind]}")


def _input(given: object) -> Input:
    if isinstance(given, Pair):
        return TextPair(given.text, given.text_pair)
    if isinstance(given, list):
        return given[0] if len(given) == 1 else TextPair(*given)
    assert isinstance(given, str)
    return given


class Scored(BaseModel):
    id: str = Field(description="of the prediction, for /feedback")
    label: str
    score: float


_DOCUMENTED = documented(PredictRequest)
One = list[Scored] | list[FoundEntity]
Several = list[list[Scored]] | list[list[FoundEntity]]


@router.post("/predict", response_model=One | Several, openapi_extra=_DOCUMENTED)
@policy(Policy(predicts=True, direct=True))
async def predict(request: Request) -> Response:
    """Classify a text, or a list of texts: ``[{"id", "label", "score"}]``, nested for a list.

    A model that finds entities answers ``[{"id", "entity_group", "score", "word", "start", "end"}]``.
    """
    return await _predict(request, None)


@router.post("/models/{name}/predict", response_model=One | Several, openapi_extra=_DOCUMENTED)
@policy(Policy(predicts=True))
async def predict_by(name: str, request: Request) -> Response:
    """As ``/predict``, by this model."""
    return await _predict(request, name)


@router.post("/", response_model=Several, openapi_extra=_DOCUMENTED)
@policy(Policy(predicts=True, direct=True))
async def endpoint(request: Request) -> Response:
    """As ``/predict``, but nested for a single text too."""
    body = parse(PredictRequest, body_of(request.scope), most_values(request))
    answer = await classify(body, request)
    return respond(shown_answers(answer, body), answer)


async def _predict(request: Request, name: str | None) -> Response:
    body = parse(PredictRequest, body_of(request.scope), most_values(request))
    answer = await classify(body, request, name)
    rows = shown_answers(answer, body)
    return respond(rows[0] if body.alone(paired=answer.manifest.paired) else rows, answer)


async def classify(body: PredictRequest, request: Request, name: str | None = None) -> Answer:
    """What the model called ``name``, or the default one, answers. :raises Contradiction: if it cannot as asked."""
    predictor = state_of(request).predictor
    model = predictor.who_answers(name)
    _check_asked(model, body)
    return await predictor.predict(model, body.read(paired=model.manifest.paired), within(request), body.truncation)


def shown_answers(answer: Answer, body: PredictRequest) -> Sequence[Sequence[Mapping[str, Any]]]:
    """The labels of each text, most probable first, in the shape of :class:`Scored`; or its entities."""
    if answer.task.per_token:
        asked = body.parameters or _NOTHING
        return found_entities(answer, asked.aggregation_strategy, asked.ignore_labels)
    labels, top_k = answer.manifest.labels, body.top_k
    return [
        [
            {"id": prediction.id, "label": label, "score": score}
            for score, label in sorted(zip(scores, labels, strict=True), key=_PROBABILITY, reverse=True)[:top_k]
        ]
        for prediction, scores in zip(answer.predictions, _scores(answer, body.function), strict=True)
    ]


def _check_asked(model: LoadedModel, body: PredictRequest) -> None:
    """:raises Contradiction: if something is asked that is not for such a model."""
    refuse_vectors(model)
    asked = body.parameters or _NOTHING
    wrong: dict[str, object] = {
        "aggregation_strategy": asked.aggregation_strategy,
        "ignore_labels": asked.ignore_labels,
    }
    if model.task.per_token:
        wrong = {"top_k": body.top_k, "raw_scores" if body.raw_scores else "function_to_apply": body.function}
    for name, given in wrong.items():
        if given is not None:
            described = model.task.described(model.manifest.labels)
            raise Contradiction(f"{name} is not for {model.manifest.name!r}, a {described}. Leave it out.")


def refuse_vectors(model: LoadedModel) -> None:
    """:raises Contradiction: if the model gives vectors, where something that can be named is asked for."""
    if model.task.vector:
        described = model.task.described(model.manifest.labels)
        raise Contradiction(f"{model.manifest.name!r} is a {described}. Ask /embed or /v1/embeddings.")


def _scores(answer: Answer, function: Literal["softmax", "sigmoid", "none"] | None) -> Sequence[Sequence[float]]:
    """(texts, labels), in the order of the manifest's labels."""
    if function is None:
        return [prediction.probs for prediction in answer.predictions]
    logits = answer.logits()
    rows: list[list[float]] = _FUNCTIONS[function](logits).tolist()
    return rows


def respond(content: object, answer: Answer) -> Response:
    """Serialized here: these answers are made of what is known to fit, so they are not validated once more."""
    response = Response(orjson.dumps(content), media_type="application/json")
    response.raw_headers += headers_of(answer)
    return name_prediction(response, answer) if answer.task.per_token else response
