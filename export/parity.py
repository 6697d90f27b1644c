"""Parity: the raw graph computes what the checkpoint computes, on shapes that the exporter never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from transformers import PreTrainedModel

from export.errors import ParityError
from export.onnx import returning_embedding

ATOL = 1e-4
RTOL = 1e-3


@dataclass(frozen=True)
class Parity:
    """How many (batch, length) shapes were compared and the largest absolute difference of any output."""

    shapes: int
    largest_difference: float


def shapes(max_length: int) -> list[tuple[int, int]]:
    """Odd batches and lengths, from the shortest possible text to the longest."""
    lengths = [length for length in (2, 7, 33, 129) if length < max_length]
    return [(batch, length) for batch in (1, 3) for length in (*lengths, max_length)] + [(9, min(11, max_length))]


def check_parity(model: PreTrainedModel, graph: Path, max_length: int, *, seed: int) -> Parity:
    """Run both on random tokens, each row but the first padded to a different degree, types in both halves.

    :raises ParityError: naming the shape and the output, if any differs by more than 1e-4 + 0.1 %.
    """
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    rng = np.random.default_rng(seed)
    largest = 0.0
    with returning_embedding(model), torch.no_grad():
        for shape in shapes(max_length):
            feeds = {name: array for name, array in _inputs(rng, shape, model.config).items() if name in wanted}
            expected = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
            try:
                actual = session.run(["logits", "embedding"], feeds)
            except Exception as error:  # ONNX Runtime raises many types without a common base
                raise ParityError(
                    f"the exported graph fails on {shape[0]} rows of {shape[1]} tokens: {error}"
                ) from error
            for name, array in zip(("logits", "embedding"), actual, strict=True):
                largest = max(largest, _compare(name, shape, expected[name].numpy(), array))
    return Parity(len(shapes(max_length)), largest)


def _inputs(rng: np.random.Generator, shape: tuple[int, int], config: object) -> dict[str, np.ndarray]:
    rows, length = shape
    vocabulary = int(getattr(config, "vocab_size", 100))
    types = int(getattr(config, "type_vocab_size", 1) or 1)
    ids = rng.integers(5, vocabulary, shape, dtype=np.int64)
    mask = np.ones(shape, dtype=np.int64)
    for row in range(1, rows):
        mask[row, max(1, length * row // rows) :] = 0
    padding = int(getattr(config, "pad_token_id", 0) or 0)
    ids[mask == 0] = padding
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.full(shape, 0 if types < 2 else 1) * mask}


def _compare(name: str, shape: tuple[int, int], expected: np.ndarray, actual: np.ndarray) -> float:
    difference = float(np.abs(expected - actual).max())
    if expected.shape != actual.shape or not np.allclose(expected, actual, atol=ATOL, rtol=RTOL):
        raise ParityError(
            f"the exported graph disagrees with the checkpoint on {shape[0]} rows of {shape[1]} tokens: "
            f"{name} differs by up to {difference:.2g}, allowed is {ATOL:g} + {RTOL:.1%}."
        )
    return difference
