"""One step of gradual pruning: importance, knapsack under a latency budget, surgery, reconstruction; recovery follows.

Steps start from the model that the step before left, with its importance measured anew: several small cuts with
recovery between them lose less than one deep cut. A pruned model lives in memory only, because transformers knows one
width for all layers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from export.graph.onnx import export_onnx
from export.graph.projections import join_projections
from export.graph.quantize import DYNAMIC, quantize
from export.hardware import instruction_set
from export.inference.reference import choose_rows
from export.measure.latency import Run, graph_run, time_in_turns
from export.prune.architecture import layers_of
from export.prune.importance import mask_gradients, removal
from export.prune.reconstruct import cut_and_reconstruct, input_moments
from export.prune.search import Ranking, search
from export.prune.surgery import Kept, cut
from export.prune.table import LatencyTable, measure_layer
from export.tasks import training_of
from service.contract.dataset import Dataset
from service.contract.errors import InvalidInput
from service.tasks import Task
from service.tasks.tokenizer import TextTokenizer, Tokens

logger = logging.getLogger(__name__)

LEAST_ROWS = 100
SAMPLE = 1_024
_BELOW, _ABOVE = 0.99, 1.05  # a measured speed-up between these shares of its target is near enough
_TRIES = 4
_MOST_GAIN = 4.0
_SECONDS = 1.0


@dataclass(frozen=True)
class PruningBasis:
    """What all steps stand on: the rows that rank units, how long a layer takes, and the model to be faster than.

    ``gain`` is how much more a cut model gains than ``table`` says: the more of it goes, the better the caches hold it.
    """

    task: Task
    tokens: Sequence[Tokens]
    targets: npt.NDArray[np.int64 | np.float32]
    table: LatencyTable
    layers: int
    unpruned: Run
    work: Path
    gain: float = 1.0

    @property
    def limit(self) -> float:
        """About how many times as fast a model without heads and neurons would be."""
        promised = self.table.model_ms / max(self.table.beside_layers_ms(self.layers), 1e-6)
        return 1 + (promised - 1) * self.gain


@dataclass(frozen=True)
class PrunedModel:
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


def sample(rows: Dataset, seed: int) -> Dataset:
    """The rows that rank units and that reconstruction looks at."""
    drawn = choose_rows(len(rows), SAMPLE, seed)
    return Dataset([rows.texts[row] for row in drawn], [rows.targets[row] for row in drawn])


def measure_basis(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    rows: Dataset,
    labels: Sequence[str],
    task: Task,
    unpruned_int8: Path,
    work: Path,
    *,
    seed: int,
) -> PruningBasis:
    """Time the layers of the unpruned ``model`` and draw the rows that rank units; ``work`` is scratch."""
    drawn = sample(rows, seed)
    tokens = tokenizer(drawn.texts)
    targets = training_of(task).encode(drawn.targets, labels, tokens)
    unpruned = graph_run(unpruned_int8)
    table = measure_layer(model, unpruned, _typical(tokens), work)
    basis = PruningBasis(task, tokens, targets, table, len(layers_of(model)), unpruned, work)
    return replace(basis, gain=_gain(basis, model))


def _gain(basis: PruningBasis, model: PreTrainedModel) -> float:
    """Of the model cut to half, what it gains over what the table promises."""
    layer, table = layers_of(model)[0], basis.table
    heads, neurons = max(1, layer.heads // 2), max(1, layer.neurons // 2)
    halves = [Kept(tuple(range(heads)), tuple(range(neurons)))] * basis.layers
    cost = float(table.attention_ms(np.array([heads]))[0] + table.feed_forward_ms(np.array([neurons]))[0])
    promised = table.model_ms / (table.beside_layers_ms(basis.layers) + basis.layers * cost)
    measured = _speedup(basis, cut(model, halves))
    logger.info("prune: cut to half, promised %.2fx, measured %.2fx", promised, measured)
    return min(_MOST_GAIN, max(1 / _MOST_GAIN, (measured - 1) / max(promised - 1, 0.02)))


def prune_to_speedup(
    basis: PruningBasis, model: PreTrainedModel, target: float, *, exactly: bool
) -> PrunedModel | None:
    """Cut ``model`` so that it is ``target`` times as fast as the unpruned one; None if that is out of reach.

    The table is off by more than a little, so a few times the budget is moved by what the graph really takes.
    With ``exactly`` the slowest of those that reach the target is taken, else the nearest to it.
    """
    gradients = mask_gradients(model, basis.tokens, basis.targets, basis.task)
    rankings = [Ranking(removal(one.heads), removal(one.neurons)) for one in gradients]
    table, beside = basis.table, basis.table.beside_layers_ms(basis.layers)
    goal = 1 + (target * (1 + _ABOVE) / 2 - 1) / basis.gain
    moments = input_moments(model, basis.tokens)
    found: list[PrunedModel] = []
    for _ in range(_TRIES):
        kept = search(rankings, table, table.model_ms / goal - beside)
        if kept is None or any(kept == one.kept for one in found):
            break
        smaller = cut_and_reconstruct(model, kept, moments)
        found.append(PrunedModel(smaller, kept, _speedup(basis, smaller)))
        logger.info("prune: aimed at %.2fx, measured %.2fx as fast as the unpruned int8", goal, found[-1].speedup)
        if _BELOW <= found[-1].speedup / target <= _ABOVE:
            break
        goal = 1 + (goal - 1) * (target - 1) / max(found[-1].speedup - 1, 0.02)
    if not found:
        return None
    enough = [one for one in found if one.speedup >= target * _BELOW]
    if exactly:
        return min(enough, key=lambda one: one.speedup) if enough else max(found, key=lambda one: one.speedup)
    return min(found, key=lambda one: abs(math.log(one.speedup / target)))


def _speedup(basis: PruningBasis, pruned: PreTrainedModel) -> float:
    """p50 of the unpruned int8 graph over that of ``pruned``, run in turns on the sampled texts."""
    raw, joined = export_onnx(pruned, basis.work), basis.work / "joined.onnx"
    join_projections(raw, joined)
    int8 = quantize(joined, basis.work, DYNAMIC, target=instruction_set()).file
    timed = time_in_turns({"unpruned": basis.unpruned, "pruned": graph_run(int8)}, basis.tokens, seconds=_SECONDS)
    return timed["unpruned"].p50 / timed["pruned"].p50


def _typical(tokens: Sequence[Tokens]) -> list[int]:
    """The lengths of a short, a middling and a long text."""
    return sorted({int(np.quantile([len(one) for one in tokens], share)) for share in (0.25, 0.5, 0.75)})
