"""Texts, and the requests that protocols make of them, answered by the real application."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from loadtest.load.protocols import PROTOCOLS, Asked, Protocol
from loadtest.load.texts import MADE, batches, texts_of
from service.contract.errors import DatasetError
from service.http.app import create_app
from service.settings import ServiceSettings
from service.tasks.embeddings import LABEL, Embeddings
from tests.fakes import WIDTH, make_bundle
from tests.processes import until


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    root = tmp_path_factory.mktemp("models")
    make_bundle(root)
    make_bundle(root, "vectors", labels=(LABEL,), task=Embeddings("mean", True, WIDTH))
    with TestClient(
        create_app(ServiceSettings(repo=root, threads=1, model="reviews")), base_url="http://localhost"
    ) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


@pytest.mark.parametrize("texts", [["a good film"], ["good", 'the "awful" film 😀', ""]], ids=["one", "three"])
@pytest.mark.parametrize("model", ["", "reviews"], ids=["default", "named"])
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda one: one.name)
def test_each_protocol_asks_what_the_server_answers(
    client: TestClient, protocol: Protocol, texts: list[str], model: str
) -> None:
    if protocol.name in ("embed", "openai"):
        model = "vectors"
    asked = Asked("reviews" if protocol.names_model else model)
    request = protocol.request(texts, asked)
    answer = client.post(protocol.path(asked), content=request.body, headers=dict(request.headers))
    assert answer.status_code == 200, answer.text
    predictions = client.get("/metrics").text
    assert "plumbline_predictions_total" in predictions


def test_made_up_texts_are_a_mixture_of_short_and_long_ones() -> None:
    texts = texts_of(None, "text", 0)
    words = np.array([len(text.split()) for text in texts])
    assert len(texts) == MADE
    assert (words >= 150).mean() == pytest.approx(0.1, abs=0.03)
    assert np.median(words[words < 150]) == pytest.approx(18, abs=2)
    assert texts == texts_of(None, "text", 0)
    assert texts != texts_of(None, "text", 1)


def test_rows_of_a_file_come_in_an_order_of_chance(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"text {row},x\n" for row in range(100)))
    texts = texts_of(tmp_path / "t.csv", "text", 0)
    assert sorted(texts) == sorted(f"text {row}" for row in range(100))
    assert texts != [f"text {row}" for row in range(100)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"text\n", "has no rows"),
        (b"text\ncaf\xe9\n", "UTF-8"),
        (b"review\nfine\n", "text"),
        (b"text,text_pair\na,b\n", "pairs"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        texts_of(tmp_path / "t.csv", "text", 0)


def test_batches_are_full_and_have_every_text() -> None:
    assert batches(["a", "b", "c"], 2) == [["a", "b"], ["c", "a"]]
    assert batches(["a"], 3) == [["a", "a", "a"]]
