"""Export: what a bundle holds, that it tells the truth, and that failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from onnxruntime.transformers.float16 import convert_float_to_float16

from export import build as build_module
from export import variants as variants_module
from export.checkpoint.load import checkpoint_digest, kept_checkpoint, read_checkpoint
from export.checkpoint.tokenizer import CheckpointTokenizer, load_tokenizer
from export.errors import CheckpointError, DiskFull, ParityError
from export.graph import files as graphs_module
from export.graph import half as half_module
from export.graph.half import CudaPrecision, fuse, to_bfloat16
from export.graph.onnx import declared, export_onnx, load_model
from export.graph.parity import check_parity
from export.graph.projections import join_projections
from export.graph.quantize import DYNAMIC, FLOAT, PER_TENSOR, STATIC, UNSIGNED, check_padding, multiplications, quantize
from export.hardware import has_native_bfloat16, instruction_set, saturates
from export.inference.predict import load_engine
from export.pipeline import Exported, some_rows, untrained
from service.contract.bundle import Scheme, open_bundle
from service.contract.dataset import Dataset
from service.contract.errors import BundleError, DatasetError, InvalidInput, Refused
from service.contract.record import REFERENCE_SCHEMA
from service.contract.repository import read_serving, versions
from service.engine import Engine
from service.tasks.classification import correct
from service.tasks.tokenizer import TextTokenizer, Tokens
from tests.export.conftest import Trained, exported, sentences
from tests.processes import plumbline

TEXTS = [Tokens([3] * count, [0] * count, truncated=False, unk_share=0.0) for count in (2, 9, 24)]
AS_SERVED = {"max_length": 24, "pad_id": 0, "seed": 0}


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
    assert {"card.md", "report.html", bundle.manifest.variants["cpu"].file} <= bundle.manifest.files.keys()
    assert sorted(file.name for file in bundle.path.iterdir()) == sorted({*bundle.manifest.files, "manifest.json"})


def test_the_manifest_names_every_stage_in_order(done: Exported) -> None:
    stages = done.bundle.manifest.pipeline
    assert [one.name for one in stages] == [
        "search",
        "parity",
        "gate",
        "reference",
        "golden",
    ]
    assert stages[0].details["ended"] == "pruning was not wanted"


def test_inputs_and_outputs_are_declared_with_dynamic_axes(done: Exported) -> None:
    manifest = done.bundle.manifest
    assert {one.name: (one.dtype, one.shape) for one in manifest.inputs} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), ("int64", ("batch", "length"))
    )
    assert [(one.name, one.dtype, one.shape[0]) for one in manifest.outputs] == [
        ("logits", "float32", "batch"),
        ("embedding", "float32", "batch"),
    ]
    assert declared(done.bundle.file(manifest.variants["cpu"].file))[0] == manifest.inputs


def test_a_bundle_gives_its_golden_logits(done: Exported) -> None:
    manifest, bundle = done.bundle.manifest, done.bundle
    variant = manifest.variants["cpu"]
    engine = load_engine(bundle.file(variant.file), device="cpu", threads=1, max_length=manifest.max_length, pad_id=0)
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
    assert [one.name for one in done.bundle.manifest.latency] == [
        "torch fp32",
        "onnxruntime fp32",
        "onnxruntime int8",
        "unpruned int8",
        "cpu variant",
    ]
    for one in done.bundle.manifest.latency:
        assert one.p50_range_ms is not None
        assert 0 < one.p50_range_ms[0] <= one.p50_ms <= one.p50_range_ms[1] <= one.p95_ms
        assert one.bytes > 0


def test_the_checkpoint_is_kept_by_its_digest(done: Exported, trained: Trained) -> None:
    digest = done.bundle.manifest.source.checkpoint_sha256
    assert digest == checkpoint_digest(trained.checkpoint)
    kept = kept_checkpoint(done.bundle.path.parent.parent, "tiny", digest)
    assert checkpoint_digest(kept) == digest


def test_the_report_is_one_page_without_scripts_or_links(done: Exported) -> None:
    page = done.bundle.file("report.html").read_text()
    assert "<h1>tiny, version 1</h1>" in page
    assert done.bundle.file("card.md").read_text().startswith("# tiny, version 1\n")
    assert "Quality" in page
    page = re.sub(r'<link rel="icon" href="data:[^"]*">', "", page)
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
    assert check_parity(model, raw, TEXTS, **AS_SERVED).largest_difference < 1e-4
    with pytest.raises(ParityError, match=r"on 1 rows of 8 tokens: (logits|embedding) differs"):
        check_parity(model, tmp_path / "altered.onnx", TEXTS, **AS_SERVED)


def test_quantizing_nothing_is_an_error(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "none",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "none.onnx")
    with pytest.raises(ParityError, match="changed nothing"):
        quantize(tmp_path / "none.onnx", tmp_path, DYNAMIC, target="avx2")


def test_weights_keep_to_seven_bits_where_products_can_saturate(raw: Path, tmp_path: Path) -> None:
    largest = {}
    for target in ("avx2", "avx512_vnni"):
        made = quantize(raw, tmp_path, DYNAMIC, target=target)
        assert made.matmuls >= 12
        tensors = onnx.load(made.file).graph.initializer
        int8 = [onnx.numpy_helper.to_array(one) for one in tensors if one.data_type == onnx.TensorProto.INT8]
        largest[target] = max(int(np.abs(one.astype(int)).max()) for one in int8 if one.ndim == 2)
    assert largest["avx2"] <= 64 < largest["avx512_vnni"]


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16"), ("fp32", "FLOAT")])
def test_the_graph_for_cuda_is_fused_and_keeps_its_inputs_and_outputs(
    raw: Path, tmp_path: Path, precision: CudaPrecision, kind: str
) -> None:
    made = fuse(raw, tmp_path, precision)
    assert made.operators["Attention"] == 2
    assert made.operators["SkipLayerNormalization"] >= 3
    assert declared(made.file) == declared(raw)
    weights = [one.data_type for one in onnx.load(made.file).graph.initializer]
    assert weights.count(onnx.TensorProto.DataType.Value(kind)) > 10
    with contextlib.suppress(NoKernel):  # the CPU lacks bfloat16; wrong types would be InvalidGraph
        ort.InferenceSession(made.file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_what_is_fused_for_cuda_sees_no_padding(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: CudaPrecision
) -> None:
    """On the CPU, which knows fp16: what is fused for bfloat16 is run in that."""
    monkeypatch.setattr(half_module, "to_bfloat16", lambda _: None)
    graph = fuse(raw, tmp_path, precision).file
    short, long = (Tokens([3] * count, [0] * count, truncated=False, unk_share=0.0) for count in (4, 16))
    wanted = load_engine(raw, device="cpu", threads=1, max_length=24, pad_id=0).run([short]).logits[0]
    given = load_engine(graph, device="cpu", threads=1, max_length=24, pad_id=0).run([long, short]).logits[1]
    assert np.abs(given - wanted).max() < 0.01 * np.abs(wanted).max()


def test_bfloat16_gives_about_the_same_answers(raw: Path) -> None:
    model = convert_float_to_float16(onnx.load(raw), keep_io_types=True)
    to_bfloat16(model)
    feeds = {value.name: np.full((2, 6), 1, dtype=np.int64) for value in model.graph.input}
    (wanted,) = ort.InferenceSession(raw, providers=["CPUExecutionProvider"]).run(["logits"], feeds)
    (given,) = ReferenceEvaluator(model).run(["logits"], feeds)
    assert given.dtype == np.float32
    assert 0 < np.abs(given - wanted).max() < 0.05 * np.abs(wanted).max()


def test_what_has_no_kernel_for_bfloat16_stays_in_float32(raw: Path, tmp_path: Path) -> None:
    """Clip (of the mask's sum, where hidden states are averaged) would be taken apart, and the graph not load."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(fuse(raw, tmp_path, "bf16").file)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    clipped = [kinds[node.output[0]] for node in graph.node if node.op_type == "Clip"]
    assert clipped
    assert set(clipped) == {onnx.TensorProto.FLOAT}


@pytest.fixture
def cuda_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that has bfloat16, with the CPU's kernels, which cannot load it."""
    monkeypatch.setattr(variants_module, "load_engine", partial(on_the_cpu, load_engine))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


def on_the_cpu(load: Callable[..., Engine], graph: Path, **options: object) -> Engine:
    return load(graph, **options | {"device": "cpu"})


def overflows_in_fp16(engine: Engine, cases: list[Tokens], what: str) -> None:
    """The CPU computes what is in fp16 in float32, where nothing overflows."""
    if what == "model.fp16.onnx":
        raise ParityError("model.fp16.onnx gives NaN or infinity on a whole row.")
    check_padding(engine, cases, what=what)


@pytest.mark.usefixtures("cuda_is_the_cpu")
def test_cuda_gets_fp16_where_its_range_is_enough(raw: Path, trained: Trained, tmp_path: Path) -> None:
    hf_tokenizer = CheckpointTokenizer(load_tokenizer(str(trained.checkpoint), local=True), 24, 0)
    assert variants_module._cuda(raw, tmp_path, hf_tokenizer, TEXTS).precision == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["model.fp16.onnx"]


@pytest.mark.usefixtures("cuda_is_the_cpu")
def test_where_fp16_overflows_bfloat16_is_tried_and_where_that_does_not_load_fp32_is_taken(
    raw: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(variants_module, "check_padding", overflows_in_fp16)
    hf_tokenizer = CheckpointTokenizer(load_tokenizer(str(trained.checkpoint), local=True), 24, 0)
    made = variants_module._cuda(raw, tmp_path, hf_tokenizer, TEXTS)
    assert made.precision == "fp32"
    assert [path.name for path in tmp_path.iterdir()] == ["model.cuda.onnx"]
    for part in (
        "model.fp16.onnx gives NaN or infinity",
        "exported in bf16 instead",
        "model.bf16.onnx cannot be loaded",
        "exported in fp32 instead",
    ):
        assert part in caplog.text


def test_what_overflows_even_in_fp32_is_refused(
    raw: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_args: object, **_named: object) -> None:
        raise ParityError("the graph gives NaN or infinity on a whole row.")

    monkeypatch.setattr(variants_module, "load_engine", lambda *_args, **_options: None)
    monkeypatch.setattr(variants_module, "check_padding", overflow)
    hf_tokenizer = CheckpointTokenizer(load_tokenizer(str(trained.checkpoint), local=True), 24, 0)
    with pytest.raises(ParityError, match="NaN"):
        variants_module._cuda(raw, tmp_path, hf_tokenizer, TEXTS)


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
    return sorted(entry.name for entry in (repo / "tiny").iterdir() if not entry.name.startswith((".lock", ".search-")))


def searches(repo: Path) -> list[Path]:
    return list((repo / "tiny").glob(".search-*"))


def test_strictly_an_inconclusive_gate_publishes_nothing(trained: Trained, tmp_path: Path) -> None:
    few = Trained(trained.checkpoint, trained.train, sentences(20, 9))
    with pytest.raises(Refused, match=r"inconclusive.*eval rows.*leave out --strict"):
        exported(few, tmp_path, max_drop=0.5, strict=True)
    assert left(tmp_path) == []
    assert len(searches(tmp_path)) == 1  # so that accepting it now costs no second search
    assert exported(few, tmp_path, max_drop=0.5).bundle.manifest.version == "1"
    assert searches(tmp_path) == []


def test_what_is_unproven_is_marked_and_goes_live_only_where_nothing_is(trained: Trained, tmp_path: Path) -> None:
    few = Trained(trained.checkpoint, trained.train, sentences(20, 9))
    first, second, third = (exported(few, tmp_path, max_drop=0.5, live=live) for live in (None, None, True))
    made = first.bundle.manifest
    assert (made.quality["cpu"].verdict, made.unproven) == ("inconclusive", True)
    assert [one.live for one in (first, second, third)] == [True, False, True]
    assert "cpu: unproven. 20 rows could not show" in (first.bundle.path / "card.md").read_text()


def test_what_is_proven_goes_live_unless_told(trained: Trained, repo: Path) -> None:
    assert not exported(trained, repo, max_drop=5.0).bundle.manifest.unproven
    assert read_serving(repo, "tiny").live == "2"
    assert not exported(trained, repo, max_drop=5.0, live=False).live
    assert read_serving(repo, "tiny").live == "2"


def test_eval_rows_that_were_trained_on_do_not_judge(trained: Trained, tmp_path: Path) -> None:
    mixed = Dataset(
        [*trained.evaluation.texts[:60], *(text.upper() for text in trained.train.texts[:40])],
        [*trained.evaluation.targets[:60], *trained.train.targets[:40]],
    )
    made = exported(Trained(trained.checkpoint, trained.train, mixed), tmp_path).bundle
    quality = made.manifest.quality["cpu"]
    assert quality.rows <= 60
    assert quality.rows + quality.trained_on == 100
    assert "also occur in the training data; they did not judge" in (made.path / "card.md").read_text()


def test_a_checkpoint_no_better_than_its_most_frequent_label_is_refused(trained: Trained, tmp_path: Path) -> None:
    swapped = Dataset(trained.evaluation.texts, ["positive"] * 299 + ["negative"])
    wrong = Trained(trained.checkpoint, trained.train, swapped)
    with pytest.raises(Refused, match=r"always answering 'positive' would have 0.99.*--allow-weak"):
        exported(wrong, tmp_path)
    assert left(tmp_path) == []
    assert searches(tmp_path) == []
    made = exported(wrong, tmp_path, weak=True).bundle
    assert "no better than the same answer to every text" in (made.path / "card.md").read_text()


def test_the_same_version_is_judged_by_more_rows(trained: Trained, tmp_path: Path) -> None:
    few = Trained(trained.checkpoint, trained.train, sentences(30, 9))
    first = exported(few, tmp_path, seed=3).bundle
    more = exported(trained, tmp_path, like="1").bundle
    file = first.manifest.variants["cpu"].file
    assert more.manifest.files[file].sha256 == first.manifest.files[file].sha256
    assert more.manifest.quality["cpu"].rows > first.manifest.quality["cpu"].rows
    assert more.manifest.search is None
    with pytest.raises(InvalidInput, match="other training rows"):
        exported(Trained(trained.checkpoint, sentences(400, 77), trained.evaluation), tmp_path, like="1")
    with pytest.raises(BundleError, match="no bundle"):
        exported(trained, tmp_path, like="9")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["make_variants", "_judge", "write_reference", "write_golden"])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), DiskFull), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_full_disk_or_an_interruption_leaves_the_repository_as_it_was(
    trained: Trained,
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    failure: BaseException,
    raised: type[BaseException],
) -> None:
    before = left(repo)

    def fail(*_args: object, **_options: object) -> None:
        raise failure

    monkeypatch.setattr(build_module, stage, fail)
    with pytest.raises(raised):
        exported(trained, repo)
    assert left(repo) == before == ["1", "checkpoints", "serving.json"]
    assert open_bundle(repo / "tiny" / "1")
    assert bool(searches(repo)) == (stage != "make_variants")  # what was found by then is kept


