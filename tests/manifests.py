"""Made-up manifests for the tests of cards: the values are plausible, none was measured."""

from __future__ import annotations

from datetime import UTC, datetime

from service.contract.bundle import (
    GOLDEN,
    REFERENCE,
    TOKENIZER,
    Calibration,
    Candidate,
    ClassChange,
    FileEntry,
    Latency,
    Manifest,
    Quality,
    Reference,
    Search,
    Source,
    Stage,
    Tensor,
    Variant,
)

INT8, FP16 = "model.int8.onnx", "model.fp16.onnx"
INT8_BYTES, FP16_BYTES, FP32_BYTES = 18_300_000, 45_600_000, 90_900_000
CPU = "AMD EPYC 9V74 (avx512_vnni)"

# speed-up, scheme, points, bound, p50, p95, MB, divergence, quantized, front
_TRIED = [
    (1.0, "dynamic int8 per tensor", -0.38, -1.21, 2.61, 4.02, 22.9, 0.0061, 36, False),
    (1.0, "dynamic int8 per channel", 0.13, -0.45, 2.74, 4.20, 23.0, 0.0019, 36, True),
    (1.0, "static int8", -1.25, -2.42, 2.92, 4.61, 22.9, 0.0312, 36, False),
    (1.0, "dynamic int8, 4 in float", -0.50, -1.30, 3.21, 4.93, 29.4, 0.0088, 32, False),
    (1.31, "dynamic int8 per channel", -0.13, -0.98, 2.09, 3.31, 20.6, 0.0102, 36, True),
    (1.31, "static int8", -1.13, -2.40, 2.31, 3.70, 20.5, 0.0391, 36, False),
    (1.62, "dynamic int8 per tensor", -0.75, -1.88, 1.71, 2.68, 18.2, 0.0214, 36, False),
    (1.62, "dynamic int8 per channel", -0.25, -1.20, 1.76, 2.77, 18.3, 0.0168, 36, True),
    (1.62, "static int8", -1.63, -3.05, 1.95, 3.12, 18.2, 0.0482, 36, False),
    (1.81, "dynamic int8 per channel", -0.38, -1.45, 1.55, 2.46, 17.1, 0.0235, 36, True),
    (2.03, "dynamic int8 per tensor", -1.38, -2.77, 1.38, 2.21, 15.9, 0.0440, 34, True),
    (2.03, "dynamic int8 per channel", -1.00, -2.27, 1.41, 2.25, 16.0, 0.0391, 34, True),
    (2.48, "dynamic int8 per channel", -3.38, -5.30, 1.13, 1.82, 14.1, 0.1120, 30, True),
    (3.02, "dynamic int8 per channel", -14.9, -17.60, 0.94, 1.52, 12.6, 0.4730, 28, True),
]
CHOSEN = "pruned 1.62x, dynamic int8 per channel"


def _name(speedup: float, scheme: str) -> str:
    return f"{'unpruned' if speedup == 1 else f'pruned {speedup:.2f}x'}, {scheme}"


def candidates() -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            name=_name(speedup, scheme),
            speedup=speedup,
            scheme=scheme,
            accuracy=0.9088 + points / 100,
            difference=points,
            lower_bound=bound,
            estimate=round(0.8 * points, 2),
            estimate_error=round(0.4 * (points - bound), 2),
            divergence=divergence,
            p50_ms=p50,
            p50_range_ms=(0.97 * p50, 1.04 * p50),
            p95_ms=p95,
            bytes=int(size * 1e6),
            quantized=quantized,
            front=front,
            chosen=_name(speedup, scheme) == CHOSEN,
        )
        for speedup, scheme, points, bound, p50, p95, size, divergence, quantized, front in _TRIED
    )


def search(**changed: object) -> Search:
    given: dict[str, object] = {
        "rows": 800,
        "metric": "accuracy",
        "baseline": 0.9088,
        "max_drop": 0.5,
        "target_speedup": None,
        "budget_seconds": 600.0,
        "seconds": 432.0,
        "candidates": candidates(),
        "ended": "the time budget was used up",
    }
    return Search.model_validate(given | changed)


