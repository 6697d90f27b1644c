"""Where each known architecture keeps the matrices of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedModel

from service.contract.errors import InvalidInput


@dataclass(frozen=True)
class Architecture:
    """Dotted paths inside a model: ``layers`` from the base model, ``*`` being every child; the others from one layer.

    ``context`` makes a token's context out of the hidden states. In it are the ``projections``, whose outputs belong to
    the heads (one that the model lacks is passed over), the width of one head (``head_size``) and ``counts``, numbers
    that are proportional to the heads. ``output`` is the matrix behind the heads, ``up`` and ``down`` are those around
    the activation. ``feed_forward`` can be left out once ``down`` is a bias only. A matrix that several were fused into
    has the outputs of one after those of the other, and is cut alike in each.

    ``scores`` is the place, among the arguments of ``context``, of scores with a head axis (rows, heads, tokens,
    tokens). ``norm`` is the normalization of the block's result plus the hidden states, where ``context`` does that.
    """

    layers: str
    context: str
    projections: tuple[str, ...]
    output: str
    up: str
    down: str
    feed_forward: str
    counts: tuple[str, ...] = ("num_attention_heads", "all_head_size")
    head_size: str = "attention_head_size"
    scores: int | None = None
    norm: str | None = None

    @property
    def output_in_context(self) -> bool:
        return self.output.startswith(self.context + ".")


_BERT = Architecture(
    layers="encoder.layer.*",
    context="attention.self",
    projections=("query", "key", "value"),
    output="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    feed_forward="intermediate",
)
_LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "megatron-bert")
ARCHITECTURES = dict.fromkeys(_LIKE_BERT, _BERT) | {
    "albert": Architecture(
        layers="encoder.albert_layer_groups.*.albert_layers.*",
        context="attention",
        projections=("query", "key", "value"),
        output="attention.dense",
        norm="LayerNorm",
        up="ffn",
        down="ffn_output",
        feed_forward="ffn",
    ),
    "deberta-v2": replace(
        _BERT, projections=("query_proj", "key_proj", "value_proj", "pos_key_proj", "pos_query_proj")
    ),
    "distilbert": Architecture(
        layers="transformer.layer.*",
        context="attention",
        projections=("q_lin", "k_lin", "v_lin"),
        counts=("n_heads", "dim"),
        output="attention.out_lin",
        up="ffn.lin1",
        down="ffn.lin2",
        feed_forward="ffn",
    ),
    "modernbert": Architecture(
        layers="layers.*",
        context="attn",
        projections=("Wqkv",),
        counts=(),
        head_size="head_dim",
        output="attn.Wo",
        up="mlp.Wi",
        down="mlp.Wo",
        feed_forward="mlp",
    ),
    "mpnet": replace(_BERT, context="attention.attn", projections=("q", "k", "v"), output="attention.attn.o", scores=2),
}


@dataclass(frozen=True)
class Layer:
    """One encoder layer, seen through its architecture. A block that was cut away has no units and no matrices."""

    module: nn.Module
    known: Architecture

    @property
    def heads(self) -> int:
        width = self._inputs(self.known.output)
        return width // self.head_size if width else 0

    @property
    def head_size(self) -> int:
        return int(getattr(self.context, self.known.head_size))

    def head_columns(self, heads: Sequence[int]) -> torch.Tensor:
        """Which inputs of :attr:`output` come from ``heads``."""
        size = self.head_size
        return torch.tensor([head * size + place for head in heads for place in range(size)], dtype=torch.long)

    @property
    def neurons(self) -> int:
        return self._inputs(self.known.down)

    @property
    def context(self) -> nn.Module:
        return self.module.get_submodule(self.known.context)

    @property
    def projections(self) -> list[str]:
        """Paths of the matrices, of those that this model has, whose outputs belong to heads."""
        names = [name for name in self.known.projections if hasattr(self.context, name)]
        return [f"{self.known.context}.{name}" for name in names]

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

    def _inputs(self, path: str) -> int:
        try:
            return self.matrix(path).in_features
        except (AttributeError, TypeError):  # it was cut away
            return 0


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
    """The encoder layers of a model, pruned or not, first to last; one that a model runs several times is there once.

    :raises InvalidInput: see :func:`architecture`.
    """
    known, found = architecture(model), [model.base_model]
    for path in known.layers.removesuffix(".*").split(".*."):
        found = [child for one in found for child in one.get_submodule(path).children()]
    return [Layer(module, known) for module in found]
