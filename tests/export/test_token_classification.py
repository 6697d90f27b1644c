"""A model that finds entities, from the data file to a retrained version, against transformers' own pipeline."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from export.checkpoint.load import read_checkpoint
from export.checkpoint.tokenizer import read_texts
from export.data.harvest import harvest
from export.errors import CheckpointError
from export.graph.onnx import export_onnx, load_model
from export.inference.predict import answer, load_engine
from export.pipeline import Exported, Options, export_checkpoint
from export.retrain import retrain
from export.tasks import training_of
from export.train.distill import distill
from export.train.finetune import Finetuned, finetune
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError, Refused
from service.contract.record import Feedback, Record, new_id, now_rfc3339
from service.contract.repository import read_serving
from service.contract.spans import Span, join_spans, split_spans
from service.log.recorder import Recorder
from service.tasks import SINGLE_LABEL, TOKENS
from service.tasks.entities import AGGREGATIONS
from service.tasks.of_bundle import tokenizer_of
from service.tasks.token_classification import entities_of
from service.tasks.tokenizer import Places, Tokens
from tests.export.conftest import BAD, GOOD, NEUTRAL, NEW_GOOD, RECIPE
from tests.service.contract.test_record import make_record

LEARNING = replace(RECIPE, epochs=16)
PARTS = [*"ab ", "fine ", "awful ", "🙂", "🏳️‍🌈", "é", "e\u0301", "שלום", "مرحبا", "\u200b", "\n", "日本", "(", "-"]
ODD = st.lists(st.sampled_from(PARTS), max_size=30).map("".join)
Served = Callable[[str, Any], list[tuple[int, int, str, float]]]
Theirs = Callable[[str], list[dict[str, Any]]]


def tagged(rows: int, seed: int, good: tuple[str, ...] = GOOD, bad: tuple[str, ...] = BAD) -> Dataset:
    """Words of two kinds among others; two of one kind beside each other are one entity."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(rows):
        text, spans = "", list[Span]()
        for _ in range(rng.randint(3, 6)):
            kind = rng.choice(["good", "bad", ""])
            words = rng.choices({"good": good, "bad": bad, "": NEUTRAL}[kind], k=rng.randint(1, 2))
            start = len(text)
            text += " ".join(words)
            spans += [Span(start, len(text), kind)] if kind else []
            text += f" {rng.choice(NEUTRAL)} "
        texts.append(text)
        labels.append(join_spans(spans))
    return Dataset(texts, labels, spans=True)


@dataclass(frozen=True)
class Tagger:
    folder: Path
    train: Dataset
    evaluation: Dataset
    tuned: Finetuned
    done: Exported


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    folder = tmp_path_factory.mktemp("tagger")
    train, evaluation = tagged(400, 1), tagged(150, 2)
    tuned = finetune(str(base), train, evaluation, folder / "checkpoint", LEARNING)
    done = export_checkpoint(
        folder / "checkpoint", train, evaluation, folder / "models", "tags", Options(max_drop=3.0, prune=False)
    )
    return Tagger(folder, train, evaluation, tuned, done)


def test_it_learns_and_every_stage_knows_what_it_is(made: Tagger) -> None:
    figures, each = made.tuned.scores.figures, made.tuned.scores.classes
    assert made.tuned.task == TOKENS
    assert figures["entity F1"] > 0.85
    assert each.keys() == {"bad", "good"}
    assert sum(one.support for one in each.values()) == sum(len(split_spans(one)) for one in made.evaluation.targets)
    manifest = made.done.bundle.manifest
    assert (manifest.task, manifest.task_settings) == (TOKENS.name, {"aggregation": "first"})
    assert manifest.labels == ("O", "B-bad", "I-bad", "B-good", "I-good")
    assert manifest.outputs[0].shape == ("batch", "length", 5)
    quality = manifest.quality["cpu"]
    assert (quality.metric, set(quality.classes)) == ("entity F1", {"bad", "good"})
    assert 0 < quality.majority < 0.5
    table = pq.read_table(made.done.bundle.file("reference.parquet"))
    assert set(zip(table["text"].to_pylist(), table["target"].to_pylist(), strict=True)) <= set(
        zip(made.evaluation.texts, made.evaluation.targets, strict=True)
    )
    card = made.done.bundle.file("card.md").read_text()
    assert "token classifier for 2 kinds of entity (bad, good)" in card
    assert "Calling every word an entity of the most frequent kind" in card


