"""A bundle's manifest for a person at a terminal."""

from __future__ import annotations

from service.contract.bundle import Bundle, Manifest


def summary(bundle: Bundle) -> str:
    """What the bundle is, how good, how fast, and how it was made."""
    manifest = bundle.manifest
    labels = ", ".join(manifest.labels[:8]) + (" …" if len(manifest.labels) > 8 else "")
    sections = [
        [
            f"{manifest.name} version {manifest.version}, {manifest.created:%Y-%m-%d %H:%M} UTC",
            f"digest     {bundle.digest}",
            f"task       {manifest.task}, {len(manifest.labels)} labels: {labels}",
            f"max length {manifest.max_length} tokens",
            f"base model {manifest.source.base_model}, checkpoint {manifest.source.checkpoint_sha256[:12]}",
            f"reference  {manifest.reference.rows} rows, feature version {manifest.reference.feature_version}",
        ],
        _variants(manifest),
        ["latency at batch 1 (p50 / p95, size)", *_latency(manifest)],
        ["pipeline", *_pipeline(manifest)],
        _challenge(manifest),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _variants(manifest: Manifest) -> list[str]:
    lines = []
    for name, variant in manifest.variants.items():
        size = manifest.files[variant.file].bytes / 1e6
        lines.append(
            f"{name}: {variant.file}, {variant.precision}, {size:.1f} MB, measured on {variant.instruction_set}"
        )
        quality = manifest.quality.get(name)
        if quality is not None:
            lines += [
                f"  {quality.verdict}: {quality.metric} {quality.exported:.4f}, checkpoint {quality.baseline:.4f} "
                f"on {quality.rows} rows",
                f"  difference {quality.difference:+.2f} points, at least {quality.lower_bound:+.2f} with 95 % "
                f"confidence, allowed {-quality.max_drop:+.2f}",
                f"  {quality.flips} labels flipped; {quality.batch_flip_rate:.2%} flip between single and batched",
            ]
            if quality.rows_needed is not None:
                lines.append(f"  about {quality.rows_needed} rows would settle the verdict")
    return lines


def _latency(manifest: Manifest) -> list[str]:
    return [
        f"  {row.name:<22} {row.p50_ms:7.2f} / {row.p95_ms:.2f} ms {row.bytes / 1e6:8.1f} MB   {row.hardware}, "
        f"{row.threads} thread{'s' if row.threads != 1 else ''}"
        for row in manifest.latency
    ]


def _pipeline(manifest: Manifest) -> list[str]:
    return [
        f"  {stage.name:<12} {f'{stage.seconds:.1f} s' if stage.applied else 'skipped':>8}  "
        + ", ".join(f"{key} {value}" for key, value in stage.details.items() if not isinstance(value, dict))
        for stage in manifest.pipeline
    ]


def _challenge(manifest: Manifest) -> list[str]:
    challenge = manifest.challenge
    if challenge is None:
        return []
    verdict = "accepted" if challenge.accepted else "rejected"
    return [f"challenge of version {challenge.champion.version}: {verdict}", *(f"  {why}" for why in challenge.reasons)]
