"""The record of an export: which stages ran, in what order, how long each took and what it did."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import JsonValue

from service.contract.bundle import Stage

logger = logging.getLogger(__name__)


class Stages:
    """Collects the stages; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.done: list[Stage] = []

    @contextmanager
    def run(self, name: str) -> Iterator[dict[str, JsonValue]]:
        """Time a stage; what is put into the dict becomes its details."""
        started = self._clock()
        details: dict[str, JsonValue] = {}
        yield details
        seconds = self._clock() - started
        self.done.append(Stage(name=name, applied=True, seconds=round(seconds, 3), details=details))
        shown = ", ".join(f"{key} {value}" for key, value in details.items() if not isinstance(value, dict | list))
        logger.info("%s: %.1f s%s", name, seconds, f" ({shown})" if shown else "")
