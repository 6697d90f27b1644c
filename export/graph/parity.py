"""Parity: the raw graph, run by the engine that serves, computes what the checkpoint computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from export.checkpoint.tokenizer import vocabulary_rows
from export.errors import ParityError
from export.graph.onnx import declared, returning_embedding
from export.inference.predict import Floats, by_row, load_engine, torch_inputs
from service.engine import Engine, EngineError
from service.tasks.tokenizer import Tokens

ATOL = 1e-4
RTOL = 1e-3

_LENGTHS = (2, 7, 33, 129)
_BATCH = 5


@dataclass(frozen=True)
class Parity:
    """How many (batch, padded length) shapes were compared and the largest absolute difference of any output."""

    shapes: int
    largest_difference: float


def check_parity(
    model: PreTrainedModel, graph: Path, tokens: Sequence[Tokens], *, max_length: int, pad_id: int, seed: int
) -> Parity:
    """The model alone with each row, against the engine: alone, and in batches where short rows are padded.

    Rows are ``tokens``, and random ones from the shortest possible text to the longest, with two types in them if the
    graph reads types.

    :raises ParityError: naming the shape and the output, if any differs by more than 1e-4 + 0.1 %.
    """
    rng = np.random.default_rng(seed)
    lengths = [*(length for length in _LENGTHS if length < max_length), max_length]
    types = int(getattr(model.config, "type_vocab_size", 0) or 0)
    typed = types > 1 and any(one.name == "token_type_ids" for one in declared(graph)[0])
    odd = [_random(rng, length, tokens[-1], vocabulary_rows(model), pad_id, typed=typed) for length in lengths]
    rows = sorted([*tokens, *odd], key=len)
    expected = [_alone(model, one) for one in rows]
    engine = load_engine(graph, device="cpu", threads=1, max_length=max_length, pad_id=pad_id)
    every = list(range(len(rows)))
    dealt = -(-len(rows) // _BATCH)  # each batch has short rows and long ones
    shapes, largest = set[tuple[int, int]](), 0.0
    for batches in ([index] for index in every), (every[first::dealt] for first in range(dealt)):
        for batch in batches:
            shape, actual = _served(engine, [rows[index] for index in batch])
            shapes.add(shape)
            for output, name in enumerate(("logits", "embedding")):
                wanted = np.concatenate([expected[index][output] for index in batch])
                largest = max(largest, _compare(name, shape, wanted, actual[output]))
    return Parity(len(shapes), largest)


def _alone(model: PreTrainedModel, row: Tokens) -> tuple[Floats, Floats]:
    with returning_embedding(model), torch.no_grad():
        given = model(**torch_inputs(model, [row]))
    return by_row(given["logits"])[0], given["embedding"].numpy()


def _served(engine: Engine, batch: Sequence[Tokens]) -> tuple[tuple[int, int], tuple[Floats, Floats]]:
    """The shape that the batch has when it is padded, and its logits and embeddings."""
    shape = (len(batch), engine.padded_length(max(map(len, batch))))
    try:
        outputs = engine.run(batch)
    except EngineError as error:
        raise ParityError(f"the exported graph fails on {shape[0]} rows of {shape[1]} tokens: {error}") from error
    return shape, (outputs.logits, outputs.embedding)


def _random(
    rng: np.random.Generator, length: int, like: Tokens, vocabulary: int, pad_id: int, *, typed: bool
) -> Tokens:
    """Random tokens between the first and the last one of a real text, which may be special."""
    ids = rng.integers(5, vocabulary, length)
    ids[ids == pad_id] = like.ids[0]
    ids[0], ids[-1] = like.ids[0], like.ids[-1]
    types = [int(typed and position >= length / 2) for position in range(length)]
    return Tokens(ids.tolist(), types, truncated=False, unk_share=0.0)


def _compare(name: str, shape: tuple[int, int], expected: Floats, actual: Floats) -> float:
    difference = float(np.abs(expected - actual).max()) if expected.shape == actual.shape else np.inf
    if not np.isfinite(difference) or not np.allclose(expected, actual, atol=ATOL, rtol=RTOL):
        raise ParityError(
            f"the exported graph disagrees with the checkpoint on {shape[0]} rows of {shape[1]} tokens: "
            f"{name} differs by up to {difference:.2g}, allowed is {ATOL:g} + {RTOL:.1%}."
        )
    return difference