@pytest.fixture(scope="module")
def served(
    made: Tagger, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Any], list[tuple[int, int, str, float]]]:
    """What the float32 graph finds in a text, by the tokenizer that serves."""
    checkpoint = read_checkpoint(made.folder / "checkpoint")
    model, folder = load_model(checkpoint), tmp_path_factory.mktemp("graph")
    reading = read_texts(checkpoint.path, model, made.evaluation.texts)
    reading.write(folder / "tokenizer.json")
    tokenizer = reading.served(folder / "tokenizer.json", placed=True)
    graph = export_onnx(model, folder)
    engine = load_engine(graph, device="cpu", threads=1, max_length=reading.max_length, pad_id=reading.pad_id)

    def run(text: str, aggregation: Any) -> list[tuple[int, int, str, float]]:
        given = answer(engine, tokenizer, [text], checkpoint.labels, TOKENS)
        probs = TOKENS.probabilities(given.outputs.logits)
        found = entities_of(probs, checkpoint.labels, given.tokens[0], aggregation)
        return [(one.span.start, one.span.end, one.span.kind, one.score) for one in found]

    return run


@pytest.fixture(scope="module", params=AGGREGATIONS)
def theirs(made: Tagger, request: pytest.FixtureRequest) -> tuple[str, Theirs]:
    checkpoint = made.folder / "checkpoint"
    return request.param, pipeline(
        "token-classification",
        model=AutoModelForTokenClassification.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        aggregation_strategy=request.param,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.sampled_from(tagged(50, 3).texts), ODD))
def test_entities_are_those_of_the_pipeline(served: Served, theirs: tuple[str, Theirs], text: str) -> None:
    aggregation, find = theirs
    ours = served(text, aggregation)
    expected = find(text) if text else []  # the pipeline takes no empty text
    assert [one[:3] for one in ours] == [(one["start"], one["end"], one["entity_group"]) for one in expected]
    assert [one[3] for one in ours] == pytest.approx([float(one["score"]) for one in expected], abs=1e-4)


def test_a_megabyte_is_read_as_far_as_the_model_reads(
    served: Served,
) -> None:
    text = "fine the " * 120_000
    assert served(text, "first") == served(text[:500], "first")


def test_tokens_cut_from_the_left_have_their_places_in_the_whole_text(made: Tagger) -> None:
    tokenizer = tokenizer_of(made.done.bundle)
    text = "the " * 3_000 + "fine"
    (tokens,) = tokenizer([text], from_left=True)
    assert tokens.places is not None
    start, end = tokens.places.spans[-2]  # the last one is special
    assert text[start:end] == "fine"
    assert end == len(text)


