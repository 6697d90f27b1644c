"""What the server says of itself: its queue and its batches while a stage ran, from ``/metrics`` before and after.

It is asked before and after only: a look at every second would be part of what is measured.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict

_PATIENCE = 10.0
_PAUSES = (0.0, 0.5, 1.0, 2.0)  # seconds before each try
_BUSY = 503
# Name here: the histogram, and what its unit is multiplied with.
HISTOGRAMS = {
    "queue_ms": ("plumbline_queue_duration_seconds", 1000.0),
    "tokenization_ms": ("plumbline_tokenization_duration_seconds", 1000.0),
    "inference_ms": ("plumbline_inference_duration_seconds", 1000.0),
    "batch_size": ("plumbline_batch_size", 1.0),
    "batch_tokens": ("plumbline_batch_tokens", 1.0),
    "padding": ("plumbline_batch_padding_ratio", 1.0),
}
_REJECTED, _REQUESTS = "plumbline_rejected_total", "plumbline_requests_total"

Counters = Mapping[tuple[str, str], float]
"""By sample and the label that matters (``le`` or ``reason``), summed over the others."""


class Spread(BaseModel):
    model_config = ConfigDict(frozen=True)

    mean: float
    p99: float  # at most; of the histogram's buckets, as Prometheus' histogram_quantile


class ServerReport(BaseModel):
    """Of the time of a stage, with its warm-up and whoever else asked the server."""

    model_config = ConfigDict(frozen=True)

    requests: int
    spreads: dict[str, Spread]
    rejected: dict[str, int]


def read_counters(url: str) -> Counters | None:
    """The server's counters now; None if it has no such ``/metrics``, or is too busy to tell for some seconds."""
    for pause in _PAUSES:
        time.sleep(pause)
        with suppress(httpx.HTTPError):
            response = httpx.get(f"{url}/metrics", timeout=_PATIENCE)
            if response.status_code != _BUSY:
                return parse_counters(response.text) if response.status_code == 200 else None
    return None


def parse_counters(text: str) -> Counters | None:
    """Of Prometheus' text format; None if nothing of Plumbline's is in it."""
    wanted = {name for name, _ in HISTOGRAMS.values()}
    counters: dict[tuple[str, str], float] = defaultdict(float)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.name in wanted or sample.name == _REJECTED:
                    counters[sample.name, sample.labels.get("le", sample.labels.get("reason", ""))] += sample.value
                elif sample.name == _REQUESTS and sample.labels.get("route") != "/metrics":
                    counters[sample.name, ""] += sample.value
    except ValueError:
        return None
    return counters or None


def report(before: Counters | None, after: Counters | None) -> ServerReport | None:
    """What happened between two readings."""
    if before is None or after is None:
        return None
    change = {key: value - before.get(key, 0.0) for key, value in after.items()}
    spreads = {name: spread for name, (metric, unit) in HISTOGRAMS.items() if (spread := _spread(change, metric, unit))}
    rejected = {label: int(count) for (metric, label), count in change.items() if metric == _REJECTED and count > 0}
    return ServerReport(requests=int(change.get((_REQUESTS, ""), 0)), spreads=spreads, rejected=rejected)


def _spread(change: Counters, metric: str, unit: float) -> Spread | None:
    count = change.get((f"{metric}_count", ""), 0.0)
    if count <= 0:
        return None
    buckets = sorted((float(label), value) for (name, label), value in change.items() if name == f"{metric}_bucket")
    p99, below, floor = 0.0, 0.0, 0.0
    for bound, value in buckets:
        if value >= 0.99 * count:
            inside = (0.99 * count - below) / max(value - below, 1)
            p99 = floor if bound == float("inf") else floor + (bound - floor) * inside
            break
        below, floor = value, bound
    return Spread(mean=unit * change[f"{metric}_sum", ""] / count, p99=unit * p99)
