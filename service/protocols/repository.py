"""The model repository extension of the Open Inference Protocol: what there is, load and unload."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from service.errors import InvalidRequest
from service.fleet import Fleet
from service.repository import RepositoryWatcher

router = APIRouter(prefix="/v2/repository", tags=["model repository"])


async def _watcher(request: Request) -> RepositoryWatcher:
    return cast(RepositoryWatcher, request.app.state.watcher)


async def _fleet(request: Request) -> Fleet:
    return cast(Fleet, request.app.state.fleet)


Watcher = Annotated[RepositoryWatcher, Depends(_watcher)]
Others = Annotated[Fleet, Depends(_fleet)]


class IndexRequest(BaseModel):
    ready: bool = Field(default=False, strict=True, description="only versions that answer now")


class IndexEntry(BaseModel):
    name: str
    version: str
    state: str
    reason: str


class LoadRequest(BaseModel):
    parameters: dict[str, Any] = Field(default={}, json_schema_extra={"maxProperties": 0})


@router.post("/index")
async def index(watcher: Watcher, body: IndexRequest | None = None) -> list[IndexEntry]:
    """Every version in the repository and whether it answers."""
    entries = [
        IndexEntry(name=name, version=version, state="READY" if live else "UNAVAILABLE", reason=reason)
        for name, version, live, reason in await watcher.index()
    ]
    return [entry for entry in entries if entry.state == "READY" or not (body and body.ready)]


@router.post("/models/{name}/load")
async def load(name: str, watcher: Watcher, fleet: Others, body: LoadRequest | None = None) -> dict[str, Any]:
    """Load, or load again, the version that serving.json calls live; answers when it is live in every worker."""
    if body and body.parameters:
        raise InvalidRequest(
            f"load takes no parameters, got {', '.join(body.parameters)}. What is live is said by serving.json."
        )
    await watcher.load(name)
    await fleet.ask("load", name)
    return {}


@router.post("/models/{name}/unload")
async def unload(name: str, watcher: Watcher, fleet: Others, body: LoadRequest | None = None) -> dict[str, Any]:
    """Stop answering for a model, after the requests that it has; it stays so until it is loaded."""
    await watcher.unload(name)
    await fleet.ask("unload", name)
    return {}
