"""Predictions over many texts: the checkpoint in PyTorch, and an exported variant through the serving engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from export.checkpoint.tokenizer import CheckpointTokenizer
from service.contract.dataset import Dataset
from service.contract.inputs import Input
from service.engine import Engine, Outputs
from service.tasks import Task
from service.tasks.observation import Observations, observe
from service.tasks.tokenizer import TextTokenizer, Tokens

BATCH = 32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What a variant says of n texts, one by one, as the service would record it."""

    texts: list[Input]
    tokens: list[Tokens]
    outputs: Outputs
    observed: Observations


def load_engine(graph: Path, *, device: str, threads: int, max_length: int, pad_id: int) -> Engine:
    return Engine(
        graph, device="cuda" if device == "cuda" else "cpu", threads=threads, max_length=max_length, pad_id=pad_id
    )


def answer(
    engine: Engine, tokenizer: TextTokenizer, texts: Sequence[Input], labels: Sequence[str], task: Task
) -> Answers:
    """Run every text by itself: no answer depends on which others came with it."""
    tokens = tokenizer(texts)
    outputs = [engine.run([one]) for one in tokens]
    logits = np.concatenate([one.logits for one in outputs])
    embedding = np.concatenate([one.embedding for one in outputs])
    return Answers(list(texts), tokens, Outputs(logits, embedding), observe(logits, embedding, labels, task, tokens))


def joined(parts: Sequence[Answers], labels: Sequence[str], task: Task) -> Answers:
    """The answers of several runs after each other."""
    logits = np.concatenate([part.outputs.logits for part in parts])
    embedding = np.concatenate([part.outputs.embedding for part in parts])
    texts = [text for part in parts for text in part.texts]
    tokens = [one for part in parts for one in part.tokens]
    return Answers(texts, tokens, Outputs(logits, embedding), observe(logits, embedding, labels, task, tokens))


def batched_logits(engine: Engine, tokens: Sequence[Tokens]) -> Floats:
    """(units, labels) logits with 32 neighbours a batch, padded to the longest: what a loaded server does."""
    return np.concatenate([engine.run(tokens[start : start + BATCH]).logits for start in range(0, len(tokens), BATCH)])


def own_logits(model: PreTrainedModel, hf_tokenizer: CheckpointTokenizer, texts: Sequence[Input]) -> Floats:
    """(units, labels) float32 logits of the PyTorch model by its own tokenizer, as its trainer would have them.

    Only texts of one length share a batch, so that nothing is padded and nothing of what is served takes part.
    """
    encoded, rows_of = hf_tokenizer.encode(texts), defaultdict[int, list[int]](list)
    for row, ids in enumerate(encoded["input_ids"]):
        rows_of[len(ids)].append(row)
    taken = encoded.keys() & signature(model.forward).parameters.keys()
    found: dict[int, Floats] = {}
    with torch.no_grad():
        for alike in rows_of.values():
            for start in range(0, len(alike), BATCH):
                rows = alike[start : start + BATCH]
                inputs = {name: torch.tensor([encoded[name][row] for row in rows]) for name in taken}
                given = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
                found |= zip(rows, by_row(given), strict=True)
    return in_order(found)


def own_tokens(hf_tokenizer: CheckpointTokenizer, data: Dataset, task: Task) -> Sequence[Tokens]:
    """What the checkpoint's own tokenizer reads, where the task says something of each token; else nothing."""
    return hf_tokenizer.placed(data.single_texts) if task.per_token else ()


def checkpoint_logits(model: PreTrainedModel, tokens: Sequence[Tokens]) -> Floats:
    """(units, labels) float32 logits of the PyTorch model on what is served, in batches of like length."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    found: dict[int, Floats] = {}
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            inputs = torch_inputs(model, [tokens[row] for row in rows])
            given = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
            found |= zip(rows, by_row(given, inputs["attention_mask"]), strict=True)
    return in_order(found)


def by_row(logits: torch.Tensor, mask: torch.Tensor | None = None) -> list[Floats]:
    """A batch's logits, (units, labels) for each row: those of what the (rows, tokens) ``mask`` keeps, or of all."""
    given = logits.float().cpu().numpy()
    if given.ndim == 2:
        return [row[None] for row in given]
    if mask is None:
        return list(given)
    return [row[kept] for row, kept in zip(given, mask.bool().cpu().numpy(), strict=True)]


def in_order(found: Mapping[int, Floats]) -> Floats:
    """(units, labels) of all rows, by their numbers from 0."""
    return np.concatenate([found[row] for row in range(len(found))])


def unit_logits(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A batch's logits as (units, labels), on which losses are computed."""
    return logits[mask.bool()] if logits.dim() > 2 else logits


def unit_rows(task: Task, tokens: Sequence[Tokens], rows: Sequence[int] | npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Which rows of the (units, labels) logits of ``tokens`` belong to these texts, in their order."""
    if not task.per_token:
        return np.asarray(rows, dtype=np.intp)
    starts = np.cumsum([0, *map(len, tokens)])
    return np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows]) if len(rows) else np.array([], int)


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """What the model is asked with, in PyTorch and as a graph: token types only where it has several."""
    several = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    types = several and "token_type_ids" in signature(model.forward).parameters
    return ("input_ids", "attention_mask", *(["token_type_ids"] if types else []))


def torch_inputs(model: PreTrainedModel, batch: Sequence[Tokens]) -> dict[str, torch.Tensor]:
    """A batch padded to its longest row, with what :func:`input_names` says."""
    length = max(len(tokens) for tokens in batch)
    shape = (len(batch), length)
    ids = torch.full(shape, int(model.config.pad_token_id or 0))
    mask, types = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens.ids)
        mask[row, : len(tokens)] = 1
        types[row, : len(tokens)] = torch.tensor(tokens.type_ids)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: inputs[name] for name in input_names(model)}
