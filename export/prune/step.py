"""One step of gradual pruning: importance, knapsack under a latency budget, surgery, reconstruction; recovery follows.

Steps start from the model that the step before left, with its importance measured anew: several small cuts with
recovery between them lose less than one deep cut. A pruned model lives in memory only, because transformers knows one
width for all layers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from export.hardware import instruction_set
from export.labels import encode
from export.latency import Run, graph_run, time_in_turns
from export.onnx import export_onnx
from export.projections import join_projections
from export.prune.architecture import layers_of
from export.prune.importance import mask_gradients, removal
from export.prune.reconstruct import cut_and_reconstruct, input_moments
from export.prune.search import Ranking, search
from export.prune.surgery import Kept
from export.prune.table import LatencyTable, measure_layer
from export.quantize import DYNAMIC, quantize
from export.reference import choose_rows
from service.contract.bundle import Task
from service.contract.dataset import Dataset
from service.contract.errors import InvalidInput
from service.tokenizer import TextTokenizer, Tokens

logger = logging.getLogger(__name__)

LEAST_ROWS = 100
SAMPLE = 1_024
_BELOW, _ABOVE = 0.99, 1.05  # a measured speed-up between these shares of its target is near enough
_SECONDS = 1.0


@dataclass(frozen=True)
class Ground:
    """What all steps stand on: the rows that rank units, how long a layer takes, and the model to be faster than."""

    task: Task
    tokens: Sequence[Tokens]
    targets: npt.NDArray[np.int64 | np.float32]
    table: LatencyTable
    layers: int
    unpruned: Run
    work: Path

    @property
    def limit(self) -> float:
        """How many times as fast a model without heads and neurons would be."""
        return self.table.model_ms / max(self.table.beside_layers_ms(self.layers), 1e-6)


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, not yet recovered, and how many times as fast as the unpruned one it was measured to be."""

    model: PreTrainedModel
    kept: list[Kept]
    speedup: float


def check_pruning(model: PreTrainedModel, rows: Dataset, target_speedup: float | None) -> None:
    """:raises InvalidInput: if the speed-up, the architecture or the training rows do not allow pruning."""
    if target_speedup is not None and not target_speedup > 1.0:
        raise InvalidInput(f"--target-speedup {target_speedup:g} is no speed-up. Give more than 1, as 1.6.")
    layers_of(model)
    if len(rows) < LEAST_ROWS:
        raise InvalidInput(
            f"pruning ranks heads and neurons by at least {LEAST_ROWS} labelled training rows, and --train has "
            f"{len(rows)}. Give more, or add --no-prune."
        )
    if not all(rows.targets):
        row = next(row for row, target in enumerate(rows.targets, 1) if not target)
        raise InvalidInput(
            f"row {row} of the training data has no label, and pruning needs one. Label it, or add --no-prune."
        )


def sample(rows: Dataset, seed: int) -> Dataset:
    """The rows that rank units and that reconstruction looks at."""
    drawn = choose_rows(len(rows), SAMPLE, seed)
    return Dataset([rows.texts[row] for row in drawn], [rows.targets[row] for row in drawn])


def survey(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    rows: Dataset,
    labels: Sequence[str],
    task: Task,
    unpruned_int8: Path,
    work: Path,
    *,
    seed: int,
) -> Ground:
    """Time the layers of the unpruned ``model`` and draw the rows that rank units; ``work`` is scratch."""
    drawn = sample(rows, seed)
    tokens = tokenizer(drawn.texts)
    targets = encode(drawn.targets, labels, task)
    unpruned = graph_run(unpruned_int8)
    table = measure_layer(model, unpruned, _typical(tokens), work)
    return Ground(task, tokens, targets, table, len(layers_of(model)), unpruned, work)


def shrink(ground: Ground, model: PreTrainedModel, target: float, *, tries: int) -> Shrunk | None:
    """Cut ``model`` so that it is ``target`` times as fast as the unpruned one; None if that is out of reach.

    Layers timed alone share the caches with nobody, so the table is off by a little: up to ``tries`` times the budget
    is moved by what the graph really takes. Of those that reach the target the slowest is taken, which lost least;
    else the fastest.
    """
    gradients = mask_gradients(model, ground.tokens, ground.targets, ground.task)
    rankings = [Ranking(removal(one.heads), removal(one.neurons)) for one in gradients]
    table, beside = ground.table, ground.table.beside_layers_ms(ground.layers)
    aim = target * (1 + _ABOVE) / 2
    moments = input_moments(model, ground.tokens)
    found: list[Shrunk] = []
    for _ in range(tries):
        kept = search(rankings, table, table.model_ms / aim - beside)
        if kept is None or any(kept == one.kept for one in found):
            break
        smaller = cut_and_reconstruct(model, kept, moments)
        found.append(Shrunk(smaller, kept, _speedup(ground, smaller)))
        logger.info("prune: aimed at %.2fx, measured %.2fx as fast as the unpruned int8", aim, found[-1].speedup)
        if _BELOW <= found[-1].speedup / target <= _ABOVE:
            break
        aim = 1 + (aim - 1) * (target - 1) / max(found[-1].speedup - 1, 0.02)
    enough = [one for one in found if one.speedup >= target * _BELOW]
    if enough:
        return min(enough, key=lambda one: one.speedup)
    return max(found, key=lambda one: one.speedup) if found else None


def _speedup(ground: Ground, pruned: PreTrainedModel) -> float:
    """p50 of the unpruned int8 graph over that of ``pruned``, run in turns on the sampled texts."""
    raw, joined = export_onnx(pruned, ground.work), ground.work / "joined.onnx"
    join_projections(raw, joined)
    int8 = quantize(joined, ground.work, DYNAMIC, target=instruction_set()).file
    timed = time_in_turns({"unpruned": ground.unpruned, "pruned": graph_run(int8)}, ground.tokens, seconds=_SECONDS)
    return timed["unpruned"].p50 / timed["pruned"].p50


def _typical(tokens: Sequence[Tokens]) -> list[int]:
    """The lengths of a short, a middling and a long text."""
    return sorted({int(np.quantile([len(one) for one in tokens], share)) for share in (0.25, 0.5, 0.75)})
