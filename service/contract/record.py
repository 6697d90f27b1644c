"""The inference record: what is kept of each answered input, and of each true label that comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import uuid_utils

from service.contract.features import PROJECTED, decode_embedding


@dataclass(frozen=True, slots=True)
class Record:
    """One answered input. ``text`` and ``tokens`` exclude each other: features-only mode keeps hashed tokens.

    ``text_pair`` is the second text of a pair, None of a model that reads single ones.
    ``probs`` are in the order of the manifest's labels; ``embedding`` is the base64 of 32 half floats;
    ``label`` joins several labels with ``|``.
    """

    id: str
    ts: str
    model: str
    version: str
    digest: str
    text: str | None
    text_pair: str | None
    tokens: list[int] | None
    n_tokens: int
    truncated: bool
    unk_share: float
    label: str
    confidence: float
    probs: list[float]
    embedding: str
    latency_ms: float

    def to_json(self) -> bytes:
        """One line of the log, without the line break. :raises TypeError: if a text is not valid Unicode."""
        return orjson.dumps(self)


@dataclass(frozen=True, slots=True)
class Feedback:
    """The true label of the prediction ``id``, as told by ``source``."""

    id: str
    label: str
    ts: str
    source: str

    def to_json(self) -> bytes:
        return orjson.dumps(self)


# What a record and a reference row have in common: the model's view of one text.
_OBSERVED = [
    ("text", pa.string()),
    ("text_pair", pa.string()),
    ("tokens", pa.list_(pa.int32())),
    ("n_tokens", pa.int32()),
    ("truncated", pa.bool_()),
    ("unk_share", pa.float32()),
    ("label", pa.string()),
    ("confidence", pa.float32()),
    ("probs", pa.list_(pa.float32())),
    ("embedding", pa.list_(pa.float32(), PROJECTED)),
]
RECORD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.string()),
        ("digest", pa.string()),
        *_OBSERVED,
        ("latency_ms", pa.float32()),
    ]
)
FEEDBACK_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("source", pa.string()),
    ]
)
# ``target`` is the true label of a reference row.
REFERENCE_SCHEMA = pa.schema([*_OBSERVED, ("target", pa.string())])


def new_id() -> str:
    """A UUIDv7 (RFC 9562): sorts by time, so records, logs and traces line up."""
    return str(uuid_utils.uuid7())


def now_rfc3339() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_line(line: bytes) -> dict[str, Any]:
    """One JSON line as a row for its Parquet schema: ``ts`` becomes a datetime, ``embedding`` 32 floats.

    :raises ValueError: if the line is not a JSON object with a valid ``ts`` and ``embedding``.
    """
    row = orjson.loads(line)
    if not isinstance(row, dict) or "ts" not in row:
        raise ValueError("not a record")
    row["ts"] = datetime.fromisoformat(row["ts"])
    if "embedding" in row:
        row["embedding"] = decode_embedding(row["embedding"])
        if len(row["embedding"]) != PROJECTED:
            raise ValueError(f"the embedding has {len(row['embedding'])} numbers, not {PROJECTED}")
    return row
