"""The engine's fixed shapes: what a CUDA graph needs, with the same answers. Here it runs on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import service.models.loaded
from service.engine import Engine, session
from service.tasks.tokenizer import Tokens
from tests.fakes import make_bundle

LENGTHS = [3, 5, 16, 9, 2, 12, 7, 4, 11, 6, 8]
BUDGET = 96


def texts(lengths: list[int]) -> list[Tokens]:
    return [Tokens([2, *range(4, 4 + n - 2), 3], [0] * n, truncated=False, unk_share=0.0) for n in lengths]


def engine(repo: Path, max_length: int = 16, **options: Any) -> Engine:
    model = repo / "reviews" / "1" / "model.int8.onnx"
    return Engine(model, device="cpu", threads=1, max_length=max_length, **options)


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that were captured."""
    captured: list[tuple[int, ...]] = []
    bind = session.Captured._bind

    def noted(self: Any, feeds: Any, number: int) -> Any:
        captured.append(feeds["input_ids"].shape)
        return bind(self, feeds, number)

    monkeypatch.setattr(session.Captured, "_bind", noted)
    return captured


@pytest.mark.parametrize("size", range(1, len(LENGTHS) + 1))
def test_fixed_shapes_give_the_same_answers(repo: Path, size: int) -> None:
    fixed, plain = engine(repo, graphs=True), engine(repo)
    for start in (0, len(LENGTHS) - size):  # two batches of one shape, or nearly
        batch = texts(LENGTHS[start : start + size])
        found, expected = fixed.run(batch), plain.run(batch)
        assert found.logits.shape == (size, 2)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6)
        np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-6)


def test_answers_are_not_overwritten_by_the_next_batch(repo: Path) -> None:
    fixed = engine(repo, graphs=True)
    first = fixed.run(texts([5])).logits
    kept = first.copy()
    fixed.run(texts([7]))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("max_length", [16, 10])  # nine rows of ten tokens are padded to ten rows, beyond the budget
def test_after_the_warm_up_no_batch_has_a_new_shape(repo: Path, shapes: list[tuple[int, ...]], max_length: int) -> None:
    fixed = engine(repo, max_length, graphs=True)
    fixed.warm_up(BUDGET)
    warmed = list(shapes)
    assert len(set(warmed)) == len(warmed)
    for length in range(2, max_length + 1):
        for size in range(1, BUDGET // fixed.padded_length(length) + 1):
            fixed.run(texts([length] * size))
    assert shapes == warmed


@pytest.mark.parametrize(("rows", "padded"), [(1, 1), (7, 7), (8, 8), (9, 10), (15, 16), (17, 20), (33, 40)])
def test_rows_are_padded_by_at_most_a_quarter(rows: int, padded: int) -> None:
    assert session.padded_rows(rows) == padded


def test_a_model_is_warmed_up_and_run_by_one_thread_and_on_cuda_in_full_batches(
    start: Callable[..., TestClient], repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, bool]] = []
    warmed: list[int] = []
    threads: set[int] = set()

    class Noted(Engine):
        def __init__(self, file: Path, *, device: str, graphs: bool, **options: Any) -> None:
            made.append((device, graphs))
            super().__init__(file, device="cpu", graphs=graphs, **options)  # in place of a GPU

        def run(self, batch: Any) -> Any:
            threads.add(threading.get_ident())
            return super().run(batch)

        def warm_up(self, tokens: int = 0) -> None:
            warmed.append(tokens)
            super().warm_up(tokens)

    monkeypatch.setattr(service.models.loaded, "Engine", Noted)
    make_bundle(repo, variants=("cpu", "cuda"), golden_variant="cuda")
    client = start(device="cuda", cuda_graphs=True, batch_tokens=64)
    assert client.post("/predict", json={"inputs": ["good", "the film was bad"]}).status_code == 200
    assert made == [("cuda", True)]
    assert warmed == [0, 64]
    assert len(threads) == 1
