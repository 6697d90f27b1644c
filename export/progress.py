"""What happens beside training: progress (a bar on a terminal, log lines elsewhere) and the early stop."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

_LINES = 10


class TrainingProgress(TrainerCallback):
    """Tells how far training is, and the eval loss after each epoch."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._started = 0.0
        self._reported = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = time.monotonic()
        logger.info(
            "training: %d epochs, %d steps of %d rows", args.num_train_epochs, state.max_steps, args.train_batch_size
        )
        if sys.stderr.isatty():
            columns = (TextColumn("training"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.add_task("training", total=state.max_steps)
            self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=state.global_step)
            return
        done = state.global_step * _LINES // max(state.max_steps, 1)
        if done > self._reported:
            self._reported = done
            seconds = time.monotonic() - self._started
            logger.info("training: step %d of %d, %.0f s", state.global_step, state.max_steps, seconds)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        logger.info(
            "training: epoch %.0f, eval loss %.4f, accuracy %.4f",
            state.epoch or 0, metrics["eval_loss"], metrics["eval_accuracy"],
        )  # fmt: skip

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class StopOnLoss(TrainerCallback):
    """Ends training after the first epoch whose eval loss is not lower than the lowest before."""

    def __init__(self) -> None:
        self._lowest = float("inf")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = kwargs["metrics"]["eval_loss"]
        control.should_training_stop = control.should_training_stop or loss >= self._lowest
        self._lowest = min(self._lowest, loss)
