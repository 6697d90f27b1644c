"""The stages of an export, in order: a checkpoint becomes the content of a bundle in a staging folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Literal

from pydantic import JsonValue
from transformers import PreTrainedModel

from export.card.html import as_html
from export.card.markdown import as_markdown
from export.checkpoint import Checkpoint
from export.gate import explain, judge, predicted
from export.golden import golden_atol, golden_cases, golden_texts, write_golden
from export.hardware import instruction_set, processor
from export.latency import Run, engine_run, measure, torch_run
from export.onnx import declared, export_onnx, load_model
from export.parity import check_parity
from export.predict import Answers, answer, batched_logits, checkpoint_logits, joined, load_engine
from export.prune.stage import Pruning, check_pruning, prune
from export.quantize import check_padding, fuse_fp16, quantize_int8
from export.reference import reference_table, write_reference
from export.stages import Stages
from service.contract.bundle import (
    GOLDEN,
    REFERENCE,
    TOKENIZER,
    Challenge,
    FileEntry,
    Golden,
    Latency,
    Manifest,
    Quality,
    Reference,
    Source,
    Stage,
    Tensor,
    Variant,
    VariantName,
    file_entries,
)
from service.contract.card.content import card_of
from service.contract.dataset import Dataset
from service.contract.features import FEATURE_VERSION
from service.engine import Engine, usable_cores
from service.tokenizer import TextTokenizer

Target = Literal["cpu", "cuda", "both"]
PRECISION: dict[VariantName, Literal["int8", "fp16"]] = {"cpu": "int8", "cuda": "fp16"}
VARIANTS: dict[Target, tuple[VariantName, ...]] = {"cpu": ("cpu",), "cuda": ("cuda",), "both": ("cpu", "cuda")}

# Batch flips are a rate: beyond this many rows it hardly gets more exact.
_BATCH_FLIP_ROWS = 2_000
UNPRUNED = "no --target-speedup was given"
_LIBRARIES = ("torch", "transformers", "tokenizers", "optimum", "optimum-onnx", "onnx", "numpy")


@dataclass(frozen=True)
class Order:
    """What to build. ``gate_rows`` decide the verdict; ``reference_rows`` are (text, true label or None).

    ``pruning`` is what to prune to, or the reason why not to.
    """

    checkpoint: Checkpoint
    digest: str
    gate_rows: Dataset
    reference_rows: Sequence[tuple[str, str | None]]
    target: Target = "cpu"
    max_drop: float = 0.5
    allow_inconclusive: bool = False
    seed: int = 0
    arguments: dict[str, JsonValue] = field(default_factory=dict)
    pruning: Pruning | str = UNPRUNED


@dataclass(frozen=True)
class Draft:
    """A bundle's content except its version: what the manifest will say, and what the variants answered."""

    order: Order
    source: Source
    variants: dict[VariantName, Variant]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    quality: dict[VariantName, Quality]
    latency: tuple[Latency, ...]
    answers: dict[VariantName, Answers]
    stages: tuple[Stage, ...]
    reference_rows: int
    created: datetime


@dataclass(frozen=True)
class _Unpruned:
    """The graphs of the checkpoint as it is, to compare a pruned model with."""

    raw: Path
    int8: Path


@dataclass(frozen=True)
class _Parts:
    """What the stages hand on: engines by variant, and how each graph was made.

    ``model`` is the checkpoint's, the one to be measured against. ``unpruned`` is None where nothing was pruned.
    """

    model: PreTrainedModel
    unpruned: _Unpruned | None
    tokenizer: TextTokenizer
    raw: Path
    graphs: dict[VariantName, Path]
    engines: dict[VariantName, Engine]


