"""API keys: who may ask for predictions, and who may change what is served.

Only SHA-256 digests of keys are configured, so a leaked configuration opens nothing. Keys are long and random (see
``plumbline key``), so a plain digest cannot be searched. Several keys may be valid at once, for rotation.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Literal

from starlette.datastructures import Headers

from service.errors import Forbidden, Unauthorized

Scope = Literal["predict", "admin"]


class Keys:
    """:param predict, admin: hex SHA-256 digests; an admin key may also predict. Without any, everyone may."""

    def __init__(self, predict: Sequence[str], admin: Sequence[str]) -> None:
        self._predict = tuple(predict)
        self._admin = tuple(admin)

    @property
    def required(self) -> bool:
        return bool(self._predict or self._admin)

    def check(self, key: str | None, scope: Scope) -> None:
        """:raises Unauthorized: without a valid key. :raises Forbidden: if the key is not for this scope."""
        if not self.required:
            return
        if key is None:
            raise Unauthorized("this server asks for a key: send `Authorization: Bearer KEY`.")
        digest = digest_of_key(key)
        # Every digest is compared, in constant time, so that the time taken tells nothing.
        admin = sum(hmac.compare_digest(digest, one) for one in self._admin)
        known = sum(hmac.compare_digest(digest, one) for one in self._predict)
        if not admin and not known:
            raise Unauthorized("this key is not valid here.")
        if scope == "admin" and not admin:
            raise Forbidden("this key is for predictions; changing what is served takes an admin key.")


def new_key() -> str:
    """A random key of 256 bits."""
    return f"plb_{secrets.token_urlsafe(32)}"


def digest_of_key(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def given_key(headers: Headers) -> str | None:
    """The key of a request: ``Authorization: Bearer KEY`` or ``x-api-key: KEY``."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key")
