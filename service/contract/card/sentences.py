"""What was done to a model and what came of it, in plain sentences."""

from __future__ import annotations

from service.contract.bundle import Manifest, Quality, VariantName
from service.contract.card.facts import chosen, fp32_row, served_row, stage_named, times_as_fast

_DEVICES: dict[VariantName, str] = {"cpu": "On the CPU", "cuda": "On the GPU"}
_SHOWN_LABELS = 12


def sentences(manifest: Manifest) -> list[str]:
    """From what it is to how good it is, in the order of reading."""
    variants = list(manifest.variants)
    return [
        _model(manifest),
        *_pruned(manifest),
        *(_quantized(manifest, name) for name in variants),
        *_searched(manifest),
        *(sentence for name in variants for sentence in _faster(manifest, name)),
        *(_judged(name, quality) for name, quality in manifest.quality.items()),
    ]


def headline(manifest: Manifest) -> list[tuple[str, str]]:
    """The few figures to see first: (figure, what it is)."""
    whole = fp32_row(manifest)
    found = []
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
        return figures + ". The estimate lies on the margin itself, so no number of rows would settle it."
    return figures + f". About {quality.rows_needed:,} eval rows would settle it."


def duration(seconds: float) -> str:
    """As people say it: ``42 s``, ``6 min 12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _model(manifest: Manifest) -> str:
    labels = manifest.labels
    more = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    return (
        f"A {manifest.task} text classifier for {len(labels)} labels ({', '.join(labels[:_SHOWN_LABELS])}{more}), "
        f"fine-tuned from {manifest.source.base_model}; checkpoint {manifest.source.checkpoint_sha256[:12]}."
    )


def _pruned(manifest: Manifest) -> list[str]:
    stage, choice = stage_named(manifest, "prune"), chosen(manifest)
    if choice is not None and choice.speedup == 1:
        return ["Nothing was pruned in the model that was chosen."]
    if stage is None:
        return []
    if not stage.applied:
        return [f"Not pruned: {stage.details.get('reason', 'no reason is recorded')}."]
    left = [f"{stage.details[key]} {what}" for key, what in _UNITS.items() if key in stage.details]
    aim = choice.speedup if choice else stage.details.get("target_speedup")
    return [
        "Pruned"
        + (f" to {' and '.join(left)}" if left else "")
        + (f", to be {aim:g} times as fast as the unpruned int8 model" if isinstance(aim, int | float) else "")
        + "; what that cost was learnt back from the unpruned model."
    ]


_UNITS = {"heads": "attention heads", "neurons": "feed-forward neurons"}


def _quantized(manifest: Manifest, name: VariantName) -> str:
    variant, choice = manifest.variants[name], chosen(manifest) if name == "cpu" else None
    size = manifest.files[variant.file].bytes
    whole = fp32_row(manifest)
    share = f", 1/{whole.bytes / size:.1f} of the fp32 model" if whole and size else ""
    how = f" ({choice.scheme}, {choice.quantized} multiplications in int8)" if choice else ""
    return f"{_DEVICES[name]} it is served in {variant.precision}{how}: {size / 1e6:.1f} MB{share}."


def _searched(manifest: Manifest) -> list[str]:
    search, choice = manifest.search, chosen(manifest)
    if search is None:
        return []
    tried = (
        f"{len(search.candidates)} candidates were tried in {duration(search.seconds)} on {search.rows:,} rows that "
        f"were neither trained on nor judged by; {search.ended.rstrip('.')}."
    )
    return [f"{tried} The choice fell on {choice.name}." if choice else f"{tried} None of them was chosen."]


def _faster(manifest: Manifest, name: VariantName) -> list[str]:
    row = served_row(manifest, name)
    if row is None:
        return []
    served = [served_row(manifest, one) for one in manifest.variants]
    others = [(other, times_as_fast(row, other)) for other in manifest.latency if other not in served]
    ratios = [f"{ratio:.1f} times as fast as {other.name} ({other.p50_ms:.2f} ms)" for other, ratio in others if ratio]
    against = f", which is {', '.join(ratios)}" if ratios else ""
    return [f"{_DEVICES[name]} a single text takes {row.p50_ms:.2f} ms (median){against}."]


def _judged(name: VariantName, quality: Quality) -> str:
    flips = (
        f"Its answer differs from the checkpoint's in {quality.flips} of {quality.rows} rows, and from its own when "
        f"others share the batch in {quality.batch_flip_rate:.2%}."
    )
    return f"{_DEVICES[name]}, judged on rows kept for that: {explain(quality)} {flips}"
