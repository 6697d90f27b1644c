"""Small real things for tests: a bundle that ONNX Runtime runs, made in milliseconds without torch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from service.contract.bundle import (
    Bundle,
    Challenge,
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
from service.contract.features import FEATURE_VERSION
from service.contract.inputs import Input, TextPair, split
from service.contract.record import REFERENCE_SCHEMA
from service.contract.repository import publish, set_live, staging
from service.engine import Engine
from service.tasks import SINGLE_LABEL, Task
from service.tasks.observation import observe
from service.tasks.tokenizer import TextTokenizer

WORDS = {"positive": ("good", "great", "fine"), "negative": ("bad", "awful", "poor"), "neutral": ("okay", "so")}
TAGS = ("O", "B-positive", "B-negative")  # of a model that finds words as entities
FILLERS = ("the", "film", "was", "a", "and", "it", "very", "!", ".", "😀", "שלום")
INPUTS, WIDTH = ("input_ids", "attention_mask"), 8
MODEL = "model.int8.onnx"
INT8 = Variant(file=MODEL, precision="int8", instruction_set="avx2", golden_atol=0.05)


def write_tokenizer(path: Path) -> list[str]:
    """A WordPiece tokenizer over the words above; returns the vocabulary."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS, *(word for words in WORDS.values() for word in words)]
    tokenizer = Tokenizer(WordPiece({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    tokenizer.add_special_tokens(vocabulary[:4])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(path))
    return vocabulary


def write_model(
    path: Path,
    vocabulary: list[str],
    labels: Sequence[str],
    seed: int,
    *,
    per_token: bool = False,
    vector: bool = False,
) -> None:
    """A bag of words in ONNX: the mean of word vectors, in which each label's words point to its logit.

    One that says something of each token multiplies every word's vector by itself; one that gives a ``vector`` gives
    the mean.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 0.05, (len(vocabulary), WIDTH)).astype(np.float32)
    for axis, label in enumerate(labels):
        for word in WORDS.get(label.removeprefix("B-"), ("[UNK]", *FILLERS)):
            vectors[vocabulary.index(word), axis] = 8
    head = np.eye(WIDTH, len(labels), dtype=np.float32)
    constants = {"vectors": vectors, "head": head, "last": np.array([2]), "middle": np.array([1])}
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["hidden"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["hidden", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["embedding"]),
        helper.make_node("Identity", ["embedding"], ["logits"])
        if vector
        else helper.make_node("MatMul", ["hidden" if per_token else "embedding", "head"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS]
    outputs = [
        helper.make_tensor_value_info(
            "logits",
            TensorProto.FLOAT,
            ["batch", *(["sequence"] if per_token else []), WIDTH if vector else len(labels)],
        ),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "bag", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def make_bundle(
    root: Path,
    name: str = "reviews",
    *,
    labels: Sequence[str] = ("negative", "positive"),
    task: Task = SINGLE_LABEL,
    seed: int = 0,
    live: bool = True,
    golden_shift: float = 0.0,
    golden_variant: VariantName = "cpu",
    variants: Sequence[VariantName] = ("cpu",),
    challenge: Challenge | None = None,
    missing: int = 0,
    unproven: bool = False,
    reference: Sequence[str] = (),
    paired: bool = False,
) -> Bundle:
    """Publish a working bundle; ``golden_shift`` falsifies the golden logits, all variants have the same file.

    The model has no vectors for the last ``missing`` words of the vocabulary, and fails on them. Its reference holds
    the golden texts and those of ``reference``. A ``paired`` one reads each with the next.
    """
    singles = ["", "good film", "the film was awful !", "😀 שלום", "very " * 30 + "bad"]
    golden_count = len(singles)
    singles += reference
    texts: list[Input] = list(map(TextPair, singles, [*singles[1:], singles[0]])) if paired else list(singles)
    with staging(root, name) as stage:
        vocabulary = write_tokenizer(stage / "tokenizer.json")
        write_model(
            stage / MODEL,
            vocabulary[: len(vocabulary) - missing],
            labels,
            seed,
            per_token=task.per_token,
            vector=task.vector,
        )
        engine = Engine(stage / MODEL, device="cpu", threads=1, max_length=16)
        tokens = TextTokenizer(stage / "tokenizer.json", 16, placed=task.per_token)(texts)
        outputs = [engine.run([one]) for one in tokens]
        logits = np.concatenate([one.logits for one in outputs])
        seen = observe(logits, np.concatenate([one.embedding for one in outputs]), labels, task, tokens)
        golden = [
            Golden(text=text, text_pair=second, logits={golden_variant: tuple(one.logits.ravel() + golden_shift)})
            for (text, second), one in zip(map(split, texts[:golden_count]), outputs, strict=False)
        ]
        (stage / "golden.jsonl").write_text("".join(case.model_dump_json() + "\n" for case in golden))
        rows = [
            {
                "text": text,
                "text_pair": second,
                "n_tokens": len(tokens[row]),
                "truncated": tokens[row].truncated,
                "unk_share": tokens[row].unk_share,
                "label": seen.labels[row],
                "confidence": float(seen.confidence[row]),
                "probs": seen.probs[row].tolist(),
                "embedding": seen.projected[row].astype(np.float32).tolist(),
                "target": None if task.vector else seen.labels[row],
            }
            for row, (text, second) in enumerate(map(split, texts))
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=REFERENCE_SCHEMA), stage / "reference.parquet")
        bundle = publish(
            root,
            name,
            stage,
            lambda version: make_manifest(
                stage,
                version,
                name=name,
                labels=tuple(labels),
                task=task.name,
                task_settings=dict(task.settings) if task.vector else {},
                paired=paired,
                variants=dict.fromkeys(variants, INT8),
                reference=Reference(rows=len(rows), feature_version=FEATURE_VERSION),
                challenge=challenge,
                unproven=unproven,
            ),
        )
    if live:
        set_live(root, name, bundle.manifest.version)
    return bundle


def make_manifest(folder: Path, version: str = "1", **changed: Any) -> Manifest:
    """A manifest of the files in ``folder``, its fields plausible unless ``changed``."""
    files = file_entries(folder)
    labels = changed.get("labels", ("negative", "positive"))
    given: dict[str, Any] = {
        "name": "reviews",
        "version": version,
        "task": SINGLE_LABEL.name,
        "labels": labels,
        "max_length": 16,
        "created": datetime(2026, 1, 31, 7, 0, tzinfo=UTC),
        "variants": {"cpu": INT8},
        "inputs": tuple(Tensor(name=one, dtype="int64", shape=("batch", "sequence")) for one in INPUTS),
        "outputs": (
            Tensor(name="logits", dtype="float32", shape=("batch", len(labels))),
            Tensor(name="embedding", dtype="float32", shape=("batch", WIDTH)),
        ),
        "files": files,
        "source": Source(checkpoint_sha256="0" * 64, base_model="bag", libraries={}, seed=0, arguments={}),
        "pipeline": (Stage(name="onnx", applied=True, seconds=0.1),),
        "quality": {
            "cpu": Quality(
                metric="accuracy",
                baseline=0.9,
                exported=0.9,
                difference=0.0,
                lower_bound=-0.2,
                max_drop=0.5,
                verdict="inconclusive" if changed.get("unproven") else "pass",
                rows=1000,
                flips=2,
                batch_flip_rate=0.001,
            )
        },
        "latency": (
            Latency(
                name="int8",
                p50_ms=1.0,
                p95_ms=2.0,
                hardware="CPU",
                threads=1,
                batch=1,
                tokens=8,
                bytes=files[MODEL].bytes,
            ),
        ),
        "reference": Reference(rows=500, feature_version=FEATURE_VERSION),
    }
    return Manifest.model_validate(given | changed)
