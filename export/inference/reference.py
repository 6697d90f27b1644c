"""The reference profile: the model's view of rows that it was not trained on, kept and redacted as records are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from export.inference.predict import Answers
from service.contract.inputs import split
from service.contract.record import REFERENCE_SCHEMA
from service.contract.redact import Redactor

MAX_ROWS = 5_000


def choose_rows(total: int, limit: int, seed: int) -> list[int]:
    """Which of ``total`` rows to keep, in order: all, or ``limit`` of them drawn without regard to their place."""
    if total <= limit:
        return list(range(total))
    return sorted(int(row) for row in np.random.default_rng(seed).choice(total, limit, replace=False))


def fair_shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Split ``limit`` among sources of these sizes: equal parts, and what one does not need goes to the others."""
    shares = [0] * len(sizes)
    left = limit
    for place, index in enumerate(sorted(range(len(sizes)), key=lambda index: sizes[index])):
        shares[index] = min(sizes[index], left // (len(sizes) - place))
        left -= shares[index]
    return shares


def reference_table(answers: Answers, targets: Sequence[str | None]) -> pa.Table:
    """One row per text in ``REFERENCE_SCHEMA``; a target is the true label, None where nobody told it."""
    observed = answers.observed
    redact = Redactor()
    rows = len(answers.texts)
    texts = [split(given) for given in answers.texts]
    columns = {
        "text": [redact(text) for text, _ in texts],
        "text_pair": [None if second is None else redact(second) for _, second in texts],
        "tokens": [None] * rows,
        "n_tokens": [len(tokens) for tokens in answers.tokens],
        "truncated": [tokens.truncated for tokens in answers.tokens],
        "unk_share": [tokens.unk_share for tokens in answers.tokens],
        "label": observed.labels,
        "confidence": observed.confidence,
        "probs": observed.probs.tolist(),
        "embedding": list(observed.projected.astype(np.float32)),
        "target": list(targets),
    }
    return pa.table(columns, schema=REFERENCE_SCHEMA)


def write_reference(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")
