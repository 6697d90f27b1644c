"""The stages of an export, in order: a checkpoint becomes the content of a bundle in a staging folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path

import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue
from transformers import PreTrainedModel

from export.card.html import as_html, mistakes
from export.card.markdown import as_markdown
from export.checkpoint.load import Checkpoint
from export.checkpoint.tokenizer import CheckpointTokenizer
from export.graph.files import graph_bytes
from export.graph.onnx import declared, load_model
from export.hardware import instruction_set, processor
from export.inference.golden import golden_atol, golden_cases, golden_texts, write_golden
from export.inference.predict import Answers, answer, batched_logits, joined, own_logits, own_tokens
from export.inference.reference import reference_table, write_reference
from export.judge.gate import PredictedLabels, check_baseline, explain, judge_quality, predicted
from export.measure.latency import engine_run, spread_out, time_in_turns
from export.search.store import SearchStore
from export.search.variant import SearchRequest
from export.search.walk import Compressor
from export.stages import Stages
from export.variants import CUDA, BuiltVariants, Target, make_variants
from service.card.content import card_of
from service.contract.bundle import (
    GOLDEN,
    REFERENCE,
    TOKENIZER,
    Challenge,
    FileEntry,
    Golden,
    Latency,
    Manifest,
    Plan,
    Quality,
    Reference,
    Search,
    Source,
    Stage,
    Tensor,
    Variant,
    VariantName,
    file_entries,
)
from service.contract.dataset import Dataset
from service.contract.features import FEATURE_VERSION
from service.contract.inputs import Input, split

# Batch flips are a rate: beyond this many rows it hardly gets more exact.
_BATCH_FLIP_ROWS = 2_000
_LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "numpy")


@dataclass(frozen=True)
class ExportRequest:
    """What to build. ``gate_rows`` decide the verdict; ``reference_rows`` are (text, true label or None).

    ``cpu`` says what the CPU variant is to be: searched for, or made as another bundle's plan says. ``weak`` is whether
    the checkpoint may be no better than its most frequent label; ``trained_on`` counts eval rows that do not judge.
    """

    checkpoint: Checkpoint
    hf_tokenizer: CheckpointTokenizer
    digest: str
    train: Dataset
    gate_rows: Dataset
    reference_rows: Sequence[tuple[Input, str | None]]
    cpu: SearchRequest | Plan
    target: Target = "cpu"
    max_drop: float = 0.5
    weak: bool = False
    trained_on: int = 0
    seed: int = 0
    arguments: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class BundleContent:
    """A bundle's content except its version: what the manifest will say, and what the variants answered."""

    request: ExportRequest
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
    search: Search | None
    plan: Plan | None


def build(
    staging_folder: Path,
    store: SearchStore,
    request: ExportRequest,
    *,
    gate: Callable[[dict[VariantName, Quality]], None],
) -> BundleContent:
    """Run every stage; all but ``manifest.json`` and the card is then in ``staging_folder``.

    ``store`` is where the search for the CPU variant keeps what it finds. ``gate`` sees the qualities as soon as they
    are known and may raise, so that a refusal costs no further work.

    :raises Refused: if the checkpoint is no better than its most frequent label, before anything is tried.
    :raises ParityError: if a graph does not compute what the model that it was made from computes.
    :raises EngineError: if a variant cannot run on its device here: nothing is published that was not measured.
    """
    stages = Stages()
    request.hf_tokenizer.write(staging_folder / TOKENIZER)
    model = load_model(request.checkpoint)
    tokenizer = request.hf_tokenizer.served(staging_folder / TOKENIZER, placed=request.checkpoint.task.per_token)
    baseline = _baseline(model, request)
    if not request.weak:
        check_baseline(baseline, request.gate_rows, request.checkpoint.task)
    compressor = Compressor(
        model, tokenizer, request.train, request.checkpoint.labels, request.checkpoint.task, request.seed
    )
    parts = make_variants(
        staging_folder,
        store,
        compressor,
        request.checkpoint,
        request.hf_tokenizer,
        request.cpu,
        stages,
        target=request.target,
        max_drop=request.max_drop,
        texts=request.gate_rows.texts,
    )
    with stages.run("gate") as details:
        quality, answers = _judge(baseline, parts, request)
        details.update({name: explain(one) for name, one in quality.items()})
    gate(quality)
    latency = parts.latency
    if "cuda" in parts.engines:
        with stages.run("latency") as details:
            latency = (*latency, _cuda_latency(parts, answers["cuda"]))
            details[CUDA] = f"p50 {latency[-1].p50_ms:.2f} ms"
    with stages.run("reference") as details:
        rows = _reference(staging_folder, parts, request, next(iter(answers.values())))
        details["rows"] = rows
    with stages.run("golden") as details:
        cases = golden_cases(parts.engines, parts.tokenizer, golden_texts(request.gate_rows.texts))
        write_golden(staging_folder / GOLDEN, cases)
        details["cases"] = len(cases)
    variants = {name: _variant(name, parts, cases) for name in parts.graphs}
    inputs, outputs = declared(next(iter(parts.graphs.values())))
    return BundleContent(
        request=request,
        source=_source(request),
        variants=variants,
        inputs=inputs,
        outputs=outputs,
        quality=quality,
        latency=latency,
        answers=answers,
        stages=tuple(stages.done),
        reference_rows=rows,
        created=datetime.now(UTC),
        search=parts.search,
        plan=parts.plan,
    )


