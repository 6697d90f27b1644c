"""The metrics of the whole server: of this process, or of all its workers."""

from __future__ import annotations

from fastapi import Request
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from service.added import added, as_plain
from service.fleet import Fleet
from service.metrics import Metrics


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


async def gathered(request: Request) -> CollectorRegistry:
    """A registry to read from. :raises NotReady: if a worker does not answer."""
    metrics: Metrics = request.app.state.metrics
    fleet: Fleet = request.app.state.fleet
    if fleet.size == 1:
        return metrics.registry
    others = await fleet.ask("metrics")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(added([as_plain(metrics.registry.collect()), *others])))
    return registry