def build(stage: Path, order: Order, *, gate: Callable[[dict[VariantName, Quality]], None]) -> Draft:
    """Run every stage; all but ``manifest.json`` and the card is then in ``stage``.

    ``gate`` sees the qualities as soon as they are known and may raise, so that a refusal costs no further work.

    :raises ParityError: if a graph does not compute what the model that it was made from computes.
    :raises EngineError: if a variant cannot run on its device here: nothing is published that was not measured.
    """
    stages, checkpoint = Stages(), order.checkpoint
    shutil.copyfile(checkpoint.path / TOKENIZER, stage / TOKENIZER)
    work = stage / ".work"
    work.mkdir()
    parts = _graphs(stage, work, order, stages)
    inputs, outputs = declared(parts.raw)
    with stages.run("gate") as details:
        quality, answers = _judge(parts, order)
        details.update({name: explain(one) for name, one in quality.items()})
    gate(quality)
    with stages.run("latency") as details:
        latency = _latency(parts, answers)
        details.update({one.name: f"p50 {one.p50_ms:.2f} ms" for one in latency})
    with stages.run("reference") as details:
        rows = _reference(stage, parts, order, next(iter(answers.values())))
        details["rows"] = rows
    with stages.run("golden") as details:
        cases = golden_cases(parts.engines, parts.tokenizer, golden_texts(order.gate_rows.texts))
        write_golden(stage / GOLDEN, cases)
        details["cases"] = len(cases)
    variants = {name: _variant(name, graph, cases) for name, graph in parts.graphs.items()}
    shutil.rmtree(work)
    return Draft(
        order, _source(order), variants, inputs, outputs, quality, latency, answers, tuple(stages.done), rows,
        datetime.now(UTC),
    )  # fmt: skip


def write_card(stage: Path, draft: Draft, name: str, challenge: Challenge | None = None) -> dict[str, FileEntry]:
    """Write ``card.md`` and ``report.html``; returns the entries of all files, for the manifest."""
    known = manifest(draft, file_entries(stage), name, "1", challenge)  # the card does not name the version
    card = card_of(known)
    (stage / "card.md").write_text(as_markdown(card), encoding="utf-8")
    (stage / "report.html").write_text(as_html(card, known.search), encoding="utf-8")
    return file_entries(stage)


def manifest(
    draft: Draft, files: dict[str, FileEntry], name: str, version: str, challenge: Challenge | None = None
) -> Manifest:
    checkpoint = draft.order.checkpoint
    return Manifest(
        name=name,
        version=version,
        task=checkpoint.task,
        labels=checkpoint.labels,
        max_length=checkpoint.max_length,
        created=draft.created,
        variants=draft.variants,
        inputs=draft.inputs,
        outputs=draft.outputs,
        files=files,
        source=draft.source,
        pipeline=draft.stages,
        quality=draft.quality,
        latency=draft.latency,
        reference=Reference(rows=draft.reference_rows, feature_version=FEATURE_VERSION),
        challenge=challenge,
    )


def _graphs(stage: Path, work: Path, order: Order, stages: Stages) -> _Parts:
    checkpoint = order.checkpoint
    graphs: dict[VariantName, Path] = {}
    original = load_model(checkpoint)
    tokenizer = TextTokenizer(stage / TOKENIZER, checkpoint.max_length)
    model, unpruned = _pruned(original, tokenizer, work, order, stages)
    with stages.run("onnx") as details:
        raw = export_onnx(model, work)
        details["bytes"] = raw.stat().st_size
    with stages.run("quantize") as details:
        for name in VARIANTS[order.target]:
            made = quantize_int8(raw, stage, target=instruction_set()) if name == "cpu" else fuse_fp16(raw, stage)
            graphs[name] = made.file
            details[name] = {key: value for key, value in asdict(made).items() if key != "file"}
    threads = max(1, usable_cores() // 2)  # ONNX Runtime's threads spin: with all cores a busy machine crawls
    engines = {
        name: load_engine(graph, device=name, threads=threads, max_length=checkpoint.max_length)
        for name, graph in graphs.items()
    }
    with stages.run("parity") as details:
        details.update(asdict(check_parity(model, raw, checkpoint.max_length, seed=order.seed)))
        for name, engine in engines.items():
            check_padding(engine, what=graphs[name].name)
    return _Parts(original, unpruned, tokenizer, raw, graphs, engines)


def _pruned(
    model: PreTrainedModel, tokenizer: TextTokenizer, work: Path, order: Order, stages: Stages
) -> tuple[PreTrainedModel, _Unpruned | None]:
    """The model to export, in memory: the checkpoint's, or a smaller one made from it."""
    wanted = order.pruning
    if isinstance(wanted, str):
        stages.skip("prune", wanted)
        return model, None
    check_pruning(model, wanted)
    kept, scratch = work / "unpruned", work / "prune"
    kept.mkdir()
    scratch.mkdir()
    with stages.run("prune") as details:
        raw = export_onnx(model, kept)
        unpruned = _Unpruned(raw, quantize_int8(raw, kept, target=instruction_set()).file)
        smaller, did = prune(
            model, tokenizer, order.checkpoint.labels, order.checkpoint.task, wanted, unpruned.int8, scratch,
            seed=order.seed,
        )  # fmt: skip
        details.update(did)
    return smaller, unpruned


def _judge(parts: _Parts, order: Order) -> tuple[dict[VariantName, Quality], dict[VariantName, Answers]]:
    labels, task, rows = order.checkpoint.labels, order.checkpoint.task, order.gate_rows
    baseline = predicted(checkpoint_logits(parts.model, parts.tokenizer(rows.texts)), labels, task)
    quality: dict[VariantName, Quality] = {}
    answers: dict[VariantName, Answers] = {}
    for name, engine in parts.engines.items():
        answers[name] = answer(engine, parts.tokenizer, rows.texts, labels, task)
        together = batched_logits(engine, answers[name].tokens[:_BATCH_FLIP_ROWS])
        quality[name] = judge(
            baseline,
            predicted(answers[name].outputs.logits, labels, task),
            predicted(together, labels, task).labels,
            rows.targets,
            task=task,
            max_drop=order.max_drop,
            allow_inconclusive=order.allow_inconclusive,
        )
    return quality, answers


def _latency(parts: _Parts, answers: dict[VariantName, Answers]) -> tuple[Latency, ...]:
    tokens = next(iter(answers.values())).tokens
    longest = max(map(len, tokens))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in parts.model.parameters())
    runs: dict[str, tuple[Run, int]] = {"torch fp32": (torch_run(parts.model), weights)}
    for name, graph in _cpu_graphs(parts):
        engine = load_engine(graph, device="cpu", threads=1, max_length=longest)
        runs[name] = (engine_run(engine), graph.stat().st_size)
    if "cuda" in parts.engines:
        runs["onnxruntime fp16 on cuda"] = (engine_run(parts.engines["cuda"]), parts.graphs["cuda"].stat().st_size)
    return measure(runs, tokens, hardware=processor())


