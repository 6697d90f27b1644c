"""Checkpoints as people have them: what is wrong is refused in one line before any work, what can be mended is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertModel,
    T5Config,
    T5ForConditionalGeneration,
)
from typer.testing import CliRunner

from export.checkpoint.load import checkpoint_digest, kept_checkpoint, read_checkpoint, resolve_base
from export.checkpoint.weights import classifier_config
from export.errors import CheckpointError
from export.graph.onnx import load_model
from export.train.head import load_classifier, output_layer
from plumbline import cli
from service.contract.bundle import Bundle
from service.contract.dataset import Dataset, write_jsonl
from service.contract.repository import live_bundle
from service.tasks import SINGLE_LABEL
from tests.export.conftest import Trained

Change = Callable[[Path], None]


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the trained checkpoint, to be changed."""
    return shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def files(trained: Trained, tmp_path: Path) -> list[str]:
    write_jsonl(tmp_path / "train.jsonl", trained.train)
    write_jsonl(tmp_path / "eval.jsonl", trained.evaluation)
    return ["--train", str(tmp_path / "train.jsonl"), "--eval", str(tmp_path / "eval.jsonl")]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.build(), list(map(str, arguments)))


def export(folder: Path, files: list[str], *options: str) -> Result:
    given = ("--repo", folder.parent / "models", "--name", "tiny", "--no-prune", *options)
    return run("export", folder, *files, "--max-drop", "5", *given)


def exported(folder: Path, files: list[str], *options: str) -> tuple[Bundle, Result]:
    result = export(folder, files, *options)
    assert result.exit_code == 0, result.output
    return live_bundle(folder.parent / "models", "tiny"), result