class TestTargets:
    LABELS = ("O", "B-good", "I-good")

    def encode(self, target: str, labels: tuple[str, ...] = LABELS) -> list[int]:
        spans = [(0, 0), (0, 4), (4, 6), (7, 9), (9, 9), (0, 0)]
        tokens = Tokens([0] * 6, [0] * 6, False, 0.0, Places(spans, [-1, 0, 0, 1, 2, -1]))
        return training_of(TOKENS).encode([target], labels, [tokens]).tolist()

    def test_a_token_belongs_to_what_it_shares_a_character_with(self) -> None:
        assert self.encode("") == [-100, 0, 0, 0, 0, -100]
        assert self.encode("0 6 good") == [-100, 1, 2, 0, 0, -100]
        assert self.encode("3 8 good") == [-100, 1, 2, 2, 0, -100]
        assert self.encode("0 4 good|4 6 good") == [-100, 1, 1, 0, 0, -100]
        assert self.encode("20 25 good") == [-100, 0, 0, 0, 0, -100]

    def test_labels_without_a_beginning_do(self) -> None:
        assert self.encode("0 6 good", ("good", "O")) == [-100, 0, 0, 1, 1, -100]

    def test_a_kind_without_a_label_is_named(self) -> None:
        with pytest.raises(DatasetError, match="no label for what is 'bad'"):
            self.encode("0 6 bad")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (Dataset(["the film", "fine"], ["", ""], spans=True), "no entity in any row"),
        (Dataset(["the film", "fine"], ["0 3 good", "0 9 good"], spans=True), "row 2 has an entity '0 9 good'"),
    ],
)
def test_data_that_teaches_nothing_is_refused(base: Path, tmp_path: Path, rows: Dataset, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        finetune(str(base), rows, rows, tmp_path / "out", RECIPE)


def test_unknown_kinds_in_the_eval_rows_are_refused(base: Path, tmp_path: Path) -> None:
    train, evaluation = tagged(50, 1), Dataset(["the film"], ["0 3 odd"], spans=True)
    with pytest.raises(DatasetError, match="1 label\\(s\\) that the training data does not know: 'odd'"):
        finetune(str(base), train, evaluation, tmp_path / "out", RECIPE)


def test_a_classifier_is_not_exported_as_a_tagger(made: Tagger, tmp_path: Path) -> None:
    rows = Dataset(["the film", "fine"], ["good", "bad"])
    with pytest.raises(DatasetError):
        export_checkpoint(made.folder / "checkpoint", rows, rows, tmp_path, "tags", Options(prune=False))
    assert read_checkpoint(made.folder / "checkpoint").task != SINGLE_LABEL


def test_a_head_that_was_never_trained_is_refused(made: Tagger, tmp_path: Path) -> None:
    broken = tmp_path / "checkpoint"
    shutil.copytree(made.folder / "checkpoint", broken)
    weights = load_file(broken / "model.safetensors")
    noise = torch.randn(weights["classifier.weight"].shape, generator=torch.Generator().manual_seed(7))
    save_file(weights | {"classifier.weight": 0.02 * noise}, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        Refused, match=r"entity F1 0\.\d+ on the 150 eval rows, and calling every word '\w+' would have"
    ):
        export_checkpoint(broken, made.train, made.evaluation, tmp_path / "models", "tags", Options(prune=False))


def test_a_student_learns_from_it(made: Tagger, base: Path, tmp_path: Path) -> None:
    done = distill(made.folder / "checkpoint", str(base), made.train, made.evaluation, tmp_path / "student", LEARNING)
    assert done.made.scores.figures["entity F1"] > 0.85
    with pytest.raises(CheckpointError, match="reads the texts as other tokens than the teacher"):
        distill(
            made.folder / "checkpoint",
            str(base),
            made.train,
            made.evaluation,
            tmp_path / "shorter",
            replace(LEARNING, epochs=1, max_length=8),
        )


@pytest.mark.slow
def test_feedback_becomes_a_better_version(made: Tagger, tmp_path: Path) -> None:
    """Words that were unknown are tagged; rows whose text was redacted, or whose feedback is none, are left out."""
    log, fresh = tmp_path / "log", tagged(300, 5, good=NEW_GOOD)
    recorder = Recorder(log, queue=1000, fsync_seconds=0.01, seal_seconds=60, seal_bytes=10**7, quota_bytes=10**9)
    pairs = [
        *zip(map(str, fresh.texts), fresh.targets, strict=True),
        ("[EMAIL] was fine", "12 16 good"),
        ("the film", "no entity"),
        ("the film", "0 99 good"),
    ]
    for text, target in pairs:
        identifier = new_id()
        record: Record = make_record(id=identifier, text=text, model="tags")
        recorder.offer("tags", record)
        recorder.offer("tags", Feedback(identifier, target, now_rfc3339(), "test"))
    recorder.close()
    found = harvest(log, "tags", None, unlabelled=0, placed=True)
    assert (found.counts["redacted"], found.counts["from_feedback"]) == (1, 302)
    done = retrain(
        made.folder / "models",
        "tags",
        log,
        made.train,
        made.evaluation,
        recipe=replace(LEARNING, keep="last"),
        max_drop=5.0,
    )
    assert done.accepted
    assert done.bundle is not None
    counts = done.bundle.manifest.source.arguments
    assert counts["unfit_label"] == 2
    assert read_serving(made.folder / "models", "tags").live == "2"
