"""A model that reads pairs of texts, by every protocol."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.contract.bundle import open_bundle
from service.contract.inputs import TextPair
from service.engine import Engine
from service.tasks.classification import softmax
from service.tasks.tokenizer import TextTokenizer
from tests.fakes import make_bundle

FIRST, SECOND = "the film was good", "awful !"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    make_bundle(root, paired=True)
    return root


@pytest.fixture
def expected(repo: Path) -> list[float]:
    """The probabilities that the model gives the pair, by the tokenizer and the engine alone."""
    bundle = open_bundle(repo / "reviews" / "1")
    engine = Engine(bundle.file("model.int8.onnx"), device="cpu", threads=1, max_length=16)
    tokens = TextTokenizer(bundle.file("tokenizer.json"), 16)([TextPair(FIRST, SECOND)])
    assert tokens[0].type_ids == [0] * 6 + [1] * 3
    found: list[float] = softmax(engine.run(tokens).logits)[0].tolist()
    return found


def scores(row: list[dict[str, object]]) -> list[object]:
    """In the order of the labels."""
    return [one["score"] for one in sorted(row, key=lambda one: str(one["label"]))]


@pytest.mark.parametrize(
    ("inputs", "nested"),
    [
        ([FIRST, SECOND], False),
        ({"text": FIRST, "text_pair": SECOND}, False),
        ([[FIRST, SECOND]], True),
        ([{"text": FIRST, "text_pair": SECOND}], True),
    ],
)
def test_each_way_to_write_a_pair_gives_the_same_answer(
    client: TestClient, expected: list[float], inputs: object, nested: bool
) -> None:
    body = client.post("/predict", json={"inputs": inputs}).json()
    assert scores(body[0] if nested else body) == pytest.approx(expected, abs=1e-6)


def test_the_order_of_the_two_texts_is_kept_in_the_log(start: Callable[..., TestClient], tmp_path: Path) -> None:
    client = start(log_seal_seconds=0.05)
    client.post("/predict", json={"inputs": [["good", "mail a@b.example"], ["bad", ""]]}).raise_for_status()
    client.__exit__(None, None, None)
    (segment,) = (tmp_path / "log" / "reviews").glob("date=*/hour=*/*.parquet")
    table = pq.read_table(segment, partitioning=None)
    assert table.column("text").to_pylist() == ["good", "bad"]
    assert table.column("text_pair").to_pylist() == ["mail [EMAIL]", ""]


def test_kserve_v1(client: TestClient, expected: list[float]) -> None:
    body = {"instances": [{"text": FIRST, "text_pair": SECOND}]}
    (answer,) = client.post("/v1/models/reviews:predict", json=body).json()["predictions"]
    assert answer["score"] == pytest.approx(max(expected), abs=1e-6)


def test_sagemaker(client: TestClient, expected: list[float]) -> None:
    (answer,) = client.post("/invocations", json={"inputs": {"text": FIRST, "text_pair": SECOND}}).json()
    assert answer["score"] == pytest.approx(max(expected), abs=1e-6)


def tensor(name: str, *texts: str) -> dict[str, object]:
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def test_open_inference_protocol_has_two_tensors_whatever_their_order(
    client: TestClient, expected: list[float]
) -> None:
    described = client.get("/v2/models/reviews").json()
    assert [one["name"] for one in described["inputs"]] == ["text", "text_pair"]
    for inputs in (
        [tensor("text", FIRST), tensor("text_pair", SECOND)],
        [tensor("text_pair", SECOND), tensor("text", FIRST)],
    ):
        answer = client.post("/v2/models/reviews/infer", json={"inputs": inputs}).json()
        given = {one["name"]: one["data"] for one in answer["outputs"]}
        assert given["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_open_inference_protocol_in_binary(client: TestClient, expected: list[float]) -> None:
    import orjson

    raw = [struct.pack("<I", len(one.encode())) + one.encode() for one in (FIRST, SECOND)]
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
        for name, data in zip(("text", "text_pair"), raw, strict=True)
    ]
    head = orjson.dumps({"inputs": inputs})
    answer = client.post(
        "/v2/models/reviews/infer",
        content=head + b"".join(raw),
        headers={"inference-header-content-length": str(len(head))},
    ).json()
    given = {one["name"]: one["data"] for one in answer["outputs"]}
    assert given["probabilities"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/predict", {"inputs": FIRST}, "text 0 has no second one"),
        ("/predict", {"inputs": [FIRST, SECOND, FIRST]}, "text 0 has no second one"),
        ("/predict", {"inputs": [[FIRST, SECOND], [FIRST]]}, "text 1 has no second one"),
        ("/predict", {"inputs": [[FIRST, SECOND, FIRST]]}, "element 0 is not a list of a string, or of two"),
        ("/predict", {"inputs": [[FIRST, SECOND], {"text": FIRST, "text_pair": SECOND}]}, "element 1 is not a list"),
        ("/predict", {"inputs": [{"text": FIRST}]}, "element 0 is not an object with text and text_pair"),
        ("/v1/models/reviews:predict", {"instances": [{"text": FIRST}]}, "text 0 has no second one"),
        ("/v1/models/reviews:predict", {"instances": [{"text": FIRST, "text_pair": 1}]}, "instance 0 is not"),
        ("/v2/models/reviews/infer", {"inputs": [tensor("text", FIRST)]}, "give exactly two inputs"),
        (
            "/v2/models/reviews/infer",
            {"inputs": [tensor("text", FIRST), tensor("text", FIRST)]},
            "give exactly two inputs",
        ),
        (
            "/v2/models/reviews/infer",
            {"inputs": [tensor("text", FIRST), tensor("text_pair", FIRST, SECOND)]},
            "each pair needs both",
        ),
    ],
)
def test_a_text_without_a_second_one_is_refused_by_its_place(
    client: TestClient, path: str, body: object, says: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == (409 if "no second one" in says or "exactly two" in says else 422)
    assert says in answer.json()["error"]


def test_a_pair_is_refused_by_a_model_that_reads_single_texts(tmp_path: Path, start: Callable[..., TestClient]) -> None:
    make_bundle(tmp_path / "models", "single")
    client = start()
    for inputs in ({"text": FIRST, "text_pair": SECOND}, [[FIRST, SECOND]]):
        answer = client.post("/models/single/predict", json={"inputs": inputs})
        assert answer.status_code == 409
        assert "is a pair, and 'single' reads single texts" in answer.json()["error"]
    assert len(client.post("/models/single/predict", json={"inputs": [FIRST, SECOND]}).json()) == 2


def test_the_status_page_asks_for_both(client: TestClient) -> None:
    assert 'name="text_pair"' in client.get("/").text
    tried = client.post("/try", data={"text": FIRST, "text_pair": SECOND, "model": "reviews"})
    assert tried.text.count("<blockquote>") == 2
    refused = client.post("/try", data={"text": FIRST, "model": "reviews"})
    assert "has no second one" in refused.text
