"""One data file against a bundle's reference, without a log or a state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.delivery.messages import decided
from monitoring.judging.decision import Decision, decide
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import columns_of
from monitoring.windows.references import Reference
from service.contract.bundle import Bundle
from service.contract.dataset import read_dataset
from service.contract.errors import DatasetError
from service.contract.events import DriftData, ModelRef, Window
from service.contract.inputs import split
from service.contract.record import RECORD_SCHEMA

# A Parquet file with these columns is a part of the log; anything else is a file of texts.
_RECORD = {"n_tokens", "confidence", "label", "embedding"}


@dataclass(frozen=True)
class Comparison:
    """The file's rows, the decision, and whether the model's outputs could be compared or only the texts."""

    rows: pa.Table
    decision: Decision
    texts_only: bool


def compare(reference: Reference, file: Path, thresholds: Thresholds, text_column: str = "text") -> Comparison:
    """Judge a sealed log segment, or a CSV, JSONL or Parquet file of texts.

    :raises DatasetError: as ``read_dataset``, or if a segment cannot be read.
    """
    rows = _records(file)
    texts_only = rows is None
    if rows is None:
        texts = [split(one) for one in read_dataset(file, text_column=text_column, label_column=None).texts]
        rows = pa.table({"text": [text for text, _ in texts], "text_pair": [second for _, second in texts]})
    decision = decide(reference.columns, columns_of(rows, reference.task), thresholds)
    return Comparison(rows, decision, texts_only)


def comparison_data(bundle: Bundle, file: Path, comparison: Comparison) -> DriftData:
    """The comparison in the form of a drift event's data; the window is the whole file."""
    changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    rows = comparison.rows.num_rows
    manifest = bundle.manifest
    return decided(
        ModelRef(model=manifest.name, version=manifest.version, digest=bundle.digest),
        Window(first="row 1", last=f"row {rows}", rows=rows, start=changed, end=changed),
        comparison.decision,
        key=f"{bundle.digest}:{file.name}",
    )


def _records(file: Path) -> pa.Table | None:
    if file.suffix.lower() != ".parquet":
        return None
    try:
        if not set(pq.read_schema(file).names) >= _RECORD:
            return None
        table = pq.read_table(file, schema=RECORD_SCHEMA, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{file} cannot be read: {error}.") from error
    if not table.num_rows:
        raise DatasetError(f"{file} has no rows.")
    return table
