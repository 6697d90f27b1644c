"""The graphs of a bundle, one per variant, each checked against the model that it was made from."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import onnx
import torch
from pydantic import JsonValue
from transformers import PreTrainedModel

from export.checkpoint import Checkpoint
from export.errors import ParityError
from export.golden import golden_texts
from export.graphs import copy_graph, weights_file
from export.half import CudaPrecision, Fused, fuse
from export.onnx import OPSET, export_onnx
from export.parity import Parity, check_parity
from export.predict import load_engine
from export.quantize import check_padding
from export.reading import Reading
from export.search.store import Store
from export.search.variant import CpuVariant, Wish, planned_variant, search_variant
from export.search.walk import Subject
from export.stages import Stages
from service.contract.bundle import Latency, Plan, Search, VariantName
from service.contract.errors import InvalidInput
from service.engine import Engine, EngineError, usable_cores
from service.tokenizer import TextTokenizer, Tokens

logger = logging.getLogger(__name__)

Target = Literal["cpu", "cuda", "both"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
VARIANTS: dict[Target, tuple[VariantName, ...]] = {"cpu": ("cpu",), "cuda": ("cuda",), "both": ("cpu", "cuda")}
CUDA = "cuda variant"


@dataclass(frozen=True)
class Parts:
    """What the later stages need; ``model`` is the checkpoint's, the one to be measured against."""

    model: PreTrainedModel
    tokenizer: TextTokenizer
    graphs: dict[VariantName, Path]
    engines: dict[VariantName, Engine]
    precision: dict[VariantName, Precision]
    latency: tuple[Latency, ...]
    search: Search | None
    plan: Plan | None


def check_target(target: Target, target_speedup: float | None) -> None:
    """Before anything is searched: can every variant be run here?

    :raises InvalidInput: if a speed-up is asked for and nothing is searched.
    :raises EngineError: if a variant for CUDA is wanted and ONNX Runtime cannot use a GPU here.
    """
    if target == "cuda" and target_speedup is not None:
        raise InvalidInput("--target-speedup is searched on the CPU. Give --target both, or leave it out.")
    if target == "cpu":
        return
    shape = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", shape[:1], shape[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=9)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "probe.onnx")
        load_engine(Path(folder) / "probe.onnx", device="cuda", threads=1, max_length=8, pad_id=0)


def make_variants(
    stage: Path,
    store: Store,
    subject: Subject,
    checkpoint: Checkpoint,
    reading: Reading,
    wish: Wish | Plan,
    stages: Stages,
    *,
    target: Target,
    max_drop: float,
    texts: Sequence[str],
) -> Parts:
    """Make every variant of ``target`` in ``stage``; ``texts`` are for latencies where nothing is searched."""
    wanted = VARIANTS[target]
    model, tokenizer = subject.model, subject.tokenizer
    cases = tokenizer(golden_texts(texts))
    made: CpuVariant | None = None
    graphs: dict[VariantName, Path] = {}
    precision: dict[VariantName, Precision] = {}
    served = model
    if "cpu" in wanted:
        made = _cpu(subject, checkpoint, wish, store, stages, max_drop, list(texts))
        graphs["cpu"] = copy_graph(made.made.file, stage)
        precision["cpu"] = "fp32" if made.made.scheme.method == "none" else "int8"
        served = made.model
    if "cuda" in wanted:
        with stages.run("half") as details:
            folder = store.place(0, "half")
            cuda = _cuda(export_onnx(served, folder), stage, reading, cases)
            graphs["cuda"], precision["cuda"] = cuda.file, cuda.precision
            details.update({"precision": cuda.precision, "fused": dict(cuda.operators), "bytes": cuda.bytes_after})
    engines = _engines(graphs, reading)
    with stages.run("parity") as details:
        float32 = made.float32 if made else store.place(0, "half") / "model.onnx"
        parity: Parity = check_parity(
            served, float32, cases, max_length=reading.max_length, pad_id=reading.pad_id, seed=subject.seed
        )
        details.update({"shapes": parity.shapes, "largest_difference": parity.largest_difference})
        for name, engine in engines.items():
            check_padding(engine, cases, what=graphs[name].name)
    if made is None:
        return Parts(model, tokenizer, graphs, engines, precision, (), None, None)
    return Parts(model, tokenizer, graphs, engines, precision, made.latency, made.search, made.plan)


def _cpu(
    subject: Subject, checkpoint: Checkpoint, wish: Wish | Plan, store: Store, stages: Stages, max_drop: float,
    texts: list[str],
) -> CpuVariant:  # fmt: skip
    with stages.run("search" if isinstance(wish, Wish) else "plan") as details:
        if isinstance(wish, Wish):
            made = search_variant(subject, checkpoint, wish, store, max_drop)
        else:
            made = planned_variant(subject, checkpoint, wish, store, texts)
        found: dict[str, JsonValue] = {"scheme": made.plan.scheme.name, "quantized": made.made.matmuls}
        if made.search is not None:
            found |= {"candidates": len(made.search.candidates), "ended": made.search.ended}
        details.update({**found, "bytes": made.made.bytes, **made.pruned})
    return made


def _cuda(raw: Path, stage: Path, reading: Reading, cases: Sequence[Tokens]) -> Fused:
    """In fp16, or where its range is too small in bf16, if the GPU has that (as fast, 8 times as coarse), or in fp32.

    :raises ParityError: if even fp32 gives NaN or infinity.
    :raises EngineError: if CUDA does not work here.
    """
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    order: tuple[CudaPrecision, ...] = ("fp16", "bf16", "fp32") if bf16 else ("fp16", "fp32")
    for precision, instead in pairwise(order):
        fused = fuse(raw, stage, precision)
        try:
            _check(fused.file, reading, cases)
        except (ParityError, EngineError) as error:
            logger.warning("%s It is exported in %s instead.", error, instead)
            fused.file.unlink()
            weights_file(fused.file).unlink(missing_ok=True)
        else:
            return fused
    fused = fuse(raw, stage, order[-1])
    _check(fused.file, reading, cases)
    return fused


def _check(graph: Path, reading: Reading, cases: Sequence[Tokens]) -> None:
    check_padding(_engine(graph, "cuda", 1, reading), cases, what=graph.name)


def _engines(graphs: dict[VariantName, Path], reading: Reading) -> dict[VariantName, Engine]:
    threads = max(1, usable_cores() // 2)  # ONNX Runtime's threads spin: with all cores a busy machine crawls
    return {name: _engine(graph, name, threads, reading) for name, graph in graphs.items()}


def _engine(graph: Path, device: VariantName, threads: int, reading: Reading) -> Engine:
    return load_engine(graph, device=device, threads=threads, max_length=reading.max_length, pad_id=reading.pad_id)
