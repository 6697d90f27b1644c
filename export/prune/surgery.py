"""Cutting heads and neurons out of a model, so that its matrices are smaller; masking them gives the same answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from export.prune.architecture import Layer, layers_of


@dataclass(frozen=True)
class Kept:
    """The heads and the feed-forward neurons of one layer that stay, ascending."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class Mask:
    """Factors on one layer's heads and neurons, each (1 or rows, units)."""

    heads: torch.Tensor
    neurons: torch.Tensor


class Bias(nn.Module):
    """What a matrix without inputs gives: its bias (hidden,), the same for every token."""

    def __init__(self, matrix: nn.Linear) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias_of(matrix).clone())

    def forward(self, *_args: object, **_options: object) -> torch.Tensor:
        return self.bias


class BiasAttention(Bias):
    """A whole attention block, output matrix and ``norm`` included, of which only the bias stays."""

    def __init__(self, matrix: nn.Linear, norm: nn.Module | None) -> None:
        super().__init__(matrix)
        self.norm = norm

    def forward(self, hidden: torch.Tensor, *_args: object, **_options: object) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return (self.bias if self.norm is None else self.norm(hidden + self.bias)), None


class NoContext(nn.Module):
    """Attention whose result nothing reads: the hidden states as they are, and no weights."""

    def forward(self, hidden: torch.Tensor, *_args: object, **_options: object) -> tuple[torch.Tensor, None]:
        return hidden, None


def as_mask(units: Sequence[int]) -> str:
    """Units as a hexadecimal number whose bit i says that unit i stays."""
    return f"{sum(1 << unit for unit in units):x}"


def from_mask(mask: str) -> tuple[int, ...]:
    number = int(mask, 16)
    return tuple(unit for unit in range(number.bit_length()) if number >> unit & 1)


def everything(model: PreTrainedModel) -> list[Kept]:
    """What is kept if nothing is cut."""
    return [Kept(tuple(range(layer.heads)), tuple(range(layer.neurons))) for layer in layers_of(model)]


def cut(model: PreTrainedModel, kept: Sequence[Kept]) -> PreTrainedModel:
    """A copy of a model, pruned or not, with only the units that ``kept`` names, one entry per layer.

    A layer without heads, or without neurons, keeps the bias of that block's last matrix.
    """
    pruned = copy.deepcopy(model)
    for layer, stays in zip(layers_of(pruned), kept, strict=True):
        cut_layer(layer, stays)
    return pruned


def cut_layer(layer: Layer, stays: Kept) -> None:
    """Cut one layer in place."""
    if len(stays.heads) < layer.heads:
        _cut_heads(layer, stays.heads)
    if len(stays.neurons) < layer.neurons:
        _cut_neurons(layer, stays.neurons)


@contextmanager
def masked(model: PreTrainedModel, masks: Sequence[Mask]) -> Iterator[None]:
    """While open, each head's context and each neuron's activation is multiplied by its factor."""
    with ExitStack() as hooks:
        for layer, mask in zip(layers_of(model), masks, strict=True):
            if layer.heads:
                factors = mask.heads.repeat_interleave(layer.head_size, dim=1)
                hooks.callback(layer.output.register_forward_pre_hook(_Multiply(factors)).remove)
            if layer.neurons:
                hooks.callback(layer.down.register_forward_pre_hook(_Multiply(mask.neurons)).remove)
        yield


@dataclass(frozen=True)
class _Multiply:
    """A hook on a matrix: its input (rows, tokens, units) times ``factors`` (1 or rows, units)."""

    factors: torch.Tensor

    def __call__(self, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0] * self.factors.unsqueeze(1), *args[1:])


@dataclass(frozen=True)
class _Select:
    """A hook on a context: of the scores at ``place`` among its arguments (rows, heads, tokens, tokens) these heads."""

    place: int
    heads: Sequence[int]

    def __call__(self, _module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (*args[: self.place], args[self.place][:, list(self.heads)], *args[self.place + 1 :])


def _cut_heads(layer: Layer, heads: Sequence[int]) -> None:
    known, module, context = layer.known, layer.module, layer.context
    if not heads:
        last = layer.output
        if known.output_in_context:
            norm = context.get_submodule(known.norm) if known.norm else None
            module.set_submodule(known.context, BiasAttention(last, norm))
        else:
            module.set_submodule(known.context, NoContext())
            module.set_submodule(known.output, Bias(last))
        return
    columns, before = layer.head_columns(heads), layer.heads
    for path in layer.projections:
        module.set_submodule(path, _rows(layer.matrix(path), columns, layer.output.in_features))
    module.set_submodule(known.output, _columns(layer.output, columns))
    for name in known.counts:
        setattr(context, name, getattr(context, name) * len(heads) // before)
    if known.scores is not None:
        context.register_forward_pre_hook(_Select(known.scores, heads))


def _cut_neurons(layer: Layer, neurons: Sequence[int]) -> None:
    known, module = layer.known, layer.module
    down = layer.down
    if not neurons:
        if known.down.startswith(known.feed_forward + "."):
            module.set_submodule(known.feed_forward, Bias(down))
        else:
            module.set_submodule(known.feed_forward, nn.Identity())
            module.set_submodule(known.down, Bias(down))
        return
    index = torch.tensor(neurons)
    module.set_submodule(known.up, _rows(layer.matrix(known.up), index, down.in_features))
    module.set_submodule(known.down, _columns(down, index))


def bias_of(matrix: nn.Linear) -> torch.Tensor:
    """The bias (outputs,); zeros for a matrix that has none, which gets one when it is cut."""
    return matrix.weight.new_zeros(matrix.out_features) if matrix.bias is None else matrix.bias.detach()


def _rows(matrix: nn.Linear, index: torch.Tensor, units: int) -> nn.Linear:
    """The matrix with only these of its outputs, of every ``units`` of them."""
    index = torch.cat([index + start for start in range(0, matrix.out_features, units)])
    cut = nn.Linear(matrix.in_features, len(index), bias=matrix.bias is not None, device="meta")
    cut.weight = nn.Parameter(matrix.weight.detach()[index].clone())
    if matrix.bias is not None:
        cut.bias = nn.Parameter(matrix.bias.detach()[index].clone())
    return cut


def _columns(matrix: nn.Linear, index: torch.Tensor) -> nn.Linear:
    """The matrix with only these of its inputs, and a bias, with which others can make up for those that go."""
    cut = nn.Linear(len(index), matrix.out_features, device="meta")
    cut.weight = nn.Parameter(matrix.weight.detach()[:, index].clone())
    cut.bias = nn.Parameter(bias_of(matrix).clone())
    return cut
