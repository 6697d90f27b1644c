"""Scores of pairs: ``/rerank`` in the shapes of Text Embeddings Inference and of Cohere, ``/score`` in that of vLLM.

All three ask a model that reads pairs of texts and gives a number, as cross-encoders do.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.contract.inputs import TextPair
from service.errors import Contradiction, InvalidRequest
from service.http.requests import AS_DESCRIBED, documented, most_values, parse, within
from service.http.route_table import Policy, policy
from service.http.routes.predict import respond
from service.http.state import Server, ServerState
from service.models.loaded import LoadedModel
from service.models.predictor import Answer
from service.tasks.tokenizer import Truncation
from service.telemetry.context import body_of

router = APIRouter(tags=["rerank"])

_Texts = Annotated[list[str], Field(min_length=1)]


class RerankRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str
    texts: _Texts
    raw_scores: bool = Field(default=False, strict=True, description="the model's outputs, without a sigmoid")
    return_text: bool = Field(default=False, strict=True)
    truncate: bool | None = Field(default=None, strict=True, description="false refuses texts that are too long")
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None


class Ranked(BaseModel):
    index: int = Field(description="of the text in the request")
    score: float
    text: str | None = None


class Document(BaseModel):
    text: str


class CohereRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")  # its clients send what only its own models know

    model: str | None = Field(default=None, description="a model that is served here; without it the default one")
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1), AS_DESCRIBED] | None = None
    return_documents: bool = Field(default=False, strict=True)


class ScoreRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    text_1: str | _Texts = Field(description="one text for all of text_2, or one for each")
    text_2: str | _Texts


@router.post("/rerank", response_model=list[Ranked], openapi_extra=documented(RerankRequest))
@policy(Policy(predicts=True))
async def rerank(request: Request, server: Server) -> Response:
    """The texts by how well they go with the query, the best first."""
    body = parse(RerankRequest, body_of(request.scope), most_values(request))
    direction = body.truncation_direction
    truncation = Truncation(body.truncate, None if direction is None else direction.lower() == "left")
    pairs = [TextPair(body.query, text) for text in body.texts]
    answer = await server.predictor.predict(_ranker(server, None), pairs, within(request), truncation)
    scores = answer.logits()[:, 0].tolist() if body.raw_scores else _scores(answer)
    shown = [{"text": text} if body.return_text else {} for text in body.texts]
    return respond([{"index": index, "score": scores[index], **shown[index]} for index in _order(scores)], answer)


@router.post("/v1/rerank", openapi_extra=documented(CohereRequest))
@router.post("/v2/rerank", openapi_extra=documented(CohereRequest))
@policy(Policy(predicts=True))
async def rerank_documents(request: Request, server: Server) -> Response:
    """The same in the shape of Cohere's and Jina's interfaces."""
    body = parse(CohereRequest, body_of(request.scope), most_values(request))
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    pairs = [TextPair(body.query, text) for text in texts]
    answer = await server.predictor.predict(_ranker(server, body.model), pairs, within(request))
    scores = _scores(answer)
    results: list[dict[str, Any]] = [
        {
            "index": index,
            "relevance_score": scores[index],
            **({"document": {"text": texts[index]}} if body.return_documents else {}),
        }
        for index in _order(scores)[: body.top_n]
    ]
    return respond({"id": str(uuid.uuid4()), "model": answer.manifest.name, "results": results}, answer)


@router.post("/score", openapi_extra=documented(ScoreRequest))
@router.post("/v1/score", openapi_extra=documented(ScoreRequest))
@policy(Policy(predicts=True))
async def score(request: Request, server: Server) -> Response:
    """How well each pair of texts goes together, in their order."""
    body = parse(ScoreRequest, body_of(request.scope), most_values(request))
    model = _ranker(server, body.model)
    seconds = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    firsts = [body.text_1] * len(seconds) if isinstance(body.text_1, str) else body.text_1
    if len(firsts) != len(seconds):
        raise InvalidRequest(f"text_1 has {len(firsts)} texts and text_2 {len(seconds)}; give one, or one for each.")
    answer = await server.predictor.predict(model, list(map(TextPair, firsts, seconds)), within(request))
    data = [{"index": index, "object": "score", "score": one} for index, one in enumerate(_scores(answer))]
    content = {
        "id": f"score-{uuid.uuid4()}",
        "object": "list",
        "created": int(time.time()),
        "model": answer.manifest.name,
        "data": data,
    }
    return respond(content, answer)


def _ranker(server: ServerState, name: str | None) -> LoadedModel:
    """The model that answers for this name. :raises Contradiction: if it gives no scores of pairs."""
    model = server.predictor.who_answers(name)
    if model.task.categorical or not model.manifest.paired:
        raise Contradiction(
            f"{model.manifest.name!r} is a {model.task.described(model.manifest.labels)}; only models that give pairs "
            "of texts a score can rank. Ask /predict, or name another model."
        )
    return model


def _scores(answer: Answer) -> list[float]:
    return [one.probs[0] for one in answer.predictions]


def _order(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])
