"""The metrics of several processes as if they were one: what is counted adds up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.samples import Sample

# Gauges that state a fact, which is the same or not yet known in every worker; all others add up.
_FACTS = frozenset(
    ["plumbline_model_info", "plumbline_candidate_share", "plumbline_device_fallback", "plumbline_model_unproven"]
)


def to_plain(families: Iterable[Metric]) -> list[Any]:
    """Metrics as JSON can hold them; :func:`sum_metrics` takes them back."""
    return [
        [family.name, family.documentation, family.type, [[one.name, one.labels, one.value] for one in family.samples]]
        for family in families
    ]


def sum_metrics(parts: Sequence[list[Any]]) -> list[Metric]:
    """The sum of several processes' metrics, in the order of the first; times of creation are the earliest."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for name, documentation, kind, samples in (family for part in parts for family in part):
        families.setdefault(name, Metric(name, documentation, kind))
        known = values.setdefault(name, {})
        for sample, labels, value in samples:
            key = (sample, tuple(labels.items()))
            known[key] = _together(name, sample, known[key], value) if key in known else value
    for name, family in families.items():
        family.samples = [Sample(sample, dict(labels), value) for (sample, labels), value in values[name].items()]
    return list(families.values())


def _together(family: str, sample: str, one: float, other: float) -> float:
    if sample.endswith("_created"):
        return min(one, other)
    return max(one, other) if family in _FACTS else one + other
