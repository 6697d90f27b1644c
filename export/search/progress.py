"""How far a search is: log lines, and a bar of the time budget on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from export.search.trial import Trial

logger = logging.getLogger(__name__)


class TimeBudget:
    """The seconds that a search may take, ``spent`` of them already before an interruption."""

    def __init__(self, seconds: float, spent: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock, self._started = clock, clock() - spent

    @property
    def spent(self) -> float:
        return self._clock() - self._started

    @property
    def left(self) -> float:
        return max(0.0, self.seconds - self.spent)


class _Left(ProgressColumn):
    """What is left of the time budget; it runs on while a candidate is tried."""

    def __init__(self, budget: TimeBudget) -> None:
        super().__init__()
        self._budget = budget

    def render(self, task: Task) -> Text:
        return Text(str(timedelta(seconds=int(self._budget.left))), style="progress.remaining")


class ProgressReporter:
    """Says what is tried and what was found."""

    def __init__(self, budget: TimeBudget) -> None:
        self._budget = budget
        self._bar: Progress | None = None

    def trying(self, what: str) -> None:
        logger.info("search: trying %s, %.0f of %.0f s left", what, self._budget.left, self._budget.seconds)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._budget.spent, description=what)

    def found(self, trial: Trial) -> None:
        logger.info(
            "search: %s: %+.2f points (at least %+.2f), expected %+.2f, divergence %.4f, %d multiplications in int8, "
            "%.1f MB",
            trial.name,
            trial.difference,
            trial.lower_bound,
            trial.estimate,
            trial.divergence,
            trial.quantized,
            trial.bytes / 1e6,
        )

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While open, a bar stands on the terminal, if stderr is one."""
        if not sys.stderr.isatty():
            yield
            return
        columns = (
            TextColumn("search: {task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            _Left(self._budget),
            TextColumn("left"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as self._bar:
            self._bar.add_task("starting", total=self._budget.seconds)
            yield
        self._bar = None
