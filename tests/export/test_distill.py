"""Distillation: a smaller student comes close to its teacher, and what cannot be taught is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from export.checkpoint.load import checkpoint_digest, read_checkpoint
from export.checkpoint.tokenizer import load_tokenizer
from export.errors import CheckpointError
from export.tasks import training_of
from export.tasks.training import TEMPERATURE
from export.train import distill as distill_module
from export.train.distill import Distilled, distill
from export.train.finetune import Recipe, finetune
from export.train.teaching import joined_targets, taught_loss
from plumbline import cli
from service.contract.bundle import open_bundle
from service.contract.dataset import Dataset, write_jsonl
from service.contract.errors import DatasetError, InvalidInput
from service.tasks import MULTI_LABEL, SINGLE_LABEL
from tests.export.conftest import BAD, GOOD, NEUTRAL, Trained, exported, sentences

RECIPE = Recipe(epochs=6, learning_rate=5e-3, batch_size=16, max_length=24)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One DistilBERT layer, half as wide as the teacher, with another vocabulary in another order."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("student") / "small"
    words = ["<pad>", "<unk>", "<s>", "</s>", *sorted((*GOOD, *BAD, *NEUTRAL))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    config = DistilBertConfig(
        vocab_size=len(words),
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=32,
        max_position_embeddings=32,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        pad_token_id=0,
    )
    DistilBertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def done(trained: Trained, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    out = tmp_path_factory.mktemp("distilled") / "checkpoint"
    return distill(trained.checkpoint, str(student), trained.train, trained.evaluation, out, RECIPE)


def test_a_smaller_student_of_another_architecture_comes_close_to_its_teacher(done: Distilled) -> None:
    assert done.teacher.score > 0.9
    assert done.student.score > done.teacher.score - 0.05
    assert done.student.parameters < done.teacher.parameters / 2
    assert done.student.bytes < done.teacher.bytes / 2
    assert done.paired.difference == pytest.approx(done.student.score - done.teacher.score)
    assert done.paired.lower < done.paired.difference


def test_what_is_written_is_an_ordinary_checkpoint_with_the_labels_of_the_teacher(
    done: Distilled, trained: Trained
) -> None:
    made, teacher = read_checkpoint(done.made.checkpoint), read_checkpoint(trained.checkpoint)
    assert (made.labels, made.task) == (teacher.labels, teacher.task)
    assert load_tokenizer(str(made.path), local=True).model_max_length == 24
    note = orjson.loads((made.path / "plumbline.json").read_bytes())
    assert note["teacher"]["checkpoint_sha256"] == checkpoint_digest(trained.checkpoint)
    assert note["eval"]["accuracy"] == pytest.approx(done.student.score)
    assert [entry.name for entry in made.path.parent.iterdir()] == ["checkpoint"]


def test_the_student_can_be_exported(done: Distilled, trained: Trained, tmp_path: Path) -> None:
    bundle = exported(Trained(done.made.checkpoint, trained.train, trained.evaluation), tmp_path, max_drop=5.0).bundle
    assert open_bundle(bundle.path).manifest.quality["cpu"].baseline == pytest.approx(done.student.score, abs=0.01)


def test_a_student_learns_the_answers_of_its_teacher_rather_than_the_labels(
    trained: Trained, student: Path, tmp_path: Path
) -> None:
    """Training labels that are all turned round do no harm, as long as the loss has no share of them."""
    other = {"negative": "positive", "positive": "negative"}
    wrong = Dataset(trained.train.texts, [other[label] for label in trained.train.targets])
    learnt = distill(
        trained.checkpoint, str(student), wrong, trained.evaluation, tmp_path / "taught", RECIPE, label_share=0.0
    )
    assert learnt.student.score > 0.85


def test_several_labels_per_row(base: Path, tmp_path: Path) -> None:
    single = sentences(300, 3)
    labels = [
        f"{label}|phone" if "phone" in text.split() else label
        for text, label in zip(single.texts, single.targets, strict=True)
    ]
    data = Dataset(single.texts, labels)
    finetune(str(base), data, data, tmp_path / "teacher", Recipe(8, 5e-3, 16, 24))
    done = distill(
        tmp_path / "teacher", str(tmp_path / "teacher"), data, data, tmp_path / "out", Recipe(2, 1e-4, 16, 24)
    )
    assert done.made.task == MULTI_LABEL
    assert done.student.score > done.teacher.score - 0.1


@pytest.mark.parametrize(
    ("train", "evaluation", "message"),
    [
        (["negative", "great"], ["negative", "positive"], r"training data has 1 label.*'great' \(first in row 2\)"),
        (["negative", "positive"], ["positive", "great"], "eval data has 1 label"),
        (["negative", "negative|positive"], ["negative", "positive"], "row 2 has several labels"),
    ],
)
def test_labels_that_disagree_with_the_teacher(
    trained: Trained, student: Path, tmp_path: Path, train: list[str], evaluation: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        distill(
            trained.checkpoint,
            str(student),
            Dataset(["a", "b"], train),
            Dataset(["c", "d"], evaluation),
            tmp_path / "out",
        )
    assert not any(tmp_path.iterdir())


def test_what_cannot_work_is_refused_before_the_teacher_answers(
    trained: Trained, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(distill_module, "_answers", answer)
    files = (trained.train, trained.evaluation)
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        distill(trained.checkpoint, "./nothing/here", *files, tmp_path / "out")
    with pytest.raises(CheckpointError, match="names no labels"):
        distill(student, str(student), *files, tmp_path / "out")
    with pytest.raises(InvalidInput, match="not an empty folder"):
        distill(trained.checkpoint, str(student), *files, student)


def test_the_command_prints_both_and_the_difference(trained: Trained, student: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", trained.train)
    write_jsonl(tmp_path / "eval.jsonl", trained.evaluation)
    files = ["--train", str(tmp_path / "train.jsonl"), "--eval", str(tmp_path / "eval.jsonl")]
    call = ["distill", str(trained.checkpoint), str(student), *files, "--epochs", "1", "--max-length", "20"]
    shown = CliRunner().invoke(cli.build(), [*call, "--out", str(tmp_path / "one")])
    assert shown.exit_code == 0, shown.output
    assert [line.split()[0] for line in shown.stdout.splitlines()[2:5]] == ["teacher", "student", "student"]
    assert "student minus teacher on 300 eval rows: " in shown.stdout
    as_json = CliRunner().invoke(cli.build(), [*call, "--out", str(tmp_path / "two"), "--json"])
    found = orjson.loads(as_json.stdout)
    assert found["paired"]["rows"] == 300
    assert found["student"]["parameters"] < found["teacher"]["parameters"]


def test_the_softened_loss_is_nothing_for_equal_answers_and_has_no_say_at_a_full_label_share() -> None:
    shown = torch.tensor([[2.0, -1.0, 0.5]])
    assert float(training_of(SINGLE_LABEL).softened_loss(shown, shown)) == pytest.approx(0.0, abs=1e-6)
    assert float(training_of(SINGLE_LABEL).softened_loss(shown + 3.0, shown)) == pytest.approx(0.0, abs=1e-6)
    targets = torch.from_numpy(joined_targets(np.array([2]), shown.numpy(), SINGLE_LABEL))
    given = torch.tensor([[0.1, 0.2, 0.3]])
    hard = functional.cross_entropy(given, torch.tensor([2]))
    assert float(taught_loss(given, targets, SINGLE_LABEL, 1.0)) == pytest.approx(float(hard))


def test_the_softened_loss_agrees_with_a_sum_by_hand() -> None:
    given, shown = np.array([0.0, 1.0]), np.array([2.0, -1.0])
    one, other = (np.exp(x / TEMPERATURE) / np.exp(x / TEMPERATURE).sum() for x in (given, shown))
    expected = TEMPERATURE**2 * (other * np.log(other / one)).sum()
    found = training_of(SINGLE_LABEL).softened_loss(torch.tensor(given[None]), torch.tensor(shown[None]))
    assert float(found) == pytest.approx(expected)


def test_targets_hold_the_truth_and_the_teacher_side_by_side() -> None:
    logits = np.array([[0.5, -1.5], [2.0, 3.0]], dtype=np.float32)
    single = joined_targets(np.array([1, 0]), logits, SINGLE_LABEL)
    assert single.tolist() == [[0.0, 1.0, 0.5, -1.5], [1.0, 0.0, 2.0, 3.0]]
    truth = np.array([[1.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    assert joined_targets(truth, logits, MULTI_LABEL)[:, :2].tolist() == truth.tolist()
