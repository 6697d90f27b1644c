"""The metrics of the whole server: of this process, or of all its workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from service.telemetry.metrics import Metrics
from service.workers.fleet import Fleet
from service.workers.metric_sums import sum_metrics, to_plain


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


async def gather_metrics(metrics: Metrics, fleet: Fleet) -> CollectorRegistry:
    """A registry to read from. :raises NotReady: if a worker does not answer."""
    if fleet.size == 1:
        return metrics.registry
    others = await fleet.ask("metrics")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(sum_metrics([to_plain(metrics.registry.collect()), *others])))
    return registry
