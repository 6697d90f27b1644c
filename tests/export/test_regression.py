"""A cross-encoder, from the data file to the server: its numbers, its gate, and how it ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from export.checkpoint.load import read_checkpoint
from export.data.harvest import Harvest
from export.data.labels import task_of
from export.data.retraining import prepare
from export.pipeline import Exported, Options, export_checkpoint
from export.train.finetune import Finetuned, finetune
from service.contract.dataset import Dataset
from service.contract.errors import DatasetError, Refused
from service.contract.inputs import Input, TextPair, split
from service.http.app import create_app
from service.settings import ServiceSettings
from service.tasks import REGRESSION
from service.tasks.regression import Regression
from tests.export.conftest import RECIPE, sentences
from tests.processes import until


def graded(rows: int, seed: int) -> Dataset:
    """Pairs whose second text tells the grade: near 4 if it is positive, near 1 if it is not."""
    told, noise = sentences(rows, seed), sentences(rows, seed + 100)
    both: list[Input] = [TextPair(*map(str, one)) for one in zip(noise.texts, told.texts, strict=True)]
    labels = [f"{(4 if one == 'positive' else 1) + 0.1 * (row % 3):.1f}" for row, one in enumerate(told.targets)]
    return Dataset(both, labels)


@dataclass(frozen=True)
class Made:
    folder: Path
    tuned: Finetuned
    evaluation: Dataset
    done: Exported


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("graded")
    train, evaluation = graded(500, 1), graded(200, 2)
    recipe = replace(RECIPE, max_length=32, epochs=10)
    tuned = finetune(str(base), train, evaluation, folder / "checkpoint", recipe, task=REGRESSION)
    done = export_checkpoint(
        folder / "checkpoint", train, evaluation, folder / "models", "graded", Options(max_drop=5.0, prune=False)
    )
    return Made(folder, tuned, evaluation, done)


@pytest.fixture(scope="module")
def client(made: Made) -> Iterator[TestClient]:
    settings = ServiceSettings(repo=made.folder / "models", log=made.folder / "log", threads=1, log_seal_seconds=0.05)
    with TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_training_and_the_gate_speak_of_numbers(made: Made) -> None:
    assert made.tuned.scores.figures["R2"] > 0.8
    assert list(made.tuned.scores.figures) == ["R2", "mean squared error", "Pearson", "Spearman"]
    manifest = made.done.bundle.manifest
    quality = manifest.quality["cpu"]
    assert (manifest.task, manifest.labels, quality.metric) == ("regression", ("score",), "R2")
    assert manifest.task_settings["spread"] == pytest.approx(1.5, abs=0.05)
    assert quality.baseline == pytest.approx(made.tuned.scores.figures["R2"], abs=1e-4)
    assert quality.lower_bound < quality.difference
    assert (quality.calibration, quality.classes, quality.majority) == (None, {}, 0.0)
    card = (made.done.bundle.path / "card.md").read_text()
    assert "regression model of one number (score), reading pairs of texts" in card
    assert "Always answering the mean would score 0.0000" in card


def test_the_reference_has_the_numbers_and_no_confidence(made: Made) -> None:
    table = pq.read_table(made.done.bundle.file("reference.parquet"))
    given = [float(one) for one in table["label"].to_pylist()]
    assert given == pytest.approx([row[0] for row in table["probs"].to_pylist()], rel=1e-4)
    assert [float(one) for one in table["target"].to_pylist()] == [float(one) for one in made.evaluation.targets]


def test_it_answers_as_the_pipeline_of_transformers_does(made: Made, client: TestClient) -> None:
    checkpoint = made.folder / "checkpoint"
    theirs = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
    )
    pairs = [split(one) for one in made.evaluation.texts[:20]]
    answers = client.post("/predict", json={"inputs": [{"text": a, "text_pair": b} for a, b in pairs]}).json()
    for (text, second), ((one,),) in zip(pairs, [[row] for row in answers], strict=True):
        expected = theirs({"text": text, "text_pair": second}, truncation=True)
        assert one["label"] == expected["label"] == "score"
        assert one["score"] == pytest.approx(expected["score"], abs=0.15)  # int8


DOCUMENTS = ["the film was awful and grim", "a superb lovely story", "the phone", "great and warm"]


def test_rerank_sorts_by_score(client: TestClient) -> None:
    single = [client.post("/predict", json={"inputs": ["the screen", one]}).json()[0]["score"] for one in DOCUMENTS]
    ranked = client.post("/rerank", json={"query": "the screen", "texts": DOCUMENTS, "return_text": True}).json()
    assert [one["index"] for one in ranked] == sorted(range(4), key=lambda index: -single[index])
    assert {one["text"] for one in ranked[:2]} == {DOCUMENTS[1], DOCUMENTS[3]}
    assert [one["score"] for one in ranked] == pytest.approx(sorted(single, reverse=True), abs=0.1)
    assert "text" not in client.post("/rerank", json={"query": "q", "texts": ["a"]}).json()[0]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_the_shape_of_cohere(client: TestClient, path: str) -> None:
    body = {"model": "graded", "query": "the screen", "documents": [DOCUMENTS[0], {"text": DOCUMENTS[1]}], "top_n": 1}
    answer = client.post(path, json=body | {"return_documents": True, "max_tokens_per_doc": 4096}).json()
    (best,) = answer["results"]
    assert best["index"] == 1
    assert best["document"] == {"text": DOCUMENTS[1]}
    assert (
        best["relevance_score"]
        > client.post("/score", json={"text_1": "the screen", "text_2": DOCUMENTS[0]}).json()["data"][0]["score"]
    )


def test_the_shape_of_vllm(client: TestClient) -> None:
    answer = client.post("/score", json={"text_1": "the screen", "text_2": DOCUMENTS}).json()
    assert [one["index"] for one in answer["data"]] == [0, 1, 2, 3]
    ranked = client.post("/rerank", json={"query": "the screen", "texts": DOCUMENTS}).json()
    assert sorted(one["score"] for one in answer["data"]) == pytest.approx(sorted(one["score"] for one in ranked))
    uneven = client.post("/v1/score", json={"text_1": ["a", "b"], "text_2": ["c"]})
    assert (uneven.status_code, "give one, or one for each" in uneven.text) == (422, True)


def test_feedback_is_right_if_it_is_near(client: TestClient) -> None:
    (row,) = client.post("/predict", json={"inputs": [["the screen", DOCUMENTS[1]]]}).json()
    for label in (row[0]["score"] + 0.5, row[0]["score"] - 2):
        sent = client.post("/feedback", json={"id": row[0]["id"], "label": f"{label:.3f}"})
        assert sent.status_code == 202
    told = client.get("/metrics").text
    assert 'plumbline_feedback_total{correct="true",model="graded"} 1.0' in told
    assert 'plumbline_feedback_total{correct="false",model="graded"} 1.0' in told


def test_the_open_inference_protocol(client: TestClient) -> None:
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in
              (("text", "the screen"), ("text_pair", DOCUMENTS[1]))]  # fmt: skip
    answer = client.post("/v2/models/graded/infer", json={"inputs": inputs}).json()
    given = {one["name"]: one["data"] for one in answer["outputs"]}
    assert given["score"] == pytest.approx(given["probabilities"])


class TestData:
    def test_numbers_that_are_not_whole_are_no_classes_unless_that_is_said(self) -> None:
        with pytest.raises(DatasetError, match=r"numbers, as 0.5 in row 2.*--task regression"):
            task_of(Dataset(["a", "b"], ["1", "0.5"]))
        assert task_of(Dataset(["a", "b"], ["1", "0"])).categorical

    @pytest.mark.parametrize("target", ["good", "nan", "inf"])
    def test_a_target_that_is_no_number_is_named(self, base: Path, tmp_path: Path, target: str) -> None:
        data = Dataset(["a", "b"], ["1", target])
        with pytest.raises(DatasetError, match=f"row 2 has '{target}', and regression wants a finite number"):
            finetune(str(base), data, data, tmp_path / "out", task=REGRESSION)

    def test_feedback_that_is_no_number_is_left_out_of_a_retrain(self, made: Made) -> None:
        new = graded(80, 7)
        labelled = Dataset([*new.texts, TextPair("x", "y")], [*new.targets, "good"])
        base = replace(read_checkpoint(made.folder / "checkpoint"), paired=True)
        rows = prepare(Harvest(labelled, [], {}), graded(100, 1), made.evaluation, base, min_labels=10, seed=0)
        assert rows.counts["unfit_label"] == 1
        assert (rows.labels, rows.added) == (("score",), {})


class TestCheckpoints:
    """What a config.json of another trainer means."""

    def configured(self, made: Made, tmp_path: Path, **changes: object) -> Regression:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for file in (made.folder / "checkpoint").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = orjson.loads((folder / "config.json").read_bytes()) | changes
        (folder / "config.json").write_bytes(orjson.dumps(config))
        task = read_checkpoint(folder).task
        assert isinstance(task, Regression)
        return task

    @pytest.mark.parametrize("kind", [None, "multi_label_classification", "single_label_classification"])
    def test_one_output_that_is_not_called_regression_is_squashed(
        self, made: Made, tmp_path: Path, kind: str | None
    ) -> None:
        """As transformers' pipeline takes the sigmoid of one output."""
        assert self.configured(made, tmp_path, problem_type=kind).squashed

    @pytest.mark.parametrize(
        "changes",
        [
            {"problem_type": "regression"},
            {"problem_type": None, "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            {"problem_type": None, "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        ],
    )
    def test_it_is_not_where_the_file_says_so(self, made: Made, tmp_path: Path, changes: dict[str, object]) -> None:
        assert not self.configured(made, tmp_path, **changes).squashed


def test_a_checkpoint_that_knows_nothing_is_refused(made: Made, tmp_path: Path) -> None:
    other = Dataset(made.evaluation.texts, made.evaluation.targets[::-1])
    with pytest.raises(Refused, match=r"has R2 -.* and always answering 2\.\d+ would have 0.0000"):
        export_checkpoint(made.folder / "checkpoint", graded(200, 1), other, tmp_path, "graded")
