"""Beside ``/predict`` what Text Embeddings Inference has: ``/health``, ``/info``, ``/tokenize`` and ``/decode``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service import __version__
from service.errors import InvalidRequest
from service.http.requests import AS_DESCRIBED, documented, most_values, parse
from service.http.route_table import PROBE, policy
from service.http.routes.predict import Texts
from service.http.state import Server
from service.models.loaded import LoadedModel
from service.models.predictor import check_unicode
from service.telemetry.context import body_of

router = APIRouter(tags=["Text Embeddings Inference"])

_Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**32), AS_DESCRIBED]], Field(min_length=1)]


class TokenizeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: str | Texts = Field(description="a text, or a list of texts")
    add_special_tokens: bool = Field(default=True, strict=True)
    prompt_name: None = Field(default=None, description="classifiers have no prompts")


class DecodeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: _Ids | Annotated[list[_Ids], Field(min_length=1)] = Field(description="token ids of a text, or of several")
    skip_special_tokens: bool = Field(default=True, strict=True)


class Token(BaseModel):
    id: int
    text: str
    special: bool
    start: int | None = Field(description="characters into the text; null for special tokens")
    stop: int | None


@router.get("/health", response_class=Response, tags=["operations"])
@policy(PROBE)
async def healthy(server: Server) -> Response:
    """As ``/readyz``, without a body."""
    await server.check_ready()
    return Response()


@router.get("/info")
@router.get("/models/{name}/info")
async def info(server: Server, name: str | None = None) -> dict[str, Any]:
    """The default model, or the one that is named, and its limits."""
    live = server.predictor.model(name)
    labels = live.manifest.labels
    kind = {
        "id2label": {str(place): label for place, label in enumerate(labels)},
        "label2id": {label: place for place, label in enumerate(labels)},
    }
    return {
        "model_id": live.manifest.name,
        "model_sha": live.bundle.digest,
        "model_dtype": live.manifest.variants[live.variant].precision,
        "model_type": {"embedding": {"pooling": live.task.settings["pooling"]}}
        if live.task.vector
        else {"classifier": kind},
        "max_input_length": live.manifest.max_length,
        "max_client_batch_size": server.settings.max_items,
        "max_batch_tokens": live.batcher.cost.budget,
        "max_concurrent_requests": None,
        "max_batch_requests": None,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


@router.post("/tokenize", response_model=list[list[Token]], openapi_extra=documented(TokenizeRequest, timed=False))
@router.post(
    "/models/{name}/tokenize", response_model=list[list[Token]], openapi_extra=documented(TokenizeRequest, timed=False)
)
async def tokenize(request: Request, server: Server, name: str | None = None) -> Response:
    """The tokens of each text, cut as the model reads them."""
    body = parse(TokenizeRequest, body_of(request.scope), most_values(request))
    live = server.predictor.model(name)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not 0 < len(texts) <= server.settings.max_items:
        raise InvalidRequest(f"{len(texts)} texts in one request; give 1 to {server.settings.max_items}.")
    for text in texts:
        check_unicode(text)
    content = await asyncio.to_thread(_tokens, live, texts, body.add_special_tokens)
    return Response(content, media_type="application/json")


def _tokens(live: LoadedModel, texts: list[str], special: bool) -> bytes:
    """As JSON, on a thread of its own: there may be a hundred thousand."""
    found = []
    for text, encoding in zip(texts, live.tokenizer.pieces(texts, special), strict=True):
        columns = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
        found.append(
            [
                {"id": one, "text": token, "special": True, "start": None, "stop": None}
                if is_special
                else {"id": one, "text": text[start:stop], "special": False, "start": start, "stop": stop}
                for one, token, is_special, (start, stop) in columns
            ]
        )
    return orjson.dumps(found)


@router.post("/decode", response_model=list[str], openapi_extra=documented(DecodeRequest, timed=False))
@router.post("/models/{name}/decode", response_model=list[str], openapi_extra=documented(DecodeRequest, timed=False))
async def decode(request: Request, server: Server, name: str | None = None) -> list[str]:
    """The text of token ids."""
    body = parse(DecodeRequest, body_of(request.scope))
    live = server.predictor.model(name)
    rows = cast("list[list[int]]", body.ids if isinstance(body.ids[0], list) else [body.ids])
    return await asyncio.to_thread(live.tokenizer.decode, rows, body.skip_special_tokens)
