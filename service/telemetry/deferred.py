"""Bookkeeping that waits until there is more of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any

logger = logging.getLogger(__name__)

_SECONDS = 0.05
_MOST = 48  # some 16 answers: together they take less than a batch


class DeferredWork:
    """Collects what is to be counted and logged, and does it together, soon after the answers went out.

    Each inference empties the caches, so the books of one answer by itself take several times as long as among others,
    and the next request has to wait for them. Whoever reads the books calls :meth:`flush` first.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._timer: asyncio.Handle | None = None

    def schedule(self, do: Callable[..., object], *arguments: object) -> None:
        """Call ``do`` within 50 ms, on the event loop that runs now."""
        self._waiting.append((do, arguments))
        if self._timer is None:
            # A context of its own: what is done belongs to no request.
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self.flush, context=Context())
        elif len(self._waiting) == _MOST:
            asyncio.get_running_loop().call_soon(self.flush, context=Context())

    def flush(self) -> None:
        """Do it now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for do, arguments in waiting:
            try:
                do(*arguments)
            except Exception:  # the others are not to blame
                logger.exception("an answer could not be counted or logged")
