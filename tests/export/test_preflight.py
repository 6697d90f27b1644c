"""What an export finds out before its search: whether what is served reads and answers as the checkpoint does."""

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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from typer.testing import CliRunner

from export import pipeline as pipeline_module
from export.checkpoint.load import read_checkpoint
from export.checkpoint.tokenizer import load_tokenizer
from export.errors import CheckpointError, ParityError
from export.graph.onnx import export_onnx, load_model
from export.graph.parity import check_parity
from export.inference.predict import load_engine
from plumbline import cli
from service.contract.bundle import TOKENIZER, Bundle, open_bundle
from service.contract.dataset import Dataset
from service.tasks.tokenizer import TextTokenizer, Tokens
from tests.export.conftest import Trained, sentences

EDIT = "tokenizer_config.json"


def plumbline(*arguments: object) -> Result:
    return CliRunner().invoke(cli.build(), [str(one) for one in arguments])


def saved(folder: Path, rows: Dataset, name: str) -> Path:
    file = folder / f"{name}.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, rows.targets, strict=True)]
    file.write_text("\n".join(lines))
    return file


def export(folder: Path, checkpoint: Path, train: Dataset, evaluation: Dataset, *options: object) -> Result:
    return plumbline(
        "export",
        checkpoint,
        "--train",
        saved(folder, train, "train"),
        "--eval",
        saved(folder, evaluation, "eval"),
        "--repo",
        folder / "models",
        "--name",
        "tiny",
        "--no-prune",
        "--max-drop",
        "5",
        "--time-budget",
        "10s",
        *options,
    )


def published(folder: Path, result: Result) -> Bundle:
    assert result.exit_code == 0, result.stderr
    return open_bundle(folder / "models" / "tiny" / "1")


def served(bundle: Bundle, texts: list[str], size: int) -> np.ndarray:
    """Logits as a server gives them, in batches of ``size``."""
    made = bundle.manifest
    tokens = TextTokenizer(bundle.file(TOKENIZER), made.max_length, made.pad_id)(texts)
    engine = load_engine(
        bundle.file(made.variants["cpu"].file), device="cpu", threads=1, max_length=made.max_length, pad_id=made.pad_id
    )
    return np.concatenate([engine.run(tokens[start : start + size]).logits for start in range(0, len(tokens), size)])


def edited(folder: Path, file: str, **changes: object) -> None:
    content = json.loads((folder / file).read_bytes())
    (folder / file).write_text(json.dumps(content | changes))


@pytest.fixture
def checkpoint(trained: Trained, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before any work."""

    def build(*_: object, **__: object) -> None:
        raise AssertionError("a search began")

    monkeypatch.setattr(pipeline_module, "build", build)


def uppercase(rows: Dataset) -> Dataset:
    return Dataset([text.upper() for text in rows.texts], rows.targets)


def trailing(rows: Dataset) -> Dataset:
    return Dataset(["the film was " * 20 + text for text in rows.texts], rows.targets)


def cased(folder: Path) -> None:
    """The tokenizer's file keeps case, its configuration does not: transformers goes by the latter."""
    content = json.loads((folder / TOKENIZER).read_bytes())
    content["normalizer"]["lowercase"] = False
    (folder / TOKENIZER).write_text(json.dumps(content))
    edited(folder, EDIT, do_lower_case=True)


def vocabulary_only(folder: Path) -> None:
    made = AutoTokenizer.from_pretrained(folder).get_vocab()  # type: ignore[no-untyped-call]
    (folder / "vocab.txt").write_text("\n".join(sorted(made, key=made.__getitem__)) + "\n")
    (folder / TOKENIZER).unlink()


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint: Path, trained: Trained, tmp_path: Path) -> None:
    """transformers would make one that knows no word."""
    (checkpoint / TOKENIZER).unlink()
    with pytest.raises(CheckpointError, match=r"has no vocabulary.*save_pretrained"):
        load_tokenizer(str(checkpoint), local=True)


def from_left(folder: Path) -> None:
    edited(folder, EDIT, truncation_side="left")


