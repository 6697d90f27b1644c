"""A model that reads pairs, from the data file to the log and back into a retrain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from export.data.harvest import harvest
from export.inference.predict import answer, load_engine
from export.pipeline import Exported, Options, export_checkpoint
from export.train.finetune import finetune
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError
from service.contract.inputs import Input, TextPair, split
from service.contract.record import Feedback, new_id, now_rfc3339
from service.http.app import create_app
from service.log.recorder import Recorder
from service.settings import ServiceSettings
from service.tasks import task_named
from service.tasks.tokenizer import TextTokenizer
from tests.export.conftest import BAD, GOOD, NEUTRAL, RECIPE, sentences
from tests.processes import until
from tests.service.contract.test_record import make_record

MAX_LENGTH = 32


def pairs(rows: int, seed: int) -> Dataset:
    """The second text tells the label, and the first one is of no account."""
    told, noise = sentences(rows, seed), sentences(rows, seed + 100)
    both: list[Input] = [TextPair(*map(str, one)) for one in zip(noise.texts, told.texts, strict=True)]
    return Dataset(both, told.labels)


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, Dataset, Exported]:
    folder = tmp_path_factory.mktemp("pairs")
    train, evaluation = pairs(500, 1), pairs(200, 2)
    finetune(str(base), train, evaluation, folder / "checkpoint", replace(RECIPE, max_length=MAX_LENGTH, epochs=8))
    done = export_checkpoint(
        folder / "checkpoint", train, evaluation, folder / "models", "pairs", Options(max_drop=3.0, prune=False)
    )
    return folder, train, evaluation, done


def test_it_learns_and_answers_as_the_pipeline_of_transformers_does(
    made: tuple[Path, Dataset, Dataset, Exported],
) -> None:
    folder, _, evaluation, done = made
    manifest = done.bundle.manifest
    assert manifest.paired
    assert manifest.quality["cpu"].baseline > 0.9
    checkpoint = folder / "checkpoint"
    theirs = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        top_k=None,
    )
    ours = answer(
        load_engine(
            done.bundle.file(manifest.variants["cpu"].file),
            device="cpu",
            threads=1,
            max_length=manifest.max_length,
            pad_id=manifest.pad_id,
        ),
        TextTokenizer(done.bundle.file("tokenizer.json"), manifest.max_length, manifest.pad_id),
        evaluation.texts[:50],
        manifest.labels,
        task_named(manifest.task),
    ).observed.probs
    for row, given in zip(ours, evaluation.texts[:50], strict=True):
        text, second = split(given)
        expected = {one["label"]: one["score"] for one in theirs({"text": text, "text_pair": second}, truncation=True)}
        assert row == pytest.approx([expected[label] for label in manifest.labels], abs=0.05)  # int8


def test_both_texts_are_in_the_reference_and_in_the_golden_cases(
    made: tuple[Path, Dataset, Dataset, Exported],
) -> None:
    bundle = made[3].bundle
    table = pq.read_table(bundle.file("reference.parquet"))
    assert set(zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True)) == {
        split(one) for one in made[2].texts
    }
    assert all(isinstance(case.input, TextPair) for case in bundle.golden())


def test_the_served_tokenizer_cuts_long_pairs_as_transformers_does(
    made: tuple[Path, Dataset, Dataset, Exported],
) -> None:
    folder, _, _, done = made
    served = TextTokenizer(done.bundle.file("tokenizer.json"), MAX_LENGTH)
    own = AutoTokenizer.from_pretrained(folder / "checkpoint")
    rng = np.random.default_rng(0)
    for _ in range(200):
        one, other = (" ".join(["film"] * int(rng.integers(0, 60))) + " 😀 שלום" for _ in range(2))
        (mine,) = served([TextPair(one, other)])
        theirs = own(one, other, truncation=True, max_length=MAX_LENGTH)
        assert (mine.ids, mine.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])


def test_feedback_on_a_pair_comes_back_as_a_pair(made: tuple[Path, Dataset, Dataset, Exported], tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, queue=10, fsync_seconds=0.01, seal_seconds=60, seal_bytes=10**6, quota_bytes=10**9)
    identifier = new_id()
    recorder.offer("pairs", make_record(id=identifier, text="a", text_pair="b"))
    recorder.offer("pairs", make_record(text="c", text_pair="d"))
    recorder.offer("pairs", Feedback(identifier, "positive", now_rfc3339(), "test"))
    recorder.close()
    found = harvest(tmp_path, "pairs", None, unlabelled=10)
    assert (found.labelled.texts, found.labelled.labels) == ([TextPair("a", "b")], ["positive"])
    assert found.unlabelled == [TextPair("c", "d")]


def test_a_checkpoint_of_pairs_is_not_exported_with_single_texts(
    made: tuple[Path, Dataset, Dataset, Exported], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="was trained on pairs of texts, and the training data has single texts"):
        export_checkpoint(made[0] / "checkpoint", sentences(50, 1), sentences(50, 2), tmp_path, "pairs")


def test_zero_shot_is_that_of_the_pipeline(base: Path, tmp_path: Path) -> None:
    """A hypothesis with a telling word follows from anything, or contradicts it."""
    rng = np.random.default_rng(0)
    kinds = {"entailment": GOOD, "neutral": NEUTRAL, "contradiction": BAD}

    def rows(count: int) -> Dataset:
        drawn = [str(rng.choice(list(kinds))) for _ in range(count)]
        texts: list[Input] = [
            TextPair(" ".join(rng.choice(NEUTRAL, 4)), f"the film was {rng.choice(kinds[label])}") for label in drawn
        ]
        return Dataset(texts, drawn)

    train, evaluation = rows(400), rows(150)
    checkpoint = tmp_path / "checkpoint"
    finetune(str(base), train, evaluation, checkpoint, replace(RECIPE, max_length=MAX_LENGTH, epochs=12))
    export_checkpoint(checkpoint, train, evaluation, tmp_path / "models", "nli", Options(max_drop=3.0, prune=False))
    theirs = pipeline(
        "zero-shot-classification",
        model=AutoModelForSequenceClassification.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
    )
    labels, text = ["fine", "phone", "dull"], "the story was quite again"
    settings = ServiceSettings(repo=tmp_path / "models", log=tmp_path / "log", threads=1)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        until(lambda: client.get("/readyz").status_code == 200)
        for alone in (False, True):
            parameters = {
                "candidate_labels": labels,
                "hypothesis_template": "the film was {}",
                "multi_label": alone,
            }
            answer = client.post("/zero-shot-classification", json={"inputs": text, "parameters": parameters}).json()
            expected = theirs(text, labels, hypothesis_template="the film was {}", multi_label=alone)
            given = {one["label"]: one["score"] for one in answer}
            assert given == pytest.approx(dict(zip(expected["labels"], expected["scores"], strict=True)), abs=0.05)
            assert answer[0]["label"] == expected["labels"][0] == "fine"
