"""What a search has found so far, on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from export.prune.surgery import Kept, cut, from_mask
from export.search.trial import ANSWERS, Trial
from service.contract.bundle import PruneStep, Scheme
from service.contract.files import held, write_atomic
from service.contract.repository import check_name, staging

logger = logging.getLogger(__name__)

_STATE = "search.json"
_PREFIX = ".search-"
_STALE_SECONDS = 7 * 86_400


class Progress(BaseModel):
    """Everything found so far.

    ``schemes`` are those that pruned models are tried with; ``bases`` are the numbers, from 1, of the steps that
    ``steps`` began from, 0 for the unpruned model; ``seconds`` were spent.
    """

    model_config = ConfigDict(frozen=True)

    trials: tuple[Trial, ...] = ()
    schemes: tuple[Scheme, ...] = ()
    steps: tuple[PruneStep, ...] = ()
    bases: tuple[int, ...] = ()
    overhead: float = 25.0
    seconds: float = 0.0
    ended: str | None = None

    def chain(self, step: int) -> tuple[PruneStep, ...]:
        """The steps that lead from the unpruned model to the one after ``step``."""
        return (*self.chain(self.bases[step - 1]), self.steps[step - 1]) if step else ()


class SearchStore:
    """A folder with the graphs tried, the weights after each pruning step, and :class:`Progress`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> Progress:
        """What was saved last, or nothing; what cannot be read is begun anew."""
        try:
            progress = Progress.model_validate_json((self.folder / _STATE).read_bytes())
        except (FileNotFoundError, ValidationError):
            return Progress()
        files = [self.folder / trial.file for trial in progress.trials]
        if not all(file.is_file() and file.with_name(ANSWERS).is_file() for file in files):
            return Progress()
        whole = tuple(trial for trial in progress.trials if trial.step <= len(progress.steps))
        progress = progress.model_copy(update={"trials": whole})
        logger.info("search: going on after %d candidates, %.0f s", len(progress.trials), progress.seconds)
        return progress

    def save(self, progress: Progress) -> None:
        write_atomic(self.folder / _STATE, progress.model_dump_json().encode())

    def folder_for(self, step: int, what: str) -> Path:
        """A folder for a graph of the model after this pruning step."""
        folder = self.folder / str(step) / what.replace(" ", "-").replace(",", "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep_weights(self, model: PreTrainedModel, step: int) -> None:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, self._weights(step))

    def model_after(self, original: PreTrainedModel, chain: Sequence[PruneStep], step: int) -> PreTrainedModel:
        """The pruned model as it was after ``step``, to which ``chain`` leads; the original if that is 0."""
        model = original
        for one in chain:
            model = cut(model, kept_units(one))
        if step:
            weights: dict[str, torch.Tensor] = load_file(self._weights(step))
            model.load_state_dict(weights)
        return model

    def _weights(self, step: int) -> Path:
        return self.folder_for(step, "weights") / "model.safetensors"


def kept_units(step: PruneStep) -> list[Kept]:
    return [Kept(from_mask(heads), from_mask(neurons)) for heads, neurons in zip(step.heads, step.neurons, strict=True)]


@contextmanager
def search_folder(root: Path, name: str, key: str) -> Iterator[Path]:
    """The folder of the search with this key, beside the model's versions.

    If something was found, it stays after an interruption, a refusal or a failure, so that the same command goes on
    from there; otherwise it is removed. After a week the next export removes it, and what killed exports had staged. If
    another process is at the same search, this one gets a folder of its own.
    """
    model = root / check_name(name)
    model.mkdir(parents=True, exist_ok=True)
    for old in [*model.glob(f"{_PREFIX}*"), *model.glob(".staging-*")]:
        with suppress(FileNotFoundError):  # another export may have ended meanwhile
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    folder = model / f"{_PREFIX}{key[:16]}"
    folder.mkdir(exist_ok=True)
    with held(folder / ".lock") as alone:
        if not alone:
            logger.info("search: another export is at the same search; this one starts its own")
            with staging(root, name) as own:
                yield own
            return
        try:
            yield folder
        except BaseException:
            if not SearchStore(folder).load().trials:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