def quality(**changed: object) -> Quality:
    given: dict[str, object] = {
        "metric": "accuracy",
        "baseline": 0.9025,
        "exported": 0.9002,
        "difference": -0.23,
        "lower_bound": -0.48,
        "max_drop": 0.5,
        "verdict": "pass",
        "rows": 8720,
        "flips": 61,
        "batch_flip_rate": 0.001,
        "calibration": Calibration(baseline=0.041, exported=0.048, bins=15),
        "classes": {
            "negative": ClassChange(rows=4280, baseline=0.893, exported=0.886),
            "positive": ClassChange(rows=4440, baseline=0.912, exported=0.914),
        },
    }
    return Quality.model_validate(given | changed)


def latencies() -> tuple[Latency, ...]:
    rows = [
        ("torch fp32", 16.90, 21.40, FP32_BYTES),
        ("onnxruntime fp32", 7.62, 11.10, FP32_BYTES),
        ("onnxruntime int8", 3.31, 4.98, 23_100_000),
        ("unpruned int8", 2.75, 4.22, 23_000_000),
        ("cpu variant", 1.77, 2.79, INT8_BYTES),
    ]
    return tuple(
        Latency(
            name=name,
            p50_ms=p50,
            p95_ms=p95,
            p50_range_ms=(0.98 * p50, 1.03 * p50),
            hardware=CPU,
            threads=1,
            batch=1,
            tokens=24,
            bytes=size,
        )
        for name, p50, p95, size in rows
    )


def manifest(**changed: object) -> Manifest:
    """A pruned, quantized CPU model after a search, unless ``changed``."""
    entry = FileEntry(sha256="0" * 64, bytes=1000)
    stages = (
        Stage(
            name="search",
            applied=True,
            seconds=432.0,
            details={
                "scheme": "dynamic int8 per channel",
                "quantized": 30,
                "candidates": 14,
                "fused": {"Attention": 6},
                "heads_kept": [9, 8, 7, 6, 6, 5],
                "neurons_kept": [900, 880, 850, 820, 800, 762],
                "deep": {"one": {"two": 3}},
            },
        ),
        Stage(name="parity", applied=True, seconds=1.2, details={"shapes": 12, "largest_difference": 2.1e-06}),
        Stage(name="gate", applied=True, seconds=22.8),
    )
    given: dict[str, object] = {
        "name": "reviews",
        "version": "3",
        "task": "single-label",
        "labels": ("negative", "positive"),
        "max_length": 128,
        "created": datetime(2026, 1, 31, 7, 0, tzinfo=UTC),
        "variants": {"cpu": Variant(file=INT8, precision="int8", instruction_set="avx512_vnni", golden_atol=0.05)},
        "inputs": (Tensor(name="input_ids", dtype="int64", shape=("batch", "length")),),
        "outputs": (Tensor(name="logits", dtype="float32", shape=("batch", 2)),),
        "files": {
            **dict.fromkeys((TOKENIZER, REFERENCE, GOLDEN), entry),
            INT8: FileEntry(sha256="1" * 64, bytes=INT8_BYTES),
            FP16: FileEntry(sha256="2" * 64, bytes=FP16_BYTES),
        },
        "source": Source(
            checkpoint_sha256="ab" * 32,
            base_model="sentence-transformers/all-MiniLM-L6-v2",
            libraries={"torch": "2.13.0", "onnxruntime": "1.31.1"},
            seed=0,
            arguments={"train_rows": 6920, "eval_rows": 8720, "max_drop": 0.5},
        ),
        "pipeline": stages,
        "quality": {"cpu": quality()},
        "latency": latencies(),
        "search": search(),
        "reference": Reference(rows=5000, feature_version=1),
    }
    return Manifest.model_validate(given | changed)
