"""What happens beside training: progress (a bar on a terminal, log lines elsewhere) and the early stop."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


def logging_share() -> float:
    """After which share of all steps the Trainer is to tell the loss: often for a bar, seldom for log lines."""
    return 0.01 if sys.stderr.isatty() else 0.1


class TrainingProgress(TrainerCallback):
    """Tells how far training is and its loss, and the eval loss after each epoch."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._started = 0.0
        self._began_at = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started, self._began_at = time.monotonic(), state.global_step
        logger.info(
            "training: %d epochs, %d steps of %d rows%s",
            args.num_train_epochs,
            state.max_steps,
            args.train_batch_size,
            f", going on after step {state.global_step}" if state.global_step else "",
        )
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(bar_width=None),
                TextColumn("{task.completed:.0f}/{task.total:.0f}, loss {task.fields[loss]}"),
                TimeElapsedColumn(),
                TextColumn("elapsed"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(stderr=True),
                transient=True,
                expand=True,
            )
            self._bar.add_task("training", total=state.max_steps, completed=state.global_step, loss="…")
            self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The mean loss since the last time."""
        loss = kwargs["logs"].get("loss")
        if loss is None:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], loss=f"{loss:.4f}")
            return
        seconds = time.monotonic() - self._started
        left = seconds / max(state.global_step - self._began_at, 1) * (state.max_steps - state.global_step)
        logger.info(
            "training: step %d of %d, loss %.4f, %.0f s, about %.0f s left",
            state.global_step,
            state.max_steps,
            loss,
            seconds,
            left,
        )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics = kwargs["metrics"]
        logger.info(
            "training: epoch %.0f, eval loss %.4f, score %.4f",
            state.epoch or 0,
            metrics["eval_loss"],
            metrics["eval_score"],
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; also when training was interrupted."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class StopOnLoss(TrainerCallback):
    """Ends training after the first epoch whose eval loss is not lower than the lowest before."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # The Trainer's own history, which a checkpoint holds: training that goes on knows the epochs before.
        *before, last = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        control.should_training_stop = control.should_training_stop or last >= min(before, default=float("inf"))
