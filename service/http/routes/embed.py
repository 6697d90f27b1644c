"""Sentence embeddings: ``/embed`` of Text Embeddings Inference, ``/v1/embeddings`` of OpenAI."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from service.errors import Contradiction
from service.http.requests import AS_DESCRIBED, documented, most_values, parse, within
from service.http.route_table import Policy, policy
from service.http.routes.predict import Texts, respond
from service.http.state import Server, ServerState
from service.models.loaded import LoadedModel
from service.models.predictor import Answer
from service.tasks.embeddings import normalized, shortened
from service.tasks.task import Floats
from service.tasks.tokenizer import AS_TRAINED, Truncation
from service.telemetry.context import body_of

router = APIRouter(tags=["Embeddings"])

Dimensions = Annotated[int, Field(ge=1), AS_DESCRIBED]
_DIMENSIONS = "the first so many numbers of each vector, for models that were trained so (Matryoshka)"


class EmbedRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: str | Texts = Field(description="a text, or a list of texts")
    normalize: bool = Field(default=True, strict=True, description="vectors of length 1")
    truncate: bool | None = Field(default=None, strict=True, description="false refuses texts that are too long")
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        default=None, description="which end of a longer text is cut off; without it as the model was trained"
    )
    dimensions: Dimensions | None = Field(default=None, description=_DIMENSIONS)
    prompt_name: None = Field(default=None, description="send the prompt with the text")

    @property
    def truncation(self) -> Truncation:
        if self.truncate is None and self.truncation_direction is None:
            return AS_TRAINED
        direction = self.truncation_direction
        return Truncation(self.truncate, None if direction is None else direction.lower() == "left")


class OpenAIRequest(BaseModel):
    """What OpenAI's clients send."""

    model_config = ConfigDict(extra="forbid")

    input: str | Annotated[list[str], WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1})] = (
        Field(description="a text, or a list of texts; token ids are not taken")
    )
    model: str | None = Field(default=None, description="which model; the default one without it")
    encoding_format: Literal["float", "base64"] = Field(default="float", description="base64 is of little-endian fp32")
    dimensions: Dimensions | None = Field(default=None, description=_DIMENSIONS)
    user: str | None = Field(default=None, description="not read")

    @field_validator("input", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if isinstance(value, list) and value and not isinstance(value[0], str):
            raise ValueError("give texts: token ids belong to another tokenizer")
        return value


class Vector(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class OpenAIResponse(BaseModel):
    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: Usage


_EMBED = documented(EmbedRequest)


@router.post("/embed", response_model=list[list[float]], openapi_extra=_EMBED)
@router.post("/models/{name}/embed", response_model=list[list[float]], openapi_extra=_EMBED)
@policy(Policy(predicts=True))
async def embed(request: Request, server: Server, name: str | None = None) -> Response:
    """A vector for each text, also for a single one in a list."""
    body = parse(EmbedRequest, body_of(request.scope), most_values(request))
    model = _embedder(server, name, body.dimensions)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    answer = await server.predictor.predict(model, texts, within(request), body.truncation)
    return respond(vectors(answer, body.dimensions, unit=body.normalize).tolist(), answer)


@router.post("/v1/embeddings", response_model=OpenAIResponse, openapi_extra=documented(OpenAIRequest))
@policy(Policy(predicts=True))
async def openai(request: Request, server: Server) -> Response:
    """A vector for each text, as the model was trained to give it."""
    body = parse(OpenAIRequest, body_of(request.scope), most_values(request))
    model = _embedder(server, body.model, body.dimensions)
    texts = [body.input] if isinstance(body.input, str) else body.input
    answer = await server.predictor.predict(model, texts, within(request))
    found = vectors(answer, body.dimensions, unit=bool(model.task.settings["normalized"]))
    shown: list[Any] = found.tolist()
    if body.encoding_format == "base64":
        shown = [base64.b64encode(one.astype("<f4").tobytes()).decode() for one in found]
    tokens = sum(len(one.batch.tokens[one.row]) for one in answer.seen)
    content = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)],
        "model": answer.manifest.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return respond(content, answer)


def vectors(answer: Answer, dimensions: int | None = None, *, unit: bool) -> Floats:
    """(texts, dimensions); of length 1 if they are to be a ``unit``."""
    found = shortened(answer.logits(), dimensions)
    return normalized(found) if unit else found


def _embedder(server: ServerState, name: str | None, dimensions: int | None) -> LoadedModel:
    """The model that answers for this name. :raises Contradiction: if it gives no vectors, or none so long."""
    model = server.predictor.who_answers(name)
    if not model.task.vector:
        raise Contradiction(
            f"{model.manifest.name!r} is a {model.task.described(model.manifest.labels)} and gives no embeddings. Ask "
            "/predict, or name another model."
        )
    if dimensions is not None and dimensions > int(model.task.settings["dimensions"]):
        raise Contradiction(f"{model.manifest.name!r} is a {model.task.described(())}, fewer than {dimensions}.")
    return model
