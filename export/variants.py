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

from export.checkpoint.load import Checkpoint
from export.checkpoint.tokenizer import CheckpointTokenizer
from export.errors import ParityError
from export.graph.files import copy_graph, weights_file
from export.graph.half import CudaPrecision, Fused, fuse
from export.graph.onnx import OPSET, export_onnx
from export.graph.parity import Parity, check_parity
from export.graph.quantize import check_padding
from export.inference.golden import golden_texts
from export.inference.predict import load_engine
from export.search.store import SearchStore
from export.search.variant import CpuVariant, SearchRequest, planned_variant, search_variant
from export.search.walk import Compressor
from export.stages import Stages
from service.contract.bundle import Latency, Plan, Search, VariantName
from service.contract.errors import InvalidInput
from service.contract.inputs import Input
from service.engine import Engine, EngineError, usable_cores
from service.tasks.tokenizer import TextTokenizer, Tokens

logger = logging.getLogger(__name__)

Target = Literal["cpu", "cuda", "both"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
VARIANTS: dict[Target, tuple[VariantName, ...]] = {"cpu": ("cpu",), "cuda": ("cuda",), "both": ("cpu", "cuda")}
CUDA = "cuda variant"


@dataclass(frozen=True)
class BuiltVariants:
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
    staging_folder: Path,
    store: SearchStore,
    compressor: Compressor,
    checkpoint: Checkpoint,
    hf_tokenizer: CheckpointTokenizer,
    search_request: SearchRequest | Plan,
    stages: Stages,
    *,
    target: Target,
    max_drop: float,
    texts: Sequence[Input],
) -> BuiltVariants:
    """Make every variant of ``target`` in ``staging_folder``; ``texts`` are for latencies where nothing is searched."""
    wanted = VARIANTS[target]
    model, tokenizer = compressor.model, compressor.tokenizer
    cases = tokenizer(golden_texts(texts))
    made: CpuVariant | None = None
    graphs: dict[VariantName, Path] = {}
    precision: dict[VariantName, Precision] = {}
    served = model
    if "cpu" in wanted:
        made = _cpu(compressor, checkpoint, search_request, store, stages, max_drop, list(texts))
        graphs["cpu"] = copy_graph(made.made.file, staging_folder)
        precision["cpu"] = "fp32" if made.made.scheme.method == "none" else "int8"
        served = made.model
    if "cuda" in wanted:
        with stages.run("half") as details:
            folder = store.folder_for(0, "half")
            cuda = _cuda(export_onnx(served, folder), staging_folder, hf_tokenizer, cases)
            graphs["cuda"], precision["cuda"] = cuda.file, cuda.precision
            details.update({"precision": cuda.precision, "fused": dict(cuda.operators), "bytes": cuda.bytes_after})
    engines = _engines(graphs, hf_tokenizer)
    with stages.run("parity") as details:
        float32 = made.float32 if made else store.folder_for(0, "half") / "model.onnx"
        parity: Parity = check_parity(
            served, float32, cases, max_length=hf_tokenizer.max_length, pad_id=hf_tokenizer.pad_id, seed=compressor.seed
        )
        details.update({"shapes": parity.shapes, "largest_difference": parity.largest_difference})
        for name, engine in engines.items():
            check_padding(engine, cases, what=graphs[name].name)
    return BuiltVariants(
        model=model,
        tokenizer=tokenizer,
        graphs=graphs,
        engines=engines,
        precision=precision,
        latency=made.latency if made is not None else (),
        search=made.search if made is not None else None,
        plan=made.plan if made is not None else None,
    )


def _cpu(
    compressor: Compressor,
    checkpoint: Checkpoint,
    search_request: SearchRequest | Plan,
    store: SearchStore,
    stages: Stages,
    max_drop: float,
    texts: list[Input],
) -> CpuVariant:
    with stages.run("search" if isinstance(search_request, SearchRequest) else "plan") as details:
        if isinstance(search_request, SearchRequest):
            made = search_variant(compressor, checkpoint, search_request, store, max_drop)
        else:
            made = planned_variant(compressor, checkpoint, search_request, store, texts)
        found: dict[str, JsonValue] = {"scheme": made.plan.scheme.name, "quantized": made.made.matmuls}
        if made.search is not None:
            found |= {"candidates": len(made.search.candidates), "ended": made.search.ended}
        details.update({**found, "bytes": made.made.bytes, **made.pruned})
    return made


def _cuda(raw: Path, staging_folder: Path, hf_tokenizer: CheckpointTokenizer, cases: Sequence[Tokens]) -> Fused:
    """In fp16, or where its range is too small in bf16, if the GPU has that (as fast, 8 times as coarse), or in fp32.

    :raises ParityError: if even fp32 gives NaN or infinity.
    :raises EngineError: if CUDA does not work here.
    """
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    order: tuple[CudaPrecision, ...] = ("fp16", "bf16", "fp32") if bf16 else ("fp16", "fp32")
    for precision, instead in pairwise(order):
        fused = fuse(raw, staging_folder, precision)
        try:
            _check(fused.file, hf_tokenizer, cases)
        except (ParityError, EngineError) as error:
            logger.warning("%s It is exported in %s instead.", error, instead)
            fused.file.unlink()
            weights_file(fused.file).unlink(missing_ok=True)
        else:
            return fused
    fused = fuse(raw, staging_folder, order[-1])
    _check(fused.file, hf_tokenizer, cases)
    return fused


def _check(graph: Path, hf_tokenizer: CheckpointTokenizer, cases: Sequence[Tokens]) -> None:
    check_padding(_engine(graph, "cuda", 1, hf_tokenizer), cases, what=graph.name)


def _engines(graphs: dict[VariantName, Path], hf_tokenizer: CheckpointTokenizer) -> dict[VariantName, Engine]:
    threads = max(1, usable_cores() // 2)  # ONNX Runtime's threads spin: with all cores a busy machine crawls
    return {name: _engine(graph, name, threads, hf_tokenizer) for name, graph in graphs.items()}


def _engine(graph: Path, device: VariantName, threads: int, hf_tokenizer: CheckpointTokenizer) -> Engine:
    return load_engine(
        graph, device=device, threads=threads, max_length=hf_tokenizer.max_length, pad_id=hf_tokenizer.pad_id
    )