def _cpu_graphs(parts: _Parts) -> list[tuple[str, Path]]:
    """The graphs to time on the CPU: the checkpoint's baselines, then what is served there."""
    found = [("onnxruntime fp32", parts.unpruned.raw if parts.unpruned else parts.raw)]
    if parts.unpruned:
        found += [("onnxruntime int8 unpruned", parts.unpruned.int8), ("onnxruntime fp32 pruned", parts.raw)]
    if "cpu" in parts.graphs:
        found.append((f"onnxruntime {PRECISION['cpu']}", parts.graphs["cpu"]))
    return found


def _reference(stage: Path, parts: _Parts, order: Order, judged: Answers) -> int:
    """Write the reference; rows that the gate has run already are not run again."""
    place = {text: row for row, text in enumerate(judged.texts)}
    others = sorted({text for text, _ in order.reference_rows} - place.keys())
    labels, task = order.checkpoint.labels, order.checkpoint.task
    if others:
        engine = next(iter(parts.engines.values()))
        judged = joined([judged, answer(engine, parts.tokenizer, others, labels, task)], labels, task)
        place = {text: row for row, text in enumerate(judged.texts)}
    table = reference_table(judged, [None] * len(judged.texts))
    table = table.take([place[text] for text, _ in order.reference_rows])
    targets = [target for _, target in order.reference_rows]
    column = table.schema.get_field_index("target")
    write_reference(stage / REFERENCE, table.set_column(column, table.schema.field(column), [targets]))
    return len(targets)


def _variant(name: VariantName, graph: Path, cases: Sequence[Golden]) -> Variant:
    precision = PRECISION[name]
    measured_on = instruction_set() if name == "cpu" else _compute_capability()
    return Variant(
        file=graph.name, precision=precision, instruction_set=measured_on,
        golden_atol=golden_atol(cases, name, precision),
    )  # fmt: skip


def _compute_capability() -> str:
    import torch

    if not torch.cuda.is_available():  # ONNX Runtime may have CUDA where PyTorch was built without it
        return "cuda"
    return "sm_{}{}".format(*torch.cuda.get_device_capability())


def _source(order: Order) -> Source:
    libraries = {name: library_version(name) for name in _LIBRARIES}
    import onnxruntime

    return Source(
        checkpoint_sha256=order.digest,
        base_model=order.checkpoint.base_model,
        libraries={**libraries, "onnxruntime": onnxruntime.__version__},
        seed=order.seed,
        arguments=order.arguments,
    )