@pytest.mark.parametrize(
    ("change", "rows"),
    [(cased, uppercase), (from_left, trailing), (vocabulary_only, lambda rows: rows)],
)
def test_what_the_checkpoints_own_tokenizer_does_is_served(
    checkpoint: Path,
    trained: Trained,
    tmp_path: Path,
    change: Callable[[Path], None],
    rows: Callable[[Dataset], Dataset],
) -> None:
    change(checkpoint)
    evaluation = rows(trained.evaluation)
    bundle = published(tmp_path, export(tmp_path, checkpoint, trained.train, evaluation))
    own = AutoTokenizer.from_pretrained(checkpoint)(evaluation.texts, truncation=True, max_length=24)["input_ids"]
    tokens = TextTokenizer(bundle.file(TOKENIZER), bundle.manifest.max_length)(evaluation.texts)
    assert [one.ids for one in tokens] == own
    quality = bundle.manifest.quality["cpu"]
    assert quality.baseline > 0.9
    assert quality.exported > 0.9


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_very_long_text_loses_the_characters_that_its_tokens_would(tmp_path: Path, side: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "z": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(4, direction=side)
    tokenizer.save(str(tmp_path / TOKENIZER))
    (tokens,) = TextTokenizer(tmp_path / TOKENIZER, 4)(["a " * 4 + "b" * 1_000 + " z" * 4])
    assert tokens.truncated
    assert tokens.ids == ([2] * 4 if side == "left" else [1] * 4)


def split_special(folder: Path) -> None:
    edited(folder, EDIT, split_special_tokens=True)


def undeclared_types(folder: Path) -> None:
    """Texts have the second type, and transformers is told not to hand it over."""
    content = json.loads((folder / TOKENIZER).read_bytes())
    content["post_processor"]["single"] = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 1}},
        {"Sequence": {"id": "A", "type_id": 1}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
    ]
    (folder / TOKENIZER).write_text(json.dumps(content))
    edited(folder, EDIT, model_input_names=["input_ids", "attention_mask"], tokenizer_class="PreTrainedTokenizerFast")


def added_token(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def no_unknown(folder: Path) -> None:
    content = json.loads((folder / TOKENIZER).read_bytes())
    content["model"]["unk_token"] = "[NONE]"
    (folder / TOKENIZER).write_text(json.dumps(content))
    edited(folder, EDIT, unk_token=None, tokenizer_class="PreTrainedTokenizerFast")


def pad_beyond(folder: Path) -> None:
    edited(folder, "config.json", pad_token_id=-1)


def not_a_number(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    model.save_pretrained(folder)


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (split_special, "as other tokens than transformers"),
        (undeclared_types, "model_input_names"),
        (added_token, "resize_token_embeddings"),
        (no_unknown, "unk_token"),
        (pad_beyond, "pad_token_id in config.json is -1"),
        (not_a_number, "NaN or infinity"),
    ],
)
def test_what_cannot_be_served_as_it_was_trained_is_refused_before_the_search(
    checkpoint: Path, trained: Trained, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    change(checkpoint)
    result = export(tmp_path, checkpoint, trained.train, trained.evaluation)
    assert result.exit_code == 2, result.stderr
    assert said in " ".join(result.stderr.split())


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("limit", [1e30, None, 40])
def test_a_tokenizer_that_knows_no_limit_leaves_it_to_the_positions(
    checkpoint: Path, trained: Trained, tmp_path: Path, limit: float | None
) -> None:
    edited(checkpoint, EDIT, model_max_length=limit)
    result = export(tmp_path, checkpoint, trained.train, trained.evaluation, "--max-length", 33)
    assert result.exit_code == 2
    assert "--max-length 33 is beyond the 32 tokens" in " ".join(result.stderr.split())


def test_a_lower_length_can_be_asked_for(trained: Trained, tmp_path: Path) -> None:
    result = export(tmp_path, trained.checkpoint, trained.train, trained.evaluation, "--max-length", 16)
    assert published(tmp_path, result).manifest.max_length == 16


def long_checkpoint(folder: Path, positions: int) -> Path:
    """A classifier of random weights that takes long texts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=positions,
        id2label={0: "negative", 1: "positive"},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("positions", "words", "length"),
    [(2000, 100, 512), (2000, 610, 752), (620, 610, 620), (620, 900, 620), (400, 900, 400)],
)
def test_rows_beyond_512_tokens_are_read_whole_as_far_as_the_model_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positions: int, words: int, length: int
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(pipeline_module, "build", lambda staging_folder, store, order, gate: seen.append(order))
    train = Dataset(["the the film", "film the film"], ["negative", "positive"])
    rows = Dataset(["the film " * (words // 2), "the", "film", "the the"], ["negative", "positive"] * 2)
    export(tmp_path, long_checkpoint(tmp_path / "long", positions), train, rows)
    (order,) = seen
    assert order.hf_tokenizer.max_length == length


def byte_level(folder: Path, *, special: list[str], **names: Any) -> PreTrainedTokenizerFast:
    """A tokenizer as GPT-2 and RoBERTa have them, of a few hundred tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(sentences(300, 5).texts, trainer)
    if "cls_token" in names:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **names
    )
    made.save_pretrained(folder)
    return made