def assert_refused(result: Result, *said: str) -> None:
    """In one line, as bad input."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("plumbline: ")
    for part in said:
        assert part in last


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def rename(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def without_head(folder: Path) -> None:
    rename(folder, lambda state: {name: one for name, one in state.items() if not name.startswith("classifier")})


def without_a_layer(folder: Path) -> None:
    rename(folder, lambda state: {name: one for name, one in state.items() if ".layer.1." not in name})


def under_a_name_of_its_own(folder: Path) -> None:
    rename(folder, lambda state: {f"mine.{name}": one for name, one in state.items()})


def with_a_layer_more(folder: Path) -> None:
    rename(folder, lambda state: state | {"extra.weight": torch.ones(3)})


def with_a_label_more(folder: Path) -> None:
    configure(folder, id2label={"0": "negative", "1": "positive", "2": "neither"}, label2id=None)


def of_a_regression(folder: Path) -> None:
    configure(folder, problem_type="regression", id2label={"0": "LABEL_0"}, label2id=None)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def id2label(names: dict[str, Any]) -> Change:
    return lambda folder: configure(folder, id2label=names, label2id=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_head, ["lacks weights of BertForSequenceClassification: classifier.", "save_pretrained"]),
        (without_a_layer, ["lacks weights", "bert.encoder.layer.1.", "more"]),
        (under_a_name_of_its_own, ["lacks weights"]),
        (with_a_layer_more, ["does not use: extra.weight"]),
        (with_a_label_more, ["classifier.", "(2, 32) in the file and (3, 32) by config.json", "--labels"]),
        (of_a_regression, ["regression"]),
        (pickled, ["pickled", "safe_serialization=True"]),
        (an_adapter, ["adapter", "merge_and_unload"]),
        (id2label({"0": "negative", "2": "positive"}), ["without a gap", "0, 2", "--labels"]),
        (id2label({"0": "negative", "1": "negative"}), ["label 1, 'negative', is there twice"]),
        (id2label({"0": "negative", "1": " "}), ["label 1, ' ', is empty"]),
        (id2label({"0": 0, "1": 1}), ["label 0, 0, is not a string", "--labels"]),
        (id2label({"0": "good|bad", "1": "positive"}), ["has a '|', which separates"]),
        (id2label({"0": "negative", "1": "positive "}), ["ends with a space"]),
    ],
)
def test_what_would_serve_a_wrong_model_is_refused_before_anything_is_written(
    folder: Path, files: list[str], change: Change, said: list[str]
) -> None:
    change(folder)
    assert_refused(export(folder, files), str(folder), *said)
    assert not (folder.parent / "models").exists()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_wrappers_names_are_taken_off_and_that_is_said(
    trained: Trained, folder: Path, prefix: str, sharded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if sharded:
        (folder / "model.safetensors").unlink()
        load_model(read_checkpoint(trained.checkpoint)).save_pretrained(folder, max_shard_size="20KB")
        index = folder / "model.safetensors.index.json"
        told = json.loads(index.read_text())
        told["weight_map"] = {f"{prefix}{name}": file for name, file in told["weight_map"].items()}
        index.write_text(json.dumps(told))
    for file in folder.glob("*.safetensors"):
        save_file({f"{prefix}{name}": one for name, one in load_file(file).items()}, file, {"format": "pt"})
    wanted = load_model(read_checkpoint(trained.checkpoint)).state_dict()
    with caplog.at_level("WARNING"):
        given = load_model(read_checkpoint(folder)).state_dict()
    assert f"{prefix}bert." in caplog.text
    assert all(torch.equal(wanted[name], given[name]) for name in wanted)


def test_a_compiled_checkpoint_is_exported_with_its_own_weights(folder: Path, files: list[str]) -> None:
    rename(folder, lambda state: {f"_orig_mod.{name}": one for name, one in state.items()})
    bundle, _ = exported(folder, files)
    assert bundle.manifest.quality["cpu"].baseline > 0.9


def test_two_classes_without_names_are_called_as_transformers_calls_them(
    trained: Trained, folder: Path, tmp_path: Path
) -> None:
    configure(folder, id2label=None, label2id=None)
    names = {"negative": "LABEL_0", "positive": "LABEL_1"}
    options = []
    for name, rows in (("train", trained.train), ("eval", trained.evaluation)):
        write_jsonl(tmp_path / f"{name}.jsonl", Dataset(rows.texts, [names[one] for one in rows.targets]))
        options += [f"--{name}", str(tmp_path / f"{name}.jsonl")]
    bundle, result = exported(folder, options)
    assert bundle.manifest.labels == ("LABEL_0", "LABEL_1")
    assert "they are called LABEL_0, LABEL_1" in result.stderr
    assert "--labels" in result.stderr


def test_names_given_by_hand_stay_with_the_model(folder: Path, files: list[str]) -> None:
    configure(folder, id2label=None, label2id=None)
    assert_refused(export(folder, files, "--labels", "negative,neither,positive"), "(2, 32)", "(3, 32)")
    assert_refused(export(folder, files, "--labels", "negative,negative"), "twice")
    bundle, _ = exported(folder, files, "--labels", "negative, positive")
    assert bundle.manifest.labels == ("negative", "positive")
    kept = kept_checkpoint(folder.parent / "models", "tiny", bundle.manifest.source.checkpoint_sha256)
    again = run("reproduce", bundle.path, *files[:2])
    assert again.exit_code == 0, again.output
    like = export(folder, files, "--like", "1")
    assert like.exit_code == 0, like.output
    known = load_classifier(
        str(kept), ("negative", "new", "positive"), SINGLE_LABEL, local=True, known=("negative", "positive")
    )
    before = output_layer(AutoModelForSequenceClassification.from_pretrained(kept))
    assert torch.equal(output_layer(known).weight[2], before.weight[1])


def test_names_do_not_make_a_classifier_of_a_regression(folder: Path, files: list[str]) -> None:
    configure(folder, problem_type="regression")
    assert_refused(export(folder, files, "--labels", "negative,positive"), "regression head")


def test_a_trainers_folder_is_kept_without_what_only_training_needs(folder: Path, files: list[str]) -> None:
    wanted = checkpoint_digest(folder)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"):
        (folder / name).write_bytes(b"x")
    shutil.copytree(folder, folder / "checkpoint-500")
    bundle, _ = exported(folder, files)
    assert bundle.manifest.source.checkpoint_sha256 == wanted
    kept = kept_checkpoint(folder.parent / "models", "tiny", wanted)
    assert checkpoint_digest(kept) == wanted
    assert {file.name for file in kept.iterdir()} == {
        "config.json",
        "model.safetensors",
        "plumbline.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_a_folder_of_checkpoints_is_told_from_one(folder: Path, files: list[str]) -> None:
    shutil.copytree(folder, folder / "checkpoint-500")
    (folder / "config.json").unlink()
    assert_refused(export(folder, files), "give one of checkpoint-500")


def test_an_index_that_leads_elsewhere_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"classifier.weight": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"names \.\./model\.safetensors"):
        read_checkpoint(folder)


@pytest.mark.parametrize("command", ["export", "finetune"])
def test_an_encoder_decoder_is_refused_by_name(folder: Path, files: list[str], command: str) -> None:
    T5ForConditionalGeneration(
        T5Config(vocab_size=90, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, id2label={0: "a", 1: "b"})
    ).save_pretrained(folder)
    if command == "export":
        configure(folder, architectures=["T5ForSequenceClassification"])
        assert_refused(export(folder, files, "--labels", "negative,positive"), "'t5', an encoder-decoder")
        return
    assert_refused(run("finetune", folder, *files, "--out", folder.parent / "out"), "'t5', an encoder-decoder")
    assert not (folder.parent / "out").exists()


def test_a_base_below_whose_head_weights_are_missing_is_refused(folder: Path, files: list[str]) -> None:
    without_a_layer(folder)
    result = run("finetune", folder, *files, "--out", folder.parent / "out")
    assert_refused(result, "lacks weights of the bert below the head", "layer.1.")
    assert not (folder.parent / "out").exists()
    assert_refused(run("distill", folder, folder, *files, "--out", folder.parent / "out"), "lacks weights")


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_a_base_without_a_head_or_with_another_is_usual(trained: Trained, tmp_path: Path, kind: type) -> None:
    kind.from_pretrained(trained.checkpoint).save_pretrained(tmp_path / "base")
    model = load_classifier(str(tmp_path / "base"), ("a", "b", "c"), SINGLE_LABEL, local=True)
    wanted = load_model(read_checkpoint(trained.checkpoint)).bert.encoder.state_dict()
    given = model.bert.encoder.state_dict()
    np.testing.assert_array_equal(*(next(iter(one.values())).numpy() for one in (wanted, given)))


@pytest.mark.parametrize(
    ("file", "asks"),
    [
        ("config.json", {"_attn_implementation": "someone/kernel"}),
        ("config.json", {"_attn_implementation_internal": "someone/kernel:main"}),
        ("config.json", {"attn_implementation": {"text": "someone/kernel"}}),
        ("config.json", {"auto_map": {"AutoConfig": "configuration_mine.MyConfig"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "someone/model--modeling.Model"}}}),
        ("config.json", {"trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_mine.Mine", None]}}),
    ],
)
def test_a_checkpoint_that_asks_for_code_is_refused_before_it_is_loaded(
    folder: Path, file: str, asks: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | asks))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_a, **_k: pytest.fail("it was loaded"))
    key = "auto_map" if "text_config" in asks else next(iter(asks))
    for use in (lambda: read_checkpoint(folder), lambda: resolve_base(str(folder))):
        with pytest.raises(CheckpointError, match=rf"{file} has {key} .*Remove the key"):
            use()
    if file == "config.json":
        with pytest.raises(CheckpointError, match="load code"):
            classifier_config(str(folder), local=True)


def test_kinds_of_attention_that_transformers_brings_are_no_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    harmless = {"_attn_implementation": "sdpa", "_attn_implementation_autoset": True, "auto_map": {}}
    (folder / "config.json").write_text(json.dumps(config | harmless))
    assert read_checkpoint(folder).labels
