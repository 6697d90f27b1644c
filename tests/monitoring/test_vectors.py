"""Models that give vectors: their inputs are watched, and nothing is said of labels, numbers or accuracy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from monitoring.judging.decision import decide
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import Columns, columns_of
from service.tasks import EMBEDDINGS
from tests.monitoring.world import DRIFTED, HOME, Kind, rows


def logged(count: int, kind: Kind = HOME, seed: int = 0) -> Columns:
    found = rows(count, kind, seed)
    table = {
        "text": [row["text"] for row in found],
        "n_tokens": [row["n_tokens"] for row in found],
        "unk_share": [row["unk_share"] for row in found],
        "label": [""] * count,
        "confidence": np.full(count, np.nan, dtype=np.float32),
        "probs": [[] for _ in found],
        "embedding": [row["embedding"] for row in found],
        "target": pa.array([None] * count, pa.string()),
    }
    return columns_of(pa.table(table), EMBEDDINGS)


def test_the_same_source_is_quiet_and_another_one_is_seen() -> None:
    reference = logged(400, seed=1)
    quiet = decide(reference, logged(200, seed=2), Thresholds())
    assert quiet.severity == "none"
    assert {"embedding", "tokens", "n_tokens"} <= {signal.name for signal in quiet.signals}
    assert not {"label", "confidence", "score", "accuracy"} & {signal.name for signal in quiet.signals}
    loud = decide(reference, logged(200, DRIFTED, seed=3), Thresholds())
    assert {"tokens"} <= set(loud.drifted)
    assert loud.severity == "warning"  # nobody can tell what it costs
