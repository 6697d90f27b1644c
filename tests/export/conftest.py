"""A BERT of two tiny layers with random weights, and a task that it learns in a second."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.file_download
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from export.pipeline import Exported, Options, export_checkpoint
from export.train.finetune import Recipe, finetune
from service.contract.dataset import Dataset

GOOD = ("fine", "great", "lovely", "superb", "warm", "bright")
BAD = ("awful", "broken", "dull", "grim", "cold", "poor")
NEUTRAL = ("the", "film", "phone", "was", "really", "quite", "and", "again", "today", "screen", "story", "price")
# Words whose meaning turns in the new domain: the model that knew them has to learn again.
NEW_GOOD = ("rally", "surge", "gain", "profit")
NEW_BAD = ("slump", "loss", "plunge", "default")
RECIPE = Recipe(epochs=4, learning_rate=5e-3, batch_size=16, max_length=24)


def sentences(rows: int, seed: int, good: tuple[str, ...] = GOOD, bad: tuple[str, ...] = BAD) -> Dataset:
    """Sentences of neutral words with two telling ones."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(rows):
        label = rng.choice(["negative", "positive"])
        words = rng.choices(NEUTRAL, k=rng.randint(3, 9)) + rng.sample(good if label == "positive" else bad, 2)
        rng.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return Dataset(texts, labels)


@dataclass(frozen=True)
class Trained:
    """A fine-tuned tiny checkpoint and the data that it was made from."""

    checkpoint: Path
    train: Dataset
    evaluation: Dataset


def make_base(folder: Path) -> Path:
    torch.manual_seed(0)
    words = [*GOOD, *BAD, *NEUTRAL, *NEW_GOOD, *NEW_BAD]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters), *words]
    folder.mkdir(parents=True)
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(vocab=str(file), model_max_length=32).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """On a busy machine several threads for so tiny a model wait for each other most of the time."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without a network a question takes minutes, and what is local is nobody's business."""
    asked: list[str] = []

    def ask(url: str, *_args: object, **_options: object) -> None:
        asked.append(url)
        raise OSError("no network in tests")

    monkeypatch.setattr(huggingface_hub.file_download, "get_hf_file_metadata", ask)
    yield
    assert asked == []


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    train, evaluation = sentences(400, 1), sentences(300, 2)
    out = tmp_path_factory.mktemp("trained") / "checkpoint"
    finetune(str(base), train, evaluation, out, RECIPE)
    return Trained(out, train, evaluation)


@pytest.fixture(scope="session")
def published(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Version 1 of ``tiny``; not to be changed."""
    return exported(trained, tmp_path_factory.mktemp("published") / "models")


@pytest.fixture
def repo(published: Exported, tmp_path: Path) -> Path:
    """A repository of its own in which version 1 of ``tiny`` is live."""
    return shutil.copytree(published.bundle.path.parent.parent, tmp_path / "models")


def exported(
    trained: Trained, repo: Path, *, live: bool | None = True, search_rows: Dataset | None = None, **options: object
) -> Exported:
    """Export without pruning, unless told otherwise."""
    given = Options(**({"max_drop": 2.0, "prune": False} | options))  # type: ignore[arg-type]
    return export_checkpoint(
        trained.checkpoint, trained.train, trained.evaluation, repo, "tiny", given, search_rows=search_rows, live=live
    )