def test_labels_that_disagree_with_the_data(trained: Trained, tmp_path: Path) -> None:
    other = Dataset(["a", "b"], ["negative", "great"])
    with pytest.raises(DatasetError, match="'great'"):
        exported(Trained(trained.checkpoint, trained.train, other), tmp_path)
    both = Dataset(["a", "b"], ["negative", "negative|positive"])
    with pytest.raises(DatasetError, match="several labels"):
        exported(Trained(trained.checkpoint, trained.train, both), tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_checkpoint_that_lacks_a_file(trained: Trained, tmp_path: Path, missing: str) -> None:
    shutil.copytree(trained.checkpoint, tmp_path / "cut")
    (tmp_path / "cut" / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        exported(Trained(tmp_path / "cut", trained.train, trained.evaluation), tmp_path / "models")
    assert versions(tmp_path / "models", "tiny") == []


def test_nothing_int8_is_no_int8(raw: Path, tmp_path: Path) -> None:
    """Half of the multiplications have int8 weights, and what counts is what still has after optimisation."""
    nodes = multiplications(onnx.load(raw))
    half = Scheme(method="dynamic", float_nodes=tuple(nodes[: len(nodes) // 2]))
    assert quantize(raw, tmp_path, half, target="avx512_vnni").matmuls == len(nodes) - len(nodes) // 2
    none = Scheme(method="dynamic", float_nodes=tuple(nodes))
    with pytest.raises(ParityError, match="no multiplication runs in int8"):
        quantize(raw, tmp_path, none, target="avx512_vnni")
    assert quantize(raw, tmp_path, FLOAT, target="avx512_vnni").matmuls == 0


@pytest.mark.parametrize("scheme", [DYNAMIC, PER_TENSOR, UNSIGNED, STATIC])
def test_every_scheme_quantizes_every_multiplication_and_keeps_the_answers(
    raw: Path, trained: Trained, tmp_path: Path, scheme: Scheme
) -> None:
    joined = tmp_path / "joined.onnx"
    assert join_projections(raw, joined) == 4  # two layers; query, key and value become one
    tokens = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.evaluation.texts[:40])
    feeds = [
        {
            name: np.array([row], dtype=np.int64)
            for name, row in (
                ("input_ids", one.ids),
                ("attention_mask", [1] * len(one)),
                ("token_type_ids", one.type_ids),
            )
        }
        for one in tokens
    ]
    made = quantize(joined, tmp_path, scheme, target="avx512_vnni", calibration=feeds)
    assert made.matmuls == len(multiplications(onnx.load(joined))) == 10
    before, after = (load_engine(file, device="cpu", threads=1, max_length=24, pad_id=0) for file in (raw, made.file))
    for one in tokens:
        assert before.run([one]).logits.argmax() == after.run([one]).logits.argmax()


def test_joined_projections_change_no_number(raw: Path, trained: Trained, tmp_path: Path) -> None:
    join_projections(raw, tmp_path / "joined.onnx")
    tokens = TextTokenizer(trained.checkpoint / "tokenizer.json", 24)(trained.evaluation.texts[:9])
    before, after = (
        load_engine(file, device="cpu", threads=1, max_length=24, pad_id=0) for file in (raw, tmp_path / "joined.onnx")
    )
    np.testing.assert_allclose(before.run(tokens).logits, after.run(tokens).logits, atol=1e-5)


def test_an_int8_that_is_slower_than_float_is_not_taken(done: Exported) -> None:
    """Whatever was taken, nothing inside the tolerance was faster by more than the error of the measured times."""
    search = done.bundle.manifest.search
    assert search is not None
    taken = next(one for one in search.candidates if one.chosen)
    first = min((one for one in search.candidates if one.difference >= 0), key=lambda one: one.p50_ms)
    assert taken.p50_range_ms[0] <= first.p50_range_ms[1]


def test_the_search_sees_the_same_thousand_rows_each_time() -> None:
    rows = sentences(1_500, 2)
    some = some_rows(rows)
    assert len(some) == 1_000
    assert some_rows(rows) == some
    assert some_rows(sentences(300, 2)) == sentences(300, 2)
    with pytest.raises(DatasetError, match="at least 3"):
        untrained(Dataset(["nothing of that"], ["a"]), sentences(2, 1), "eval")


def test_rows_given_for_the_search_leave_all_eval_rows_to_the_gate(trained: Trained, tmp_path: Path) -> None:
    made = exported(trained, tmp_path, search_rows=sentences(50, 17)).bundle.manifest
    assert made.quality["cpu"].rows == 300
    assert made.search is not None
    assert made.search.rows == 50


def test_the_weights_of_a_large_model_are_a_file_of_their_own_and_verified(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A protobuf file ends at 2 GiB; here at 10 kB."""
    monkeypatch.setattr(graphs_module, "LARGEST", 10_000)
    bundle = exported(trained, tmp_path).bundle
    variant = bundle.manifest.variants["cpu"]
    weights = bundle.file(f"{variant.file}.data")
    assert weights.stat().st_size > 10_000 > bundle.file(variant.file).stat().st_size / 10
    assert weights.name in bundle.manifest.files
    engine = load_engine(bundle.file(variant.file), device="cpu", threads=1, max_length=24, pad_id=0)
    tokenizer = TextTokenizer(bundle.file("tokenizer.json"), 24)
    case = bundle.golden()[-1]
    np.testing.assert_allclose(engine.run(tokenizer([case.text])).logits[0], case.logits["cpu"], atol=1e-5)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=weights.name):
        open_bundle(bundle.path)


def test_a_sharded_checkpoint_is_exported_whole(trained: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.checkpoint, tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    load_model(read_checkpoint(trained.checkpoint)).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    made = exported(Trained(folder, trained.train, trained.evaluation), tmp_path / "models").bundle.manifest
    assert made.quality["cpu"].flips <= 1
    shard = next(folder.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert checkpoint_digest(folder) != made.source.checkpoint_sha256


@pytest.mark.slow
def test_two_exports_of_one_name_at_once_both_get_their_version(trained: Trained, tmp_path: Path) -> None:
    """The same search: the second one cannot have the first one's folder and makes do with its own."""
    for name, rows in (("train", trained.train), ("eval", trained.evaluation)):
        lines = [
            json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, rows.targets, strict=True)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    arguments = [
        "export",
        str(trained.checkpoint),
        "--train",
        str(tmp_path / "train.jsonl"),
        "--eval",
        str(tmp_path / "eval.jsonl"),
        "--repo",
        str(tmp_path / "models"),
        "--name",
        "tiny",
        "--no-prune",
        "--max-drop",
        "5",
    ]
    command = plumbline(*arguments)
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=300)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert versions(tmp_path / "models", "tiny") == ["1", "2"]
    assert searches(tmp_path / "models") == []
    for version in ("1", "2"):
        open_bundle(tmp_path / "models" / "tiny" / version)


def test_parity_notices_axes_that_were_fixed(raw: Path, trained: Trained, tmp_path: Path) -> None:
    graph = onnx.load(raw)
    for value in graph.graph.input:
        value.type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(graph, tmp_path / "fixed.onnx")
    with pytest.raises(ParityError, match="fails on 1 rows of 16 tokens"):
        check_parity(load_model(read_checkpoint(trained.checkpoint)), tmp_path / "fixed.onnx", TEXTS, **AS_SERVED)


def test_nan_on_padded_rows_is_noticed(raw: Path, tmp_path: Path) -> None:
    """What half precision does where a mask constant overflows: here the mask itself is divided by."""
    graph = onnx.load(raw)
    names = [node.output[0] for node in graph.graph.node]
    last = graph.graph.node[names.index("logits")]
    last.output[0] = "sane"
    extra = [
        onnx.helper.make_node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMin", ["mask"], ["least"], keepdims=0),
        onnx.helper.make_node("Log", ["least"], ["infinite"]),
        onnx.helper.make_node("Add", ["sane", "infinite"], ["logits"]),
    ]
    graph.graph.node.extend(extra)
    onnx.save(graph, tmp_path / "nan.onnx")
    engine = load_engine(tmp_path / "nan.onnx", device="cpu", threads=1, max_length=24, pad_id=0)
    with pytest.raises(ParityError, match=r"nan.onnx gives NaN or infinity"):
        check_padding(engine, TEXTS, what="nan.onnx")
    check_padding(load_engine(raw, device="cpu", threads=1, max_length=24, pad_id=0), TEXTS, what="raw")


def test_attention_that_was_not_fused_is_told(raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert fuse(raw, tmp_path, "fp16").operators["Attention"] == 2
    assert "no attention was fused" not in caplog.text
    join_projections(raw, tmp_path / "joined.onnx")  # a form that the optimizer does not know
    assert "Attention" not in fuse(tmp_path / "joined.onnx", tmp_path, "fp16").operators
    assert "no attention was fused" in caplog.text
