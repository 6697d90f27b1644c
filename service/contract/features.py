"""Drift features, computed alike for the reference and for live requests. ``FEATURE_VERSION`` names this recipe."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import zlib

import numpy as np
import numpy.typing as npt

FEATURE_VERSION = 1
PROJECTED = 32
TOKEN_BUCKETS = 2**14

_WORD = re.compile(r"\w+|[^\w\s]")

Floats = npt.NDArray[np.float32]


@functools.cache
def projection_matrix(width: int) -> Floats:
    """The fixed (width, 32) sign projection: random signs scaled to keep lengths (Achlioptas 2003).

    The signs come from SHAKE-256, so that every machine and library version has the same ones.
    """
    stream = hashlib.shake_256(f"plumbline projection {FEATURE_VERSION} {width}".encode()).digest(
        width * PROJECTED // 8
    )
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8)).reshape(width, PROJECTED)
    signs = np.where(bits, np.float32(1), np.float32(-1))
    return np.ascontiguousarray(signs / np.float32(np.sqrt(PROJECTED)), dtype=np.float32)


def project(embeddings: Floats) -> npt.NDArray[np.float16]:
    """Project embeddings (n, width) to (n, 32) half floats; values beyond their range are clipped."""
    limit = np.float32(np.finfo(np.float16).max)
    projected = np.clip(embeddings @ projection_matrix(embeddings.shape[1]), -limit, limit)
    return np.asarray(projected, dtype=np.float16)


def encode_embedding(row: npt.NDArray[np.float16]) -> str:
    """Base64 of 32 little-endian half floats."""
    return base64.b64encode(row.astype("<f2").tobytes()).decode("ascii")


def decode_embedding(text: str) -> Floats:
    """The inverse of :func:`encode_embedding`, as (32,) single floats."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)


def words(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks."""
    return _WORD.findall(text.lower())


def hash_tokens(text: str) -> list[int]:
    """The text's words as sorted bucket numbers below 2^14: a bag that the text cannot be read back from."""
    return sorted(zlib.crc32(word.encode("utf-8", "surrogatepass")) % TOKEN_BUCKETS for word in words(text))
