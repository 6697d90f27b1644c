"""Figures that a manifest implies without holding them: which row is what, and how they compare."""

from __future__ import annotations

from service.contract.bundle import Candidate, Latency, Manifest, Search, Stage, VariantName

FP32 = "onnxruntime fp32"  # the row of the checkpoint's float32 graph, unpruned: what speed and size are compared with


def served_row(manifest: Manifest, variant: VariantName) -> Latency | None:
    """The latency of what is served as ``variant``: the row with the size of its file, the last if several have it."""
    size = manifest.files[manifest.variants[variant].file].bytes
    return next((row for row in reversed(manifest.latency) if row.bytes == size), None)


def fp32_row(manifest: Manifest) -> Latency | None:
    return next((row for row in manifest.latency if row.name == FP32), None)


def times_as_fast(row: Latency, other: Latency) -> float | None:
    """How many times as fast ``row`` is by the medians; None where they were too short to be measured."""
    return other.p50_ms / row.p50_ms if row.p50_ms and other.p50_ms else None


def ranked(search: Search) -> list[Candidate]:
    """The candidates from fast to slow; their ranks, from 1, number them in the table and in the plot."""
    return sorted(search.candidates, key=lambda one: (one.p50_ms, one.name))


def chosen(manifest: Manifest) -> Candidate | None:
    """The candidate that became the CPU variant, if there was a search."""
    candidates = manifest.search.candidates if manifest.search else ()
    return next((one for one in candidates if one.chosen), None)


def making(manifest: Manifest) -> Stage | None:
    """The stage that made the CPU variant: a search, or the plan that an earlier one had found."""
    return next((stage for stage in manifest.pipeline if stage.name in ("search", "plan")), None)
