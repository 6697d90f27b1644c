"""Probes for an orchestrator, and metrics for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.errors import NotReady
from service.predictor import Predictor
from service.protocols import check_all_ready, predictor
from service.protocols.gathered import gathered
from service.repository import RepositoryWatcher

router = APIRouter(tags=["operations"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get("/startupz")
async def startupz(predictor: Annotated[Predictor, Depends(predictor)]) -> dict[str, str]:
    """Every model of the repository was loaded and warmed once."""
    if not predictor.started:
        raise NotReady("models are being loaded.")
    return {"status": "started"}


@router.get("/readyz")
async def readyz(request: Request, predictor: Annotated[Predictor, Depends(predictor)]) -> dict[str, object]:
    """Requests can be answered now: by which versions; also which cannot be served, and whether the log fails."""
    await check_all_ready(request)
    watcher: RepositoryWatcher = request.app.state.watcher
    found: dict[str, object] = {
        "status": "ready",
        "models": {name: live.manifest.version for name, live in predictor.models.items()},
    }
    if refused := watcher.refused():
        found["refused"] = refused
    if failing := predictor.log_failing:
        found["log"] = f"failing: {failing}"
    return found


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Of all workers together."""
    return Response(generate_latest(await gathered(request)), media_type=CONTENT_TYPE_LATEST)
