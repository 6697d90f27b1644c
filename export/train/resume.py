"""Training that Ctrl-C interrupts and the same command continues.

The Trainer's own checkpoint, with the optimizer's state, is written at the next step and kept in a hidden folder beside
the one that the model was to be written to. What goes on from it gives the same weights as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from export.errors import Busy
from service.contract.dataset import Dataset
from service.contract.errors import PlumblineError
from service.contract.files import held

logger = logging.getLogger(__name__)

_KEY = "key"
_LOCK = ".lock"
_STATE = ("trainer_state.json", "optimizer.pt", "scheduler.pt")


class Interrupted(PlumblineError):  # noqa: N818  what happened
    """Training was told to stop; what it had learnt is kept."""

    code = "interrupted"

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class KeepOnSignal(TrainerCallback):
    """At SIGINT or SIGTERM has a whole checkpoint written, then raises :class:`Interrupted`.

    A second signal does not wait.

    :param again: what to say about going on.
    """

    def __init__(self, arguments: TrainingArguments, again: str) -> None:
        self._arguments = arguments
        self._again = again
        self._number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While open, signals are heard; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def hear(number: int, frame: FrameType | None) -> None:
            restore()
            self._number = number
            self._arguments.save_only_model = False  # the optimizer's state too
            logger.warning("training: stopping; what was learnt is being written (once more stops at once)")

        for number in before:
            signal.signal(number, hear)
        try:
            yield
        finally:
            restore()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """At the last step of an epoch the end of the epoch is waited for: its evaluation must not be missed."""
        ends_epoch = state.global_step % (state.max_steps // int(args.num_train_epochs)) == 0
        control.should_save = control.should_save or (bool(self._number) and not ends_epoch)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_save = control.should_save or bool(self._number)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        over = control.should_training_stop or state.global_step >= state.max_steps  # what is left takes seconds
        if (
            self._number
            and not over
            and _whole(Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        ):
            raise Interrupted(
                f"interrupted after step {state.global_step} of {state.max_steps}. {self._again}", self._number
            )


@contextmanager
def training_folder(out: Path, key: str) -> Iterator[Path]:
    """The hidden folder beside ``out`` for what training with this key writes on the way.

    It stays after an interruption only. What another key, so other data or options, left there is removed.

    :raises Busy: if another process is at it.
    """
    folder = out.parent / f".{out.name}.training"
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / _LOCK) as alone:
        if not alone:
            raise Busy(f"another process is training {out}. Give another --out, or wait.")
        mark = folder / _KEY
        if not mark.is_file() or mark.read_text() != key:
            _empty(folder)
            mark.write_text(key)
        try:
            yield folder
        except (KeyboardInterrupt, Interrupted):
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The checkpoint in a training folder to go on from, if there is one."""
    found = [one for one in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _whole(one)]
    return max(found, key=lambda one: int(one.name.rpartition("-")[2]), default=None)


def training_key(rows: list[Dataset], **parts: object) -> str:
    """The same for trainings that would give the same weights: a digest of the rows and of everything else."""
    digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS))
    for data in rows:
        for text, label in zip(data.texts, data.targets, strict=True):
            digest.update(orjson.dumps([text, label]))
        digest.update(b"\n")
    return digest.hexdigest()


def _whole(checkpoint: Path) -> bool:
    return all((checkpoint / name).is_file() for name in _STATE)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()
