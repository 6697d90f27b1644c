"""The prune stage of an export: importance, latency, search, surgery, recovery; the result stays in memory.

A pruned model cannot be read back by transformers, whose configurations know one width for all layers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pydantic import JsonValue
from transformers import PreTrainedModel

from export.hardware import instruction_set
from export.labels import encode
from export.latency import engine_run, measure
from export.onnx import export_onnx
from export.predict import load_engine
from export.prune.architecture import layers_of
from export.prune.importance import mask_gradients, removal
from export.prune.recover import Lesson, recover
from export.prune.search import Ranking, search
from export.prune.surgery import Kept, cut
from export.prune.table import LatencyTable, measure_layer
from export.quantize import quantize_int8
from export.reference import choose_rows
from service.contract.bundle import Task
from service.contract.dataset import Dataset
from service.contract.errors import InvalidInput, Refused
from service.engine import Engine
from service.tokenizer import TextTokenizer, Tokens

logger = logging.getLogger(__name__)

LEAST_ROWS = 100
_ROUNDS = 4
_BELOW, _ABOVE = 0.99, 1.05  # a measured speed-up between these shares of its target is near enough
_SECONDS = 2.0


@dataclass(frozen=True)
class Pruning:
    """What is wanted: the pruned int8 model takes ``1 / target_speedup`` of the unpruned one's time on one thread.

    ``rows`` are what the checkpoint was trained on; ``sample`` of them rank the units, all of them teach recovery.
    """

    rows: Dataset
    target_speedup: float
    lesson: Lesson = field(default_factory=Lesson)
    sample: int = 1_024


@dataclass(frozen=True)
class _Unpruned:
    """The model as it was, as it would be served, and what is known of its layers."""

    model: PreTrainedModel
    engine: Engine
    tokens: Sequence[Tokens]
    rankings: Sequence[Ranking]
    table: LatencyTable


def check_pruning(model: PreTrainedModel, wanted: Pruning) -> None:
    """:raises InvalidInput: if the speed-up, the architecture or the training rows do not allow pruning."""
    if not wanted.target_speedup > 1.0:
        raise InvalidInput(f"--target-speedup {wanted.target_speedup:g} is no speed-up. Give more than 1, as 1.6.")
    layers_of(model)
    if len(wanted.rows) < LEAST_ROWS:
        raise InvalidInput(
            f"pruning ranks heads and neurons by at least {LEAST_ROWS} labelled training rows, and --train has "
            f"{len(wanted.rows)}. Give more, or leave --target-speedup out."
        )
    if not all(wanted.rows.targets):
        row = next(row for row, target in enumerate(wanted.rows.targets, 1) if not target)
        raise InvalidInput(f"row {row} of the training data has no label, and pruning needs one. Label or remove it.")


def prune(
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    labels: Sequence[str],
    task: Task,
    wanted: Pruning,
    unpruned_int8: Path,
    work: Path,
    *,
    seed: int,
) -> tuple[PreTrainedModel, dict[str, JsonValue]]:
    """A smaller copy of ``model``, recovered, and what was done to it; ``work`` is scratch.

    ``unpruned_int8`` is the graph that the speed-up is measured against.

    :raises InvalidInput: see :func:`check_pruning`.
    :raises Refused: if the speed-up is out of reach, or the pruned model proves no faster.
    """
    check_pruning(model, wanted)
    chosen = choose_rows(len(wanted.rows), wanted.sample, seed)
    sample = tokenizer([wanted.rows.texts[row] for row in chosen])
    targets = encode([wanted.rows.targets[row] for row in chosen], labels, task)
    started = time.monotonic()
    gradients = mask_gradients(model, sample, targets, task)
    rankings = [Ranking(removal(one.heads), removal(one.neurons)) for one in gradients]
    logger.info("prune: ranked heads and neurons on %d rows, %.0f s", len(sample), time.monotonic() - started)
    longest = max(map(len, sample))
    engine = load_engine(unpruned_int8, device="cpu", threads=1, max_length=longest)
    table = measure_layer(model, engine, _typical(engine, sample), work)
    unpruned = _Unpruned(model, engine, sample, rankings, table)
    kept, speedup, rounds = _within(unpruned, wanted.target_speedup, work)
    pruned = cut(model, kept)
    recovered = recover(pruned, model, tokenizer(wanted.rows.texts), task, wanted.lesson, seed=seed)
    return pruned, {
        "target_speedup": wanted.target_speedup,
        "speedup": round(speedup, 3),
        "rows": len(sample),
        "heads": f"{sum(len(one.heads) for one in kept)} of {table.heads * len(kept)}",
        "neurons": f"{sum(len(one.neurons) for one in kept)} of {table.neurons * len(kept)}",
        "heads_kept": [list(one.heads) for one in kept],
        "neurons_kept": [len(one.neurons) for one in kept],
        "parameters": [sum(tensor.numel() for tensor in one.parameters()) for one in (model, pruned)],
        "search_rounds": rounds,
        "latency_table": {
            "lengths": list(table.lengths),
            "model_ms": round(table.model_ms, 4),
            "beside_layers_ms": round(table.beside_layers_ms(len(kept)), 4),
            "head_ms": {str(count): round(ms, 4) for count, ms in table.head_ms.items()},
            "neuron_ms": {str(count): round(ms, 4) for count, ms in table.neuron_ms.items()},
        },
        "recovery": {**asdict(recovered), "losses": [round(loss, 5) for loss in recovered.losses]},
    }


def _within(unpruned: _Unpruned, target: float, work: Path) -> tuple[list[Kept], float, int]:
    """What to keep, the speed-up measured for it, and how often the budget was corrected to get there.

    Layers timed alone share the caches with nobody, so the table is off by a little: the budget is moved by what the
    pruned graph really takes. Of those that reach the target the slowest is kept, which lost least; else the fastest.
    """
    table, layers = unpruned.table, len(unpruned.rankings)
    beside = table.beside_layers_ms(layers)
    aim = target * (1 + _ABOVE) / 2
    found: list[tuple[float, list[Kept]]] = []
    for _ in range(_ROUNDS):
        kept = search(unpruned.rankings, table, table.model_ms / aim - beside)
        if kept is None or any(kept == one for _, one in found):
            break
        speedup = _speedup(unpruned, cut(unpruned.model, kept), work)
        found.append((speedup, kept))
        logger.info("prune: aimed at %.2fx, measured %.2fx as fast as the unpruned int8", aim, speedup)
        if _BELOW <= speedup / target <= _ABOVE:
            break
        aim = 1 + (aim - 1) * (target - 1) / max(speedup - 1, 0.02)
    if not found:
        raise Refused(
            f"no pruned model is {target:g} times as fast here: of {table.model_ms:.2f} ms, {beside:.2f} ms are spent "
            f"outside of heads and neurons, so that {table.model_ms / max(beside, 1e-6):.1f} times is the limit. "
            "Give a lower --target-speedup."
        )
    enough = [one for one in found if one[0] >= target * _BELOW]
    speedup, kept = min(enough, key=lambda one: one[0]) if enough else max(found, key=lambda one: one[0])
    if speedup <= 1.0:
        raise Refused(
            f"the pruned model is no faster than the unpruned one ({speedup:.2f} times) on this machine. "
            "Leave --target-speedup out."
        )
    if not enough:
        logger.warning("the pruned model is %.2f times as fast, not %g times", speedup, target)
    return kept, speedup, len(found)


def _speedup(unpruned: _Unpruned, pruned: PreTrainedModel, work: Path) -> float:
    """p50 of the unpruned int8 graph over that of ``pruned``, run in turns on the sampled texts."""
    int8 = quantize_int8(export_onnx(pruned, work), work, target=instruction_set()).file
    longest = max(map(len, unpruned.tokens))
    runs = {
        "unpruned": (engine_run(unpruned.engine), 0),
        "pruned": (engine_run(load_engine(int8, device="cpu", threads=1, max_length=longest)), 0),
    }
    before, after = measure(runs, unpruned.tokens, hardware="", seconds=_SECONDS)
    return before.p50_ms / after.p50_ms


def _typical(engine: Engine, tokens: Sequence[Tokens]) -> list[int]:
    """The padded lengths of a short, a middling and a long text."""
    return sorted(
        {engine.padded_length(int(np.quantile([len(one) for one in tokens], share))) for share in (0.25, 0.5, 0.75)}
    )
