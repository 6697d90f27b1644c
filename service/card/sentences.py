"""What was done to a model and what came of it, in plain sentences."""

from __future__ import annotations

from pydantic import JsonValue

from service.card.facts import chosen, fp32_row, making, served_row, times_as_fast
from service.contract.bundle import Manifest, Quality, VariantName
from service.tasks.of_bundle import task_of

_DEVICES: dict[VariantName, str] = {"cpu": "On the CPU", "cuda": "On the GPU"}
_SMALLER = 1.05  # a file is called smaller than another from this ratio on


def sentences(manifest: Manifest) -> list[str]:
    """From what it is to how good it is, in the order of reading."""
    variants = list(manifest.variants)
    return [
        _model(manifest),
        *_pruned(manifest),
        *(_quantized(manifest, name) for name in variants),
        *_searched(manifest),
        *(sentence for name in variants for sentence in _faster(manifest, name)),
        *(_judged(manifest, name, quality) for name, quality in manifest.quality.items()),
    ]


def headline(manifest: Manifest) -> list[tuple[str, str]]:
    """The few figures to see first: (figure, what it is)."""
    whole = fp32_row(manifest)
    found = [*_taken_over(manifest)]
    for name, variant in manifest.variants.items():
        row, quality, size = served_row(manifest, name), manifest.quality.get(name), manifest.files[variant.file].bytes
        ratio = times_as_fast(row, whole) if row and whole else None
        if ratio:
            found.append((f"{ratio:.1f}x", f"as fast as fp32 ({name})"))
        if quality:
            bound = f"points of {quality.metric} ({name}), at least {quality.lower_bound:+.2f}: {quality.verdict}"
            found.append((f"{quality.difference:+.2f}", bound))
        found.append((f"{size / 1e6:.1f} MB", f"{variant.precision} ({name})"))
    return found


def _taken_over(manifest: Manifest) -> list[tuple[str, str]]:
    """Of a retrain, what it is for: the new labels, before and after."""
    if manifest.challenge is None:
        return []
    contest = manifest.challenge.figures.get("new")
    before, after = (contest.get(who) if isinstance(contest, dict) else None for who in ("champion", "challenger"))
    if not isinstance(before, float | int) or not isinstance(after, float | int):
        return []
    return [(f"{before:.2f} to {after:.2f}", f"on new traffic, against version {manifest.challenge.champion.version}")]


def explain(quality: Quality) -> str:
    """The verdict with its figures, in one sentence."""
    figures = (
        f"{quality.metric} {quality.baseline:.4f} -> {quality.exported:.4f} on {quality.rows} rows, "
        f"{quality.difference:+.2f} points, 95 % sure of no worse than {quality.lower_bound:+.2f}; "
        f"allowed is -{quality.max_drop:g}: {quality.verdict}"
    )
    if quality.verdict != "inconclusive":
        return figures + "."
    if quality.rows_needed is None:
        return figures + "."
    low, high = (None if rows is None else float(f"{rows:.2g}") for rows in quality.rows_needed)
    if high is None:
        return f"{figures}. {low:,.0f} eval rows or more might settle it, but it is so close that no number is sure to."
    return f"{figures}. {low:,.0f} eval rows might settle it for this model, and {high:,.0f} probably would."


def duration(seconds: float) -> str:
    """As people say it: ``42 s``, ``6 min 12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _model(manifest: Manifest) -> str:
    described = task_of(manifest).described(manifest.labels)
    reads = ", reading pairs of texts" if manifest.paired else ""
    return (
        f"A {described}{reads}, fine-tuned from {manifest.source.base_model}; checkpoint "
        f"{manifest.source.checkpoint_sha256[:12]}."
    )


def _pruned(manifest: Manifest) -> list[str]:
    stage, choice = making(manifest), chosen(manifest)
    if stage is None:
        return []
    left = [f"{sum(kept):,} {what}" for key, what in _UNITS.items() if (kept := _counts(stage.details.get(key)))]
    if not left:
        return ["Nothing was pruned."]
    speed = f", {choice.speedup:.2f} times as fast as the unpruned int8 model" if choice else ""
    return [f"Pruned to {' and '.join(left)}{speed}; what that cost was learnt back from the unpruned model."]


_UNITS = {"heads_kept": "attention heads", "neurons_kept": "feed-forward neurons"}


def _counts(value: JsonValue) -> list[int]:
    """What a layer kept, for each layer."""
    return [one for one in value if isinstance(one, int)] if isinstance(value, list) else []


def _quantized(manifest: Manifest, name: VariantName) -> str:
    variant, stage = manifest.variants[name], making(manifest) if name == "cpu" else None
    size = manifest.files[variant.file].bytes
    whole = fp32_row(manifest)
    share = f", 1/{whole.bytes / size:.1f} of the fp32 model" if whole and size < whole.bytes / _SMALLER else ""
    scheme = f" ({stage.details['scheme']})" if stage and "scheme" in stage.details else ""
    return f"{_DEVICES[name]} it is served in {variant.precision}{scheme}: {size / 1e6:.1f} MB{share}."


def _searched(manifest: Manifest) -> list[str]:
    search, choice = manifest.search, chosen(manifest)
    if search is None:
        stage = making(manifest)
        return ["It was made as the search for an earlier version had found best."] if stage else []
    rows = (
        "not trained on, and each half of which was judged by what the other half chose"
        if search.cross_fitted
        else "neither trained on nor judged by"
    )
    tried = (
        f"{len(search.candidates)} candidates were tried in {duration(search.seconds)} on {search.rows:,} rows that "
        f"were {rows}; it ended because {search.ended.rstrip('.')}."
    )
    return [f"{tried} The choice fell on: {choice.name}." if choice else f"{tried} None of them was chosen."]


def _faster(manifest: Manifest, name: VariantName) -> list[str]:
    row = served_row(manifest, name)
    if row is None:
        return []
    served = [served_row(manifest, one) for one in manifest.variants]
    others = [(other, times_as_fast(row, other)) for other in manifest.latency if other not in served]
    ratios = [f"{ratio:.1f} times as fast as {other.name} ({other.p50_ms:.2f} ms)" for other, ratio in others if ratio]
    against = f", which is {', '.join(ratios)}" if ratios else ""
    return [f"{_DEVICES[name]} a single text takes {row.p50_ms:.2f} ms (median){against}."]


def _judged(manifest: Manifest, name: VariantName, quality: Quality) -> str:
    flips = (
        f"Its answer differs from the checkpoint's in {quality.flips} of {quality.rows} rows, and from its own when "
        f"others share the batch in {quality.batch_flip_rate:.2%}."
    )
    return (
        f"{_DEVICES[name]}: {explain(quality)} {task_of(manifest).trivial} would score {quality.majority:.4f}. {flips}"
    )