def gpt2_base(folder: Path) -> Path:
    """No token for padding, none added to a text; token 0 is an ordinary one."""
    tokenizer = byte_level(folder, special=[], unk_token=None, eos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=40,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    GPT2Model(config).save_pretrained(folder)
    return folder


def roberta_base(folder: Path) -> Path:
    """34 positions, two of them reserved; its tokenizer says nothing of them."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = byte_level(
        folder, special=special, cls_token="<s>", pad_token="<pad>", sep_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=34,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    RobertaModel(config).save_pretrained(folder)
    return folder


def finetuned(folder: Path, base: Path, train: Dataset, evaluation: Dataset) -> tuple[Path, Result]:
    out = folder / "tuned"
    result = plumbline(
        "finetune",
        base,
        "--train",
        saved(folder, train, "train"),
        "--eval",
        saved(folder, evaluation, "eval"),
        "--out",
        out,
        "--epochs",
        "4",
        "--learning-rate",
        "0.005",
        "--batch-size",
        "16",
    )
    assert result.exit_code == 0, result.stderr
    return out, result


def alone(checkpoint: Path, texts: list[str]) -> np.ndarray:
    """The checkpoint as anyone would run it, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        given = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts]
    return torch.cat(given).numpy()


@pytest.fixture(scope="module")
def gpt2(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    return finetuned(folder, gpt2_base(folder / "base"), trained.train, trained.evaluation)[0]


@pytest.fixture(scope="module")
def padded(gpt2: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, str]:
    """A bundle of it, and what the export said. The tokenizer names another token for padding than the model."""
    folder = tmp_path_factory.mktemp("padded")
    changed = shutil.copytree(gpt2, folder / "changed")
    edited(changed, EDIT, pad_token="Z")
    result = export(folder, changed, trained.train, trained.evaluation)
    return published(folder, result), " ".join(result.stderr.split())


@pytest.mark.slow
def test_a_model_that_looks_for_its_padding_answers_in_batches_as_alone(
    padded: tuple[Bundle, str], gpt2: Path, trained: Trained
) -> None:
    bundle, said = padded
    pad_id = AutoTokenizer.from_pretrained(gpt2).eos_token_id
    assert bundle.manifest.pad_id == pad_id != 0
    assert f"padding is token {pad_id} by config.json" in said
    assert bundle.manifest.quality["cpu"].flips <= 3
    texts = sorted(trained.evaluation.texts, key=len)[:: len(trained.evaluation) // 8]
    atol = bundle.manifest.variants["cpu"].golden_atol
    for size in (1, 3, len(texts)):
        np.testing.assert_allclose(served(bundle, texts, size), alone(gpt2, texts), atol=3 * atol)


def test_a_text_without_any_token_is_answered(padded: tuple[Bundle, str], gpt2: Path) -> None:
    bundle, _ = padded
    assert AutoTokenizer.from_pretrained(gpt2)("")["input_ids"] == []
    logits = served(bundle, ["", "the film was great", ""], 3)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[0], served(bundle, [""], 1)[0], atol=bundle.manifest.variants["cpu"].golden_atol)


def test_parity_notices_another_padding(gpt2: Path, tmp_path: Path) -> None:
    model = load_model(read_checkpoint(gpt2))
    graph = export_onnx(model, tmp_path)
    texts = [Tokens([9] * count, [0] * count, truncated=False, unk_share=0.0) for count in (3, 9)]
    pad_id = int(model.config.pad_token_id)
    assert check_parity(model, graph, texts, max_length=40, pad_id=pad_id, seed=0).largest_difference < 1e-4
    with pytest.raises(ParityError, match="disagrees with the checkpoint"):
        check_parity(model, graph, texts, max_length=40, pad_id=0, seed=0)


@pytest.mark.usefixtures("no_search")
def test_a_model_that_needs_a_token_for_padding_and_names_none_is_refused(
    gpt2: Path, trained: Trained, tmp_path: Path
) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "changed")
    edited(folder, "config.json", pad_token_id=None)
    result = export(tmp_path, folder, trained.train, trained.evaluation)
    assert result.exit_code == 2, result.stderr
    assert "set pad_token_id in config.json; the tokenizer's is" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_reserved_positions_are_left_out_by_finetune_and_export(trained: Trained, tmp_path: Path) -> None:
    long = trailing(trained.evaluation)
    rows = Dataset([*trained.evaluation.texts, *long.texts[:9]], [*trained.evaluation.targets, *long.targets[:9]])
    tuned, result = finetuned(tmp_path, roberta_base(tmp_path / "base"), trained.train, rows)
    assert "takes 32 tokens at most: texts are cut to that, not to 128" in " ".join(result.stderr.split())
    edited(tuned, EDIT, model_max_length=1e30)
    manifest = published(tmp_path, export(tmp_path, tuned, trained.train, rows)).manifest
    assert (manifest.max_length, manifest.pad_id) == (32, 1)


def test_finetune_gives_added_tokens_embeddings(base: Path, trained: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "added")
    added_token(folder)
    rows = Dataset(["<new> film", *trained.evaluation.texts], ["positive", *trained.evaluation.targets])
    tuned, _ = finetuned(tmp_path, folder, trained.train, rows)
    assert published(tmp_path, export(tmp_path, tuned, trained.train, rows)).manifest.quality["cpu"].exported > 0.9
