"""The variant for the CPU: searched for, or made as a plan says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from pydantic import JsonValue
from transformers import PreTrainedModel

from export.checkpoint.load import Checkpoint
from export.graph.files import graph_bytes
from export.graph.quantize import DYNAMIC, Quantized
from export.hardware import processor
from export.measure.baselines import plain_baselines
from export.measure.latency import Run, Timed, graph_run, spread_out, time_in_turns, torch_run
from export.prune.architecture import layers_of
from export.search.choice import choose, front, is_provable, most_faithful
from export.search.progress import TimeBudget
from export.search.store import Progress, SearchStore
from export.search.trial import SearchRows, Trial
from export.search.walk import Compressor, Walk, execute_plan
from service.contract.bundle import Candidate, Latency, Plan, Search
from service.contract.dataset import Dataset
from service.contract.inputs import Input
from service.tasks.tokenizer import Tokens

TORCH, FLOAT32, INT8, UNPRUNED = "torch fp32", "onnxruntime fp32", "onnxruntime int8", "unpruned int8"
SERVED = "cpu variant"


@dataclass(frozen=True)
class SearchRequest:
    """What the search is to find; ``time_budget`` in seconds.

    ``target_speedup`` is against the unpruned int8 model; None means as fast as the tolerance allows. With
    ``must_prove`` what ``gate_rows`` will probably prove is preferred. ``cross_fit`` is for rows that the gate judges
    by, too: each half of them makes a choice, and the more faithful one counts, so that no half is judged by a choice
    that it made alone.
    """

    rows: Dataset
    gate_rows: int
    time_budget: float
    target_speedup: float | None = None
    prune: bool = True
    must_prove: bool = False
    cross_fit: bool = False


@dataclass(frozen=True)
class CpuVariant:
    """A graph to serve; ``model`` is what it was made from and ``float32`` its float graph, the checkpoint's or pruned.

    ``latency`` has the baselines and the graph itself, measured in one run.
    """

    made: Quantized
    model: PreTrainedModel
    float32: Path
    plan: Plan
    latency: tuple[Latency, ...]
    search: Search | None = None

    @property
    def pruned(self) -> dict[str, JsonValue]:
        """How much of the model was left."""
        layers = layers_of(self.model) if self.plan.steps else []
        return {
            "heads_kept": [layer.heads for layer in layers],
            "neurons_kept": [layer.neurons for layer in layers],
            "parameters": sum(tensor.numel() for tensor in self.model.parameters()),
        }


def search_variant(
    compressor: Compressor, checkpoint: Checkpoint, search_request: SearchRequest, store: SearchStore, max_drop: float
) -> CpuVariant:
    """Walk, time everything that was tried in one run, and take one candidate.

    :raises Refused: if the speed-up that was asked for is not reached.
    """
    rows = SearchRows.of(
        compressor.model, compressor.tokenizer, search_request.rows, compressor.labels, compressor.task
    )
    budget = TimeBudget(search_request.time_budget, spent=store.load().seconds)
    walk = Walk(compressor, rows, store, budget, max_drop, search_request.target_speedup, search_request.prune)
    progress = walk.run()
    unpruned = next(one for one in progress.trials if one.step == 0 and one.scheme == DYNAMIC)
    graphs: dict[str, Run] = {one.file: graph_run(store.folder / one.file) for one in progress.trials}
    baselines = _baselines(compressor, checkpoint, store)
    timed = time_in_turns(graphs | {name: run for name, (run, _) in baselines.items()}, rows.tokens)
    provable = partial(is_provable, max_drop=max_drop, gate_rows=search_request.gate_rows)
    pick = partial(
        choose,
        timed=timed,
        max_drop=max_drop,
        target_speedup=search_request.target_speedup,
        unpruned=unpruned.file,
        provable=provable if search_request.must_prove else None,
    )
    asked = rows.halves(progress.trials, store.folder) if search_request.cross_fit else [progress.trials]
    picked = {pick(trials).file for trials in asked}
    taken = most_faithful([one for one in progress.trials if one.file in picked], timed)
    rest = {UNPRUNED: (unpruned.file, unpruned.bytes), SERVED: (taken.file, taken.bytes)}
    sizes = {name: (name, size) for name, (_, size) in baselines.items()} | rest
    return CpuVariant(
        made=Quantized(store.folder / taken.file, taken.scheme, taken.quantized, taken.bytes),
        model=store.model_after(compressor.model, progress.chain(taken.step), taken.step),
        float32=store.folder / f"{taken.step}/float/joined.onnx",
        plan=Plan(steps=progress.chain(taken.step), scheme=taken.scheme, torch_threads=torch.get_num_threads()),
        latency=_latency(timed, sizes, rows.tokens),
        search=_search(progress, rows, taken, timed, search_request, max_drop, budget),
    )


def planned_variant(
    compressor: Compressor, checkpoint: Checkpoint, plan: Plan, store: SearchStore, texts: Sequence[Input]
) -> CpuVariant:
    """Make what ``plan`` says; ``texts`` are for its latency."""
    made = execute_plan(compressor, plan, store)
    baselines = _baselines(compressor, checkpoint, store)
    runs = {name: run for name, (run, _) in baselines.items()} | {SERVED: graph_run(made.file)}
    sizes = {name: (name, size) for name, (_, size) in baselines.items()} | {SERVED: (SERVED, made.bytes)}
    tokens = compressor.tokenizer(texts)
    return CpuVariant(
        made=made,
        model=store.model_after(compressor.model, plan.steps, len(plan.steps)),
        float32=store.folder / f"{len(plan.steps)}/float/joined.onnx",
        plan=plan,
        latency=_latency(time_in_turns(runs, tokens), sizes, tokens),
    )


def _baselines(compressor: Compressor, checkpoint: Checkpoint, store: SearchStore) -> dict[str, tuple[Run, int]]:
    """What others would run, each with its size in bytes."""
    plain = plain_baselines(checkpoint, store.folder_for(0, "baselines"))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in compressor.model.parameters())
    return {
        TORCH: (torch_run(compressor.model), weights),
        FLOAT32: (graph_run(plain.float32, as_served=False), graph_bytes(plain.float32)),
        INT8: (graph_run(plain.int8, as_served=False), graph_bytes(plain.int8)),
    }


def _latency(
    timed: Mapping[str, Timed], sizes: Mapping[str, tuple[str, int]], tokens: Sequence[Tokens]
) -> tuple[Latency, ...]:
    middle = sorted(len(one) for one in spread_out(tokens))[len(spread_out(tokens)) // 2]
    return tuple(timed[key].latency(name, size, processor(), middle) for name, (key, size) in sizes.items())


def _search(
    progress: Progress,
    rows: SearchRows,
    taken: Trial,
    timed: Mapping[str, Timed],
    search_request: SearchRequest,
    max_drop: float,
    budget: TimeBudget,
) -> Search:
    on_front = front([(timed[one.file].p50, -one.accuracy) for one in progress.trials])
    return Search(
        rows=len(search_request.rows),
        cross_fitted=search_request.cross_fit,
        metric=rows.task.metric,
        baseline=rows.baseline,
        max_drop=max_drop,
        target_speedup=search_request.target_speedup,
        budget_seconds=search_request.time_budget,
        seconds=round(budget.spent, 1),
        ended=progress.ended or "",
        candidates=tuple(
            Candidate(
                name=one.name,
                speedup=one.speedup,
                scheme=one.scheme.name,
                accuracy=one.accuracy,
                difference=one.difference,
                lower_bound=one.lower_bound,
                divergence=one.divergence,
                estimate=one.estimate,
                estimate_error=one.error,
                batch_flip_rate=one.batch_flip_rate,
                p50_ms=timed[one.file].p50,
                p50_range_ms=timed[one.file].p50_range,
                p95_ms=timed[one.file].p95,
                bytes=one.bytes,
                quantized=one.quantized,
                front=kept,
                chosen=one is taken,
            )
            for one, kept in zip(progress.trials, on_front, strict=True)
        ),
    )
