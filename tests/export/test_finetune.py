"""Fine-tuning: what is written, what is learnt, and what is refused before any work starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from export.checkpoint import load as checkpoint_module
from export.checkpoint.load import checkpoint_digest, packaged_base, read_checkpoint
from export.checkpoint.tokenizer import CheckpointTokenizer, load_tokenizer, read_texts
from export.errors import CheckpointError
from export.graph.onnx import load_model
from export.inference.predict import own_logits
from export.train import finetune as finetune_module
from export.train.finetune import Recipe, finetune
from export.train.head import load_classifier, output_layer
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError, InvalidInput
from service.tasks import MULTI_LABEL, SINGLE_LABEL
from service.tasks.classification import Floats
from tests.export.conftest import RECIPE, Trained, sentences

ONE_EPOCH = Recipe(epochs=1, learning_rate=1e-3, batch_size=16, max_length=24)


def test_writes_an_ordinary_checkpoint_that_has_learnt_the_task(trained: Trained) -> None:
    made = read_checkpoint(trained.checkpoint)
    assert (made.labels, made.task) == (("negative", "positive"), SINGLE_LABEL)
    assert load_tokenizer(str(made.path), local=True).model_max_length == 24
    assert {"config.json", "model.safetensors", "tokenizer.json", "plumbline.json"} <= {
        file.name for file in trained.checkpoint.iterdir()
    }
    note = orjson.loads((trained.checkpoint / "plumbline.json").read_bytes())
    assert note["eval"]["accuracy"] > 0.9
    assert sum(one["support"] for one in note["eval"]["classes"].values()) == note["eval"]["rows"] == 300


def test_nothing_is_left_beside_the_checkpoint(trained: Trained) -> None:
    assert [entry.name for entry in trained.checkpoint.parent.iterdir()] == ["checkpoint"]
    assert not (trained.checkpoint / "trainer").exists()
    assert not list(trained.checkpoint.rglob("*.bin"))


def test_the_same_seed_gives_the_same_weights(base: Path, tmp_path: Path) -> None:
    data = sentences(60, 5)
    for out in ("one", "two"):
        finetune(str(base), data, data, tmp_path / out, ONE_EPOCH)
    assert checkpoint_digest(tmp_path / "one") == checkpoint_digest(tmp_path / "two")


def test_several_labels_per_row(base: Path, tmp_path: Path) -> None:
    single = sentences(300, 3)
    extra = ["phone" in text.split() for text in single.texts]
    labels = [f"{label}|phone" if about else label for label, about in zip(single.targets, extra, strict=True)]
    data = Dataset(single.texts, labels)
    recipe = Recipe(epochs=8, learning_rate=5e-3, batch_size=16, max_length=24)
    done = finetune(str(base), data, data, tmp_path / "out", recipe)
    assert (done.task, done.labels) == (MULTI_LABEL, ("negative", "phone", "positive"))
    assert json.loads(json.dumps(done.to_dict()))["task"] == "multi-label"
    assert done.scores.figures["accuracy"] > 0.8
    assert read_checkpoint(tmp_path / "out").task == MULTI_LABEL


@pytest.mark.parametrize(
    ("train", "evaluation", "message"),
    [
        (Dataset(["a", "b"], ["x", "x"]), Dataset(["c"], ["x"]), "single class, 'x'"),
        (Dataset(["a", "b"], ["x", "y"]), Dataset(["c", "d"], ["x", "z"]), r"does not know: 'z' \(first in row 2\)"),
    ],
)
def test_labels_that_cannot_be_learnt_or_judged(
    base: Path, tmp_path: Path, train: Dataset, evaluation: Dataset, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        finetune(str(base), train, evaluation, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_refuses_to_overwrite(base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InvalidInput, match="not an empty folder"):
        finetune(str(base), sentences(10, 1), sentences(10, 2), tmp_path)


@pytest.mark.parametrize("where", ["./nothing/here", "/nothing/here"])
def test_a_folder_that_is_not_there_is_never_looked_for_on_a_hub(where: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        finetune(where, sentences(10, 1), sentences(10, 2), tmp_path / "out")


def test_a_base_without_a_fast_tokenizer(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer, CanineTokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_a, **_k: CanineTokenizer())
    with pytest.raises(CheckpointError, match="not a fast one"):
        finetune(str(base), sentences(10, 1), sentences(10, 2), tmp_path / "out")


def test_a_base_that_is_cut_short_is_named(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded as a classifier"):
        finetune(str(tmp_path / "cut"), sentences(10, 1), sentences(10, 2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_packaged_weights_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (packaged_base() / "model.safetensors").is_file()
    monkeypatch.setattr(checkpoint_module, "_PACKAGED_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="the official weights are 00000000"):
        packaged_base()


def test_new_labels_leave_the_rows_of_known_ones_in_place(trained: Trained) -> None:
    before = output_layer(AutoModelForSequenceClassification.from_pretrained(trained.checkpoint))
    labels = ("negative", "neutral", "positive")
    after = output_layer(load_classifier(str(trained.checkpoint), labels, SINGLE_LABEL, local=True))
    assert after.weight.shape[0] == 3
    assert (after.weight[0] == before.weight[0]).all()
    assert (after.weight[2] == before.weight[1]).all()
    assert after.bias[2] == before.bias[1]


def test_the_eval_rows_are_judged_in_full_precision_after_training_in_half(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []

    def watched(model: PreTrainedModel, hf_tokenizer: CheckpointTokenizer, texts: Sequence[str]) -> Floats:
        judged.append(own_logits(model, hf_tokenizer, texts))
        return judged[0]

    monkeypatch.setattr(finetune_module, "half_precision", lambda: True)
    monkeypatch.setattr(finetune_module, "own_logits", watched)
    data = sentences(40, 6)
    finetune(str(base), data, data, tmp_path / "out", ONE_EPOCH)
    made = read_checkpoint(tmp_path / "out")
    model = load_model(made)
    again = own_logits(model, read_texts(made.path, model, data.texts), data.texts)
    np.testing.assert_allclose(judged[0], again, atol=1e-5)


def test_an_empty_text_and_emoji_can_be_trained_on(base: Path, tmp_path: Path) -> None:
    data = Dataset(["", "🙂", "שלום", "it\u200bis", "a " * 400], ["x", "y", "x", "y", "x"])
    done = finetune(str(base), data, data, tmp_path / "out", RECIPE)
    assert done.scores.rows == 5
