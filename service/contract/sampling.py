"""A fair choice that comes out the same every time and everywhere: by the name of what is chosen."""

from __future__ import annotations

import hashlib


def share_of(name: str) -> float:
    """A number in [0, 1), uniform over names, that depends on ``name`` only: a share s of names lies below s."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()) / 2**64
