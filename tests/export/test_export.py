"""Export: what a bundle holds, that it tells the truth, and that failure leaves nothing behind."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest

from export import build as build_module
from export.checkpoint import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.errors import CheckpointError, DiskFull, ParityError
from export.hardware import has_native_bfloat16, instruction_set, saturates
from export.onnx import declared, export_onnx, load_model
from export.parity import check_parity
from export.pipeline import Exported
from export.predict import load_engine
from export.quantize import fuse_fp16, quantize_int8
from service.contract.bundle import open_bundle
from service.contract.classify import correct
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError, Refused
from service.contract.record import REFERENCE_SCHEMA
from service.contract.repository import read_serving, versions
from service.tokenizer import TextTokenizer
from tests.export.conftest import Trained, exported, sentences


@pytest.fixture
def done(published: Exported) -> Exported:
    return published


@pytest.fixture(scope="module")
def raw(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(load_model(read_checkpoint(trained.checkpoint)), tmp_path_factory.mktemp("raw"))


def test_the_bundle_is_whole_and_live(done: Exported) -> None:
    bundle = open_bundle(done.bundle.path)
    assert bundle.digest == done.bundle.digest
    assert read_serving(bundle.path.parent.parent, "tiny").live == "1"
    assert {"card.md", "report.html", "model.int8.onnx"} <= bundle.manifest.files.keys()
    assert sorted(file.name for file in bundle.path.iterdir()) == sorted({*bundle.manifest.files, "manifest.json"})


def test_the_manifest_names_every_stage_in_order(done: Exported) -> None:
    stages = done.bundle.manifest.pipeline
    assert [one.name for one in stages] == [
        "prune", "onnx", "quantize", "parity", "gate", "latency", "reference", "golden",
    ]  # fmt: skip
    assert not stages[0].applied
    assert stages[0].details["reason"]


def test_inputs_and_outputs_are_declared_with_dynamic_axes(done: Exported) -> None:
    manifest = done.bundle.manifest
    assert {one.name: (one.dtype, one.shape) for one in manifest.inputs} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), ("int64", ("batch", "length"))
    )
    assert [(one.name, one.dtype, one.shape[0]) for one in manifest.outputs] == [
        ("logits", "float32", "batch"), ("embedding", "float32", "batch"),
    ]  # fmt: skip
    assert declared(done.bundle.file("model.int8.onnx"))[0] == manifest.inputs


def test_a_bundle_gives_its_golden_logits(done: Exported) -> None:
    manifest, bundle = done.bundle.manifest, done.bundle
    variant = manifest.variants["cpu"]
    engine = load_engine(bundle.file(variant.file), device="cpu", threads=1, max_length=manifest.max_length)
    tokenizer = TextTokenizer(bundle.file("tokenizer.json"), manifest.max_length)
    cases = bundle.golden()
    assert "" in [case.text for case in cases]
    assert len(cases) >= 12
    for case in cases:
        np.testing.assert_allclose(engine.run(tokenizer([case.text])).logits[0], case.logits["cpu"], atol=1e-5)
    assert variant.golden_atol < 0.1 * max(abs(logit) for case in cases for logit in case.logits["cpu"])


def test_the_reference_holds_the_eval_rows_as_the_model_sees_them(done: Exported, trained: Trained) -> None:
    table = pq.read_table(done.bundle.file("reference.parquet"))
    assert table.schema.equals(REFERENCE_SCHEMA)
    assert table.num_rows == done.bundle.manifest.reference.rows
    assert set(table.column("text").to_pylist()) <= set(trained.evaluation.texts)
    agreement = correct(table.column("label").to_pylist(), table.column("target").to_pylist()).mean()
    assert agreement == pytest.approx(done.bundle.manifest.quality["cpu"].exported, abs=0.02)


def test_quality_and_latency_are_measured(done: Exported) -> None:
    quality = done.bundle.manifest.quality["cpu"]
    assert quality.rows == 300
    assert quality.baseline > 0.9
    assert quality.lower_bound < quality.difference
    assert [one.name for one in done.bundle.manifest.latency] == ["torch fp32", "onnxruntime fp32", "onnxruntime int8"]
    assert all(0 < one.p50_ms <= one.p95_ms and one.bytes > 0 for one in done.bundle.manifest.latency)


def test_the_checkpoint_is_kept_by_its_digest(done: Exported, trained: Trained) -> None:
    digest = done.bundle.manifest.source.checkpoint_sha256
    assert digest == checkpoint_digest(trained.checkpoint)
    kept = kept_checkpoint(done.bundle.path.parent.parent, "tiny", digest)
    assert checkpoint_digest(kept) == digest


def test_the_report_is_one_page_without_scripts_or_links(done: Exported) -> None:
    page = done.bundle.file("report.html").read_text()
    assert "Quality" in page
    assert not re.search(r"<script|src=|href=|https?:", page)


def test_exporting_twice_gives_the_same_graph(raw: Path, trained: Trained, tmp_path: Path) -> None:
    again = export_onnx(load_model(read_checkpoint(trained.checkpoint)), tmp_path)
    assert again.read_bytes() == raw.read_bytes()
    assert str(tmp_path).encode() not in raw.read_bytes()


def test_the_embedding_is_the_masked_mean_of_the_last_hidden_state(raw: Path) -> None:
    session = ort.InferenceSession(raw, providers=["CPUExecutionProvider"])
    ids = np.array([[2, 40, 41, 3, 0, 0]])
    mask = (ids != 0).astype(np.int64)
    long = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0})[0]
    short = {"input_ids": ids[:, :4], "attention_mask": mask[:, :4], "token_type_ids": ids[:, :4] * 0}
    np.testing.assert_allclose(long, session.run(["embedding"], short)[0], atol=1e-5)
    assert long.shape == (1, 32)


def test_parity_notices_an_altered_weight_and_names_the_shape(raw: Path, trained: Trained, tmp_path: Path) -> None:
    graph = onnx.load(raw)
    weights = next(tensor for tensor in graph.graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] == 32)
    array = -onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    onnx.save(graph, tmp_path / "altered.onnx")
    model = load_model(read_checkpoint(trained.checkpoint))
    assert check_parity(model, raw, 24, seed=0).largest_difference < 1e-4
    with pytest.raises(ParityError, match=r"on 1 rows of 2 tokens: (logits|embedding) differs"):
        check_parity(model, tmp_path / "altered.onnx", 24, seed=0)


def test_quantizing_nothing_is_an_error(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "none",
        [value("x", onnx.TensorProto.FLOAT, [1])], [value("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "none.onnx")
    with pytest.raises(ParityError, match="quantization changed nothing"):
        quantize_int8(tmp_path / "none.onnx", tmp_path, target="avx2")


def test_weights_keep_to_seven_bits_where_products_can_saturate(raw: Path, tmp_path: Path) -> None:
    largest = {}
    for target in ("avx2", "avx512_vnni"):
        made = quantize_int8(raw, tmp_path, target=target)
        assert made.matmuls >= 12
        assert made.gathers >= 1
        tensors = onnx.load(made.file).graph.initializer
        int8 = [onnx.numpy_helper.to_array(one) for one in tensors if one.data_type == onnx.TensorProto.INT8]
        largest[target] = max(int(np.abs(one.astype(int)).max()) for one in int8 if one.ndim == 2)
    assert largest["avx2"] <= 64 < largest["avx512_vnni"]


def test_half_precision_is_fused_and_keeps_its_inputs_and_outputs(raw: Path, tmp_path: Path) -> None:
    made = fuse_fp16(raw, tmp_path)
    assert made.fused["SkipLayerNormalization"] >= 3
    assert declared(made.file) == declared(raw)
    halves = [one for one in onnx.load(made.file).graph.initializer if one.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) > 10


@pytest.mark.parametrize(
    ("flags", "best", "risk", "bfloat"),
    [
        ("fma avx2 avx512f avx512_vnni avx512_bf16", "avx512_vnni", False, True),
        ("fma avx2 avx_vnni", "avx_vnni", False, False),
        ("fma avx2", "avx2", True, False),
    ],
)
def test_the_instruction_set_is_read_from_the_processor(
    tmp_path: Path, flags: str, best: str, risk: bool, bfloat: bool
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu {flags}\n")
    assert (instruction_set(info), saturates(best), has_native_bfloat16(info)) == (best, risk, bfloat)


def left(repo: Path) -> list[str]:
    return sorted(entry.name for entry in (repo / "tiny").iterdir() if entry.name != ".lock")


def test_an_inconclusive_gate_publishes_nothing(trained: Trained, tmp_path: Path) -> None:
    few = Trained(trained.checkpoint, trained.train, sentences(20, 9))
    with pytest.raises(Refused, match=r"inconclusive.*eval rows would settle it"):
        exported(few, tmp_path, max_drop=0.5, allow_inconclusive=False)
    assert left(tmp_path) == []


def test_an_allowed_inconclusive_verdict_stays_on_record(trained: Trained, tmp_path: Path) -> None:
    few = Trained(trained.checkpoint, trained.train, sentences(20, 9))
    quality = exported(few, tmp_path, max_drop=0.5, live=False).bundle.manifest.quality["cpu"]
    assert (quality.verdict, quality.allowed_inconclusive) == ("inconclusive", True)
    assert not (tmp_path / "tiny" / "serving.json").exists()


@pytest.mark.parametrize("stage", ["quantize_int8", "check_parity", "write_reference", "write_golden"])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), DiskFull), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_full_disk_or_an_interruption_leaves_the_repository_as_it_was(
    trained: Trained, repo: Path, monkeypatch: pytest.MonkeyPatch, stage: str, failure: BaseException,
    raised: type[BaseException],
) -> None:  # fmt: skip
    before = left(repo)

    def fail(*_args: object, **_options: object) -> None:
        raise failure

    monkeypatch.setattr(build_module, stage, fail)
    with pytest.raises(raised):
        exported(trained, repo)
    assert left(repo) == before == ["1", "checkpoints", "serving.json"]
    assert open_bundle(repo / "tiny" / "1")


def test_labels_that_disagree_with_the_data(trained: Trained, tmp_path: Path) -> None:
    other = Dataset(["a", "b"], ["negative", "great"])
    with pytest.raises(DatasetError, match="'great'"):
        exported(Trained(trained.checkpoint, trained.train, other), tmp_path)
    both = Dataset(["a", "b"], ["negative", "negative|positive"])
    with pytest.raises(DatasetError, match="several labels"):
        exported(Trained(trained.checkpoint, trained.train, both), tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_checkpoint_that_lacks_a_file(trained: Trained, tmp_path: Path, missing: str) -> None:
    shutil.copytree(trained.checkpoint, tmp_path / "cut")
    (tmp_path / "cut" / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        exported(Trained(tmp_path / "cut", trained.train, trained.evaluation), tmp_path / "models")
    assert versions(tmp_path / "models", "tiny") == []
