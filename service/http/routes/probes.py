"""Probes for an orchestrator, and metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.errors import NotReady
from service.http.route_table import PROBE, policy
from service.http.state import Server
from service.workers.gathered import gather_metrics

router = APIRouter(tags=["operations"])


@router.get("/livez")
@policy(PROBE)
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get("/startupz")
@policy(PROBE)
async def startupz(server: Server) -> dict[str, str]:
    """Every model of the repository was loaded and warmed once."""
    if not server.predictor.started:
        raise NotReady("models are being loaded.")
    return {"status": "started"}


@router.get("/readyz")
@policy(PROBE)
async def readyz(server: Server) -> dict[str, object]:
    """Requests can be answered now: by which versions; also which cannot be served, and whether the log fails."""
    await server.check_ready()
    found: dict[str, object] = {
        "status": "ready",
        "models": {name: live.manifest.version for name, live in server.predictor.models.items()},
    }
    if refused := server.watcher.refused():
        found["refused"] = refused
    if failing := server.predictor.log_failing:
        found["log"] = f"failing: {failing}"
    return found


@router.get("/metrics", response_class=Response)
@policy(PROBE)
async def metrics(server: Server) -> Response:
    """Of all workers together."""
    return Response(generate_latest(await gather_metrics(server.metrics, server.fleet)), media_type=CONTENT_TYPE_LATEST)
