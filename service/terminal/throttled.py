"""Complaints that repeat, in a log that people read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_PAUSE = 60.0  # seconds


class ThrottledLogger:
    """Logs what goes wrong at once, and while it goes on once a minute, with how often it happened in between."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def error(self, about: str, message: str, *arguments: object) -> None:
        """:param about: what belongs together; the newest message of a minute is the one that is logged."""
        now = self._clock()
        if now - self._last.get(about, -_PAUSE) < _PAUSE:
            self._held[about] = self._held.get(about, 0) + 1
            return
        self._last[about] = now
        if held := self._held.pop(about, 0):
            message, arguments = f"{message} (and %d times more since this was last said)", (*arguments, held)
        self._logger.error(message, *arguments)

    def over(self, about: str, message: str, *arguments: object) -> None:
        """Say once that it has stopped, if it was said that it began."""
        if self._last.pop(about, None) is not None:
            self._held.pop(about, None)
            self._logger.info(message, *arguments)