def finish(
    staging_folder: Path, content: BundleContent, name: str, version: str, challenge: Challenge | None = None
) -> Manifest:
    """Write ``card.md`` and ``report.html`` of the version that was allotted; returns the manifest of all files."""
    known = manifest(content, file_entries(staging_folder), name, version, challenge)
    card = card_of(known)
    (staging_folder / "card.md").write_text(as_markdown(card), encoding="utf-8")
    (staging_folder / "report.html").write_text(
        as_html(card, known, mistakes(pq.read_table(staging_folder / REFERENCE), content.request.checkpoint.task)),
        encoding="utf-8",
    )
    return known.model_copy(update={"files": file_entries(staging_folder)})


def manifest(
    content: BundleContent, files: dict[str, FileEntry], name: str, version: str, challenge: Challenge | None = None
) -> Manifest:
    checkpoint = content.request.checkpoint
    return Manifest(
        name=name,
        version=version,
        task=checkpoint.task.name,
        task_settings=dict(checkpoint.task.settings),
        paired=content.request.train.paired,
        labels=checkpoint.labels,
        max_length=content.request.hf_tokenizer.max_length,
        pad_id=content.request.hf_tokenizer.pad_id,
        created=content.created,
        variants=content.variants,
        inputs=content.inputs,
        outputs=content.outputs,
        files=files,
        source=content.source,
        pipeline=content.stages,
        quality=content.quality,
        unproven=not (challenge and challenge.accepted)
        and any(one.verdict == "inconclusive" for one in content.quality.values()),
        latency=content.latency,
        search=content.search,
        plan=content.plan,
        reference=Reference(rows=content.reference_rows, feature_version=FEATURE_VERSION),
        challenge=challenge,
    )


def _baseline(model: PreTrainedModel, request: ExportRequest) -> PredictedLabels:
    """What the checkpoint answers to the gate's rows, by its own tokenizer."""
    task, rows = request.checkpoint.task, request.gate_rows
    logits = own_logits(model, request.hf_tokenizer, rows.texts)
    return predicted(logits, request.checkpoint.labels, task, own_tokens(request.hf_tokenizer, rows, task))


def _judge(
    baseline: PredictedLabels, parts: BuiltVariants, request: ExportRequest
) -> tuple[dict[VariantName, Quality], dict[VariantName, Answers]]:
    labels, task, rows = request.checkpoint.labels, request.checkpoint.task, request.gate_rows
    quality: dict[VariantName, Quality] = {}
    answers: dict[VariantName, Answers] = {}
    for name, engine in parts.engines.items():
        answers[name] = answer(engine, parts.tokenizer, rows.texts, labels, task)
        tokens = answers[name].tokens
        some = tokens[:_BATCH_FLIP_ROWS]
        quality[name] = judge_quality(
            baseline,
            predicted(answers[name].outputs.logits, labels, task, tokens),
            predicted(batched_logits(engine, some), labels, task, some).labels,
            rows.targets,
            rows.texts,
            task=task,
            max_drop=request.max_drop,
            trained_on=request.trained_on,
        )
    return quality, answers


def _cuda_latency(parts: BuiltVariants, judged: Answers) -> Latency:
    tokens = spread_out(judged.tokens)
    timed = time_in_turns({CUDA: engine_run(parts.engines["cuda"])}, tokens)[CUDA]
    middle = sorted(map(len, tokens))[len(tokens) // 2]
    return timed.latency(CUDA, graph_bytes(parts.graphs["cuda"]), f"{processor()} and CUDA", middle)


def _reference(staging_folder: Path, parts: BuiltVariants, request: ExportRequest, judged: Answers) -> int:
    """Write the reference; rows that the gate has run already are not run again."""
    row_of = {text: row for row, text in enumerate(judged.texts)}
    others = sorted({text for text, _ in request.reference_rows} - row_of.keys(), key=split)
    labels, task = request.checkpoint.labels, request.checkpoint.task
    if others:
        engine = next(iter(parts.engines.values()))
        judged = joined([judged, answer(engine, parts.tokenizer, others, labels, task)], labels, task)
        row_of = {text: row for row, text in enumerate(judged.texts)}
    table = reference_table(judged, [None] * len(judged.texts))
    table = table.take([row_of[text] for text, _ in request.reference_rows])
    targets = [target for _, target in request.reference_rows]
    column = table.schema.get_field_index("target")
    told = pa.array(targets, pa.string())  # a column without a value has no type of its own
    write_reference(staging_folder / REFERENCE, table.set_column(column, table.schema.field(column), told))
    return len(targets)


def _variant(name: VariantName, parts: BuiltVariants, cases: Sequence[Golden]) -> Variant:
    precision = parts.precision[name]
    measured_on = instruction_set() if name == "cpu" else _compute_capability()
    return Variant(
        file=parts.graphs[name].name,
        precision=precision,
        instruction_set=measured_on,
        golden_atol=golden_atol(cases, name, precision),
    )


def _compute_capability() -> str:
    import torch

    if not torch.cuda.is_available():  # ONNX Runtime may have CUDA where PyTorch was built without it
        return "cuda"
    return "sm_{}{}".format(*torch.cuda.get_device_capability())


def _source(request: ExportRequest) -> Source:
    return Source(
        checkpoint_sha256=request.digest,
        base_model=request.checkpoint.base_model,
        libraries=libraries(),
        seed=request.seed,
        arguments=request.arguments,
    )


def libraries() -> dict[str, str]:
    """The versions of what a graph's bytes depend on."""
    return {name: library_version(name) for name in _LIBRARIES} | {"onnxruntime": onnxruntime.__version__}
