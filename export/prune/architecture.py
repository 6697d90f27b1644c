"""Where each known architecture keeps the matrices of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from service.contract.errors import InvalidInput


@dataclass(frozen=True)
class Architecture:
    """Dotted paths inside a model: ``layers`` from the base model, the others from one layer.

    ``context`` makes a token's context out of the hidden states and knows the number of heads (``heads``) and their
    joint width (``width``); ``query``, ``key`` and ``value`` are in it. ``output`` is the matrix behind the heads,
    ``up`` and ``down`` are those around the activation. ``feed_forward`` can be left out once ``down`` is a bias only.
    """

    layers: str
    context: str
    query: str
    key: str
    value: str
    heads: str
    width: str
    output: str
    up: str
    down: str
    feed_forward: str

    @property
    def output_in_context(self) -> bool:
        return self.output.startswith(self.context + ".")


_BERT = Architecture(
    layers="encoder.layer",
    context="attention.self",
    query="query",
    key="key",
    value="value",
    heads="num_attention_heads",
    width="all_head_size",
    output="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    feed_forward="intermediate",
)
_DISTILBERT = Architecture(
    layers="transformer.layer",
    context="attention",
    query="q_lin",
    key="k_lin",
    value="v_lin",
    heads="n_heads",
    width="dim",
    output="attention.out_lin",
    up="ffn.lin1",
    down="ffn.lin2",
    feed_forward="ffn",
)
_LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "megatron-bert")
ARCHITECTURES = dict.fromkeys(_LIKE_BERT, _BERT) | {"distilbert": _DISTILBERT}


@dataclass(frozen=True)
class Layer:
    """One encoder layer, seen through its architecture. A block that was cut away has no units and no matrices."""

    module: nn.Module
    known: Architecture

    @property
    def heads(self) -> int:
        return int(getattr(self.module.get_submodule(self.known.context), self.known.heads, 0))

    @property
    def head_size(self) -> int:
        return int(getattr(self.module.get_submodule(self.known.context), self.known.width)) // self.heads

    def head_columns(self, heads: Sequence[int]) -> torch.Tensor:
        """Which inputs of :attr:`output` come from ``heads``."""
        size = self.head_size
        return torch.tensor([head * size + place for head in heads for place in range(size)], dtype=torch.long)

    @property
    def neurons(self) -> int:
        try:
            return self.matrix(self.known.up).out_features
        except (AttributeError, TypeError):  # it was cut away
            return 0

    @property
    def output(self) -> nn.Linear:
        """The matrix behind the heads: (hidden, heads x head size)."""
        return self.matrix(self.known.output)

    @property
    def down(self) -> nn.Linear:
        """The matrix behind the activation: (hidden, neurons)."""
        return self.matrix(self.known.down)

    def matrix(self, path: str) -> nn.Linear:
        found = self.module.get_submodule(path)
        if not isinstance(found, nn.Linear):
            raise TypeError(f"{path} is a {type(found).__name__}, not a Linear")
        return found


def architecture(model: PreTrainedModel) -> Architecture:
    """:raises InvalidInput: if the model's type is not one of :data:`ARCHITECTURES`."""
    kind = str(model.config.model_type)
    if kind not in ARCHITECTURES:
        raise InvalidInput(
            f"models of type {kind!r} cannot be pruned; known are {', '.join(sorted(ARCHITECTURES))}. "
            "Add --no-prune to export it as it is."
        )
    return ARCHITECTURES[kind]


def layers_of(model: PreTrainedModel) -> list[Layer]:
    """The encoder layers of a model, pruned or not, first to last. :raises InvalidInput: see :func:`architecture`."""
    return list(_layers(model, architecture(model)))


def _layers(model: PreTrainedModel, known: Architecture) -> Iterator[Layer]:
    for module in model.base_model.get_submodule(known.layers).children():
        yield Layer(module, known)
