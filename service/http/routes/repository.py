"""The model repository extension of the Open Inference Protocol: what there is, load and unload."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.errors import InvalidRequest
from service.http.requests import documented, parse, shown
from service.http.route_table import Policy, policy
from service.http.state import Server
from service.telemetry.context import body_of

router = APIRouter(prefix="/v2/repository", tags=["model repository"])


class IndexRequest(BaseModel):
    ready: bool = Field(default=False, strict=True, description="only versions that answer now")


class IndexEntry(BaseModel):
    name: str
    version: str
    state: str
    reason: str


class LoadRequest(BaseModel):
    parameters: dict[str, Any] = Field(default={}, json_schema_extra={"maxProperties": 0})


_LOAD = documented(LoadRequest, optional=True, timed=False)


Read = TypeVar("Read", bound=BaseModel)


def _read(model: type[Read], request: Request) -> Read:
    """The body; without one, or with `null`, what it would be by default."""
    content = body_of(request.scope)
    return model() if content.strip() in (b"", b"null") else parse(model, content)


@router.post("/index", openapi_extra=documented(IndexRequest, optional=True, timed=False))
@policy(Policy(access="admin"))
async def index(request: Request, server: Server) -> list[IndexEntry]:
    """Every version in the repository and whether it answers."""
    body = _read(IndexRequest, request)
    entries = [
        IndexEntry(name=name, version=version, state="READY" if live else "UNAVAILABLE", reason=reason)
        for name, version, live, reason in await server.watcher.index()
    ]
    return [entry for entry in entries if entry.state == "READY" or not body.ready]


@router.post("/models/{name}/load", openapi_extra=_LOAD)
@policy(Policy(access="admin"))
async def load(name: str, request: Request, server: Server) -> dict[str, Any]:
    """Load, or load again, the version that serving.json calls live; answers when it is live in every worker."""
    body = _read(LoadRequest, request)
    if body.parameters:
        raise InvalidRequest(
            f"load takes no parameters, got {shown(next(iter(body.parameters)))!r}. "
            "What is live is said by serving.json."
        )
    await server.watcher.load(name)
    await server.fleet.ask("load", name)
    return {}


@router.post("/models/{name}/unload", openapi_extra=_LOAD)
@policy(Policy(access="admin"))
async def unload(name: str, request: Request, server: Server) -> dict[str, Any]:
    """Stop answering for a model, after the requests that it has; it stays so until it is loaded."""
    _read(LoadRequest, request)
    await server.watcher.unload(name)
    await server.fleet.ask("unload", name)
    return {}
