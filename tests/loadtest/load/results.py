"""Results for tests, of latencies that are given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from loadtest.load.histogram import round_of
from loadtest.load.measure import Measured, summarise
from loadtest.load.result import Calibration, Result, StageResult
from loadtest.load.samples import OK, Samples
from loadtest.load.stage import Stage

CALIBRATION = Calibration(rate=10_000, cpu=1.0)


def latencies(median_ms: float, requests: int = 4000, spread: float = 0.4, seed: int = 0) -> np.ndarray:
    """Seconds."""
    return np.random.default_rng(seed).lognormal(np.log(median_ms / 1000), spread, requests)


def measured(latency: np.ndarray, seconds: float, failed: int = 0, late_ms: float = 0.1, cpu: float = 0.2) -> Measured:
    samples = Samples(
        intended=np.linspace(0, seconds, len(latency), endpoint=False),
        latency=latency,
        kind=np.isin(np.arange(len(latency)), np.linspace(0, len(latency), failed, endpoint=False).astype(int)).astype(
            np.uint16
        ),
        kinds=[OK, "HTTP 429 overloaded"],
        late=np.full(100, late_ms / 1000),
        cpu=[cpu],
        examples={"HTTP 429 overloaded": '{"error": "the <queue> is full"}'} if failed else {},
    )
    return Measured(round_of(samples, seconds), samples)


def stage_result(
    *rounds: np.ndarray, rate: float | None = 200.0, clients: int | None = None, seconds: float = 20.0, **other: Any
) -> StageResult:
    stage = Stage(rate=None if clients else rate, clients=clients, seconds=seconds, warm_up=0)
    return summarise(stage, [measured(one, seconds, **other) for one in rounds], CALIBRATION)


def result(stages: Sequence[StageResult], **changed: Any) -> Result:
    given: dict[str, Any] = {
        "created": datetime(2026, 1, 31, 7, 0, tzinfo=UTC),
        "plumbline": "0.1.0",
        "url": "http://127.0.0.1:8000",
        "protocol": "predict",
        "model": "",
        "batch": 1,
        "texts": "built-in",
        "words_median": 18,
        "words_p95": 180,
        "seed": 0,
        "machine": "a machine",
        "workers": 1,
        "calibration": CALIBRATION,
        "p99_objective_ms": None,
        "verdict": "none",
        "maximum": None,
        "stages": list(stages),
    }
    return Result(**given | changed)
