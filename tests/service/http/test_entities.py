"""A model that finds entities, by every protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.tasks import TOKENS
from tests.fakes import TAGS, make_bundle

TEXT = "🙂 the Good film was awful !"
FOUND = [("positive", 6, 10, "Good"), ("negative", 20, 25, "awful")]
ANSWER = "6 10 positive|20 25 negative"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    make_bundle(root, labels=TAGS, task=TOKENS)
    return root


def shown(rows: list[dict[str, Any]]) -> list[tuple[str, int, int, str]]:
    assert all(0.9 < row["score"] <= 1 for row in rows)
    return [(row["entity_group"], row["start"], row["end"], row["word"]) for row in rows]


def test_entities_have_the_characters_of_the_text(client: TestClient) -> None:
    answer = client.post("/predict", json={"inputs": TEXT})
    assert shown(answer.json()) == FOUND
    assert {one["id"] for one in answer.json()} == {answer.headers["x-prediction-id"]}
    assert [shown(one) for one in client.post("/", json={"inputs": [TEXT, "the", ""]}).json()] == [FOUND, [], []]


def test_tokens_can_be_had_and_kinds_left_out(client: TestClient) -> None:
    parameters = {"aggregation_strategy": "none"}
    rows = client.post("/predict", json={"inputs": TEXT, "parameters": parameters}).json()
    assert [(one["entity"], one["index"], one["word"]) for one in rows] == [
        ("B-positive", 3, "Good"),
        ("B-negative", 6, "awful"),
    ]
    every = client.post("/predict", json={"inputs": TEXT, "parameters": parameters | {"ignore_labels": []}}).json()
    assert [one["index"] for one in every] == list(range(1, 8))
    one = client.post("/predict", json={"inputs": TEXT, "parameters": {"ignore_labels": ["positive"]}}).json()
    assert shown(one) == FOUND[1:]


@pytest.mark.parametrize(
    "asked", [{"raw_scores": True}, {"parameters": {"top_k": 1}}, {"parameters": {"function_to_apply": "softmax"}}]
)
def test_what_is_for_classifiers_is_refused(client: TestClient, asked: dict[str, Any]) -> None:
    answer = client.post("/predict", json={"inputs": TEXT, **asked})
    assert answer.status_code == 409
    assert "token classifier for 2 kinds of entity (positive, negative)" in answer.json()["error"]


def test_a_pair_is_refused(client: TestClient) -> None:
    assert client.post("/predict", json={"inputs": {"text": "a", "text_pair": "b"}}).status_code == 409


def test_kserve_gives_the_answer_and_its_entities(client: TestClient) -> None:
    (one, none) = client.post("/v1/models/reviews:predict", json={"instances": [TEXT, "the"]}).json()["predictions"]
    assert (one["label"], shown(one["entities"])) == (ANSWER, FOUND)
    assert (none["label"], none["entities"]) == ("", [])


def test_open_inference_has_an_output_for_them(client: TestClient) -> None:
    body = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": [TEXT, "the"]}]}
    described = client.get("/v2/models/reviews").json()["outputs"]
    outputs = {one["name"]: one for one in client.post("/v2/models/reviews/infer", json=body).json()["outputs"]}
    assert [one["name"] for one in described] == list(outputs)
    assert outputs["label"]["data"] == [ANSWER, ""]
    assert outputs["probabilities"]["shape"] == [2, len(TAGS)]
    assert [shown(json.loads(one)) for one in outputs["entities"]["data"]] == [FOUND, []]


def test_sagemaker_gives_a_list_for_each_text(client: TestClient) -> None:
    assert shown(client.post("/invocations", json={"inputs": TEXT}).json()) == FOUND
    assert [shown(one) for one in client.post("/invocations", json={"inputs": [TEXT, "the"]}).json()] == [FOUND, []]


def test_the_form_marks_them(client: TestClient) -> None:
    page = client.post(
        "/try",
        content=f"model=reviews&text={TEXT.replace(' ', '+')}",
        headers={"content-type": "application/x-www-form-urlencoded", "origin": "http://localhost"},
    ).text
    assert "Good <small>positive</small></mark>" in page
    assert "negative|positive" in page  # the labels of the last answers


def test_the_log_keeps_the_answer_and_feedback_is_compared_with_it(
    start: Callable[..., TestClient], tmp_path: Path
) -> None:
    with start() as http:
        identifier = http.post("/predict", json={"inputs": TEXT}).headers["x-prediction-id"]
        for label in (ANSWER, ["20 25 negative", "6 10 positive"], "6 10 positive"):
            assert http.post("/feedback", json={"id": identifier, "label": label}).status_code == 202
        counted = http.get("/metrics").text
    assert 'plumbline_feedback_total{correct="true",model="reviews"} 2.0' in counted
    assert 'plumbline_feedback_total{correct="false",model="reviews"} 1.0' in counted
    assert 'plumbline_predictions_total{label="positive",model="reviews"} 1.0' in counted
    start().close()
    (segment,) = (tmp_path / "log" / "reviews").glob("date=*/hour=*/*.parquet")
    (row,) = pq.read_table(segment, partitioning=None).to_pylist()
    assert row["label"] == ANSWER
    assert len(row["probs"]) == len(TAGS)
    assert max(row["probs"][1:]) > 0.9


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("positive", "has 'positive' for an entity; it is written start, end and label"),
        ([{"start": 4, "end": 4, "label": "x"}], "its end is not behind its start"),
        ([{"start": 0, "end": 4, "label": "x"}, {"start": 2, "end": 5, "label": "x"}], "overlap"),
    ],
)
def test_feedback_that_is_no_entity_is_refused(client: TestClient, label: object, said: str) -> None:
    identifier = client.post("/predict", json={"inputs": TEXT}).headers["x-prediction-id"]
    answer = client.post("/feedback", json={"id": identifier, "label": label})
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_entities_are_told_as_the_server_gives_them(client: TestClient) -> None:
    answer = client.post("/predict", json={"inputs": TEXT})
    given = [{name: one[name] for name in ("start", "end", "entity_group")} for one in answer.json()]
    body = {"id": answer.headers["x-prediction-id"], "label": given}
    assert client.post("/feedback", json=body).status_code == 202
    body["label"] = [{"start": 6, "end": 10, "label": "positive"}]
    assert client.post("/feedback", json=body).status_code == 202
    counted = client.get("/metrics").text
    for right in ("true", "false"):
        assert f'plumbline_feedback_total{{correct="{right}",model="reviews"}} 1.0' in counted


def test_a_classifier_finds_no_entities(start: Callable[..., TestClient], tmp_path: Path) -> None:
    make_bundle(tmp_path / "models", "other")
    with start() as http:
        answer = http.post("/models/other/predict", json={"inputs": "a", "parameters": {"ignore_labels": ["O"]}})
        assert answer.status_code == 409
        assert "single-label text classifier" in answer.json()["error"]
        body = {
            "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
            "outputs": [{"name": "entities"}],
        }
        identifier = http.post("/models/other/predict", json={"inputs": "a"}).json()[0]["id"]
        told = {"id": identifier, "label": [{"start": 0, "end": 1, "label": "x"}]}
        assert http.post("/feedback", json=told).status_code == 409
        assert http.post("/v2/models/other/infer", json=body).status_code == 409
