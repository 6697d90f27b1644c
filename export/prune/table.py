"""How long a layer takes on this machine, by the heads and the neurons that it keeps.

One layer is cut to each of a few counts, exported, quantized as the served model is, and timed by ONNX Runtime on one
thread, all in turns and in turn with the whole model. Counts between are interpolated.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from transformers import PreTrainedModel

from export.graph.onnx import OPSET
from export.graph.projections import join_projections
from export.graph.quantize import DYNAMIC, quantize
from export.hardware import instruction_set
from export.inference.predict import torch_inputs
from export.measure.latency import Run
from export.prune.architecture import Layer, layers_of
from export.prune.surgery import Kept, cut_layer
from service.engine import SLOWER_FUSED
from service.tasks.tokenizer import Tokens

_ROUNDS = 60
_TRACED = (4, 5)  # lengths whose calls tell which axes are dynamic
_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds beyond those of a layer that has neither heads nor neurons, by count; means over ``lengths``.

    ``model_ms`` is what the whole unpruned model takes.
    """

    model_ms: float
    heads: int
    neurons: int
    head_ms: dict[int, float]
    neuron_ms: dict[int, float]
    lengths: tuple[int, ...]

    def neuron_counts(self, most: int) -> npt.NDArray[np.int64]:
        """The counts to choose from: multiples of 16, which the int8 kernels take at once, in at most 50 steps."""
        step = max(16, self.neurons // 48 // 16 * 16)
        return np.unique(np.append(np.arange(0, most + 1, step), most))

    def attention_ms(self, heads: npt.NDArray[np.int64]) -> Array:
        return _interpolated(self.head_ms, heads)

    def feed_forward_ms(self, neurons: npt.NDArray[np.int64]) -> Array:
        return _interpolated(self.neuron_ms, neurons)

    def beside_layers_ms(self, layers: int) -> float:
        """What a model of so many layers takes beside heads and neurons: embeddings, normalisation, the classifier."""
        return max(0.0, self.model_ms - layers * (self.head_ms[self.heads] + self.neuron_ms[self.neurons]))


def measure_layer(
    model: PreTrainedModel,
    unpruned: Run,
    lengths: Sequence[int],
    folder: Path,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyTable:
    """Time the first layer of ``model`` cut to a few counts, on texts of ``lengths`` tokens; ``folder`` is scratch.

    ``unpruned`` runs the whole int8 model on one thread. A layer that ``model`` runs several times counts as often.
    """
    layer = layers_of(model)[0]
    heads = _points(layer.heads)
    neurons = _points(layer.neurons)
    cuts = [(0, 0), *((count, 0) for count in heads[1:]), *((0, count) for count in neurons[1:])]
    calls = {length: _calls(model, layer, length) for length in (*_TRACED, *lengths)}
    repeats = len(calls[_TRACED[0]])
    sessions = []
    for number, (head_count, neuron_count) in enumerate(cuts):
        place = folder / f"layer{number}"
        place.mkdir(exist_ok=True)  # left by an export that was killed
        kept = Kept(tuple(range(head_count)), tuple(range(neuron_count)))
        sessions.append(_session(layer, kept, [calls[length][0] for length in _TRACED], place))
    taken = []
    for length in lengths:
        feeds = {name: tensor.numpy() for name, tensor in calls[length][0].tensors.items()}
        runs: list[Callable[[], object]] = [
            partial(unpruned, _text(length)),
            *(_layer_run(session, feeds) for session in sessions),
        ]
        taken.append(_time(runs, clock))
    whole, empty, *others = np.mean(taken, axis=0)
    beyond = [0.0, *(repeats * max(0.0, float(one - empty)) for one in others)]
    return LatencyTable(
        float(whole),
        layer.heads,
        layer.neurons,
        dict(zip(heads, beyond, strict=False)),
        dict(zip(neurons, [0.0, *beyond[len(heads) :]], strict=True)),
        tuple(lengths),
    )


def _points(units: int) -> list[int]:
    return sorted({0, *(max(1, round(units * share)) for share in _SHARES), units})


def _interpolated(points: dict[int, float], counts: npt.NDArray[np.int64]) -> Array:
    """Linear between the points; never falling, because a measured fall is noise."""
    return np.interp(counts, list(points), np.maximum.accumulate(list(points.values())))


@dataclass(frozen=True)
class _Call:
    """What a layer was called with in a run of the whole model: tensors and others, nested as ``form`` says."""

    values: list[Any]
    form: TreeSpec

    @classmethod
    def of(cls, args: tuple[Any, ...], options: dict[str, Any]) -> _Call:
        values, form = tree_flatten((args, options))
        return cls([value.detach() if isinstance(value, torch.Tensor) else value for value in values], form)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"arg{place}": value for place, value in enumerate(self.values) if isinstance(value, torch.Tensor)}

    def with_tensors(self, new: Mapping[str, torch.Tensor]) -> _Call:
        """The same call with other tensors for some of its own."""
        return _Call([new.get(f"arg{place}", value) for place, value in enumerate(self.values)], self.form)

    def growing(self, longer: _Call) -> dict[str, dict[int, str]]:
        """The tensors that are larger in the call for a longer text, and in which axes.

        The others do not depend on the text: in the graph of a model they are constants.
        """
        others = longer.tensors
        axes = {
            name: {axis: f"{name}{axis}" for axis, size in enumerate(one.shape) if size != others[name].shape[axis]}
            for name, one in self.tensors.items()
        }
        return {name: differing for name, differing in axes.items() if differing}


def _text(length: int) -> Tokens:
    return Tokens([1] * length, [0] * length, truncated=False, unk_share=0.0)


def _calls(model: PreTrainedModel, layer: Layer, length: int) -> list[_Call]:
    """How ``model`` calls ``layer`` for one text: signatures and the forms of masks differ between architectures."""
    calls: list[_Call] = []
    hook = layer.module.register_forward_pre_hook(
        lambda _module, args, options: calls.append(_Call.of(args, options)), with_kwargs=True
    )
    try:
        with torch.no_grad():
            model(**torch_inputs(model, [_text(length)]))
    finally:
        hook.remove()
    return calls


class _Replayed(nn.Module):
    """A layer as a function of some of the tensors that a call gave it."""

    def __init__(self, layer: nn.Module, call: _Call, names: Sequence[str]) -> None:
        super().__init__()
        self.layer, self.call, self.names = layer, call, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        call = self.call.with_tensors(dict(zip(self.names, tensors, strict=True)))
        args, options = tree_unflatten(call.values, call.form)
        output = self.layer(*args, **options)
        first: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return first


def _session(layer: Layer, kept: Kept, calls: Sequence[_Call], folder: Path) -> ort.InferenceSession:
    """The cut layer, ready to run; what differs between the two ``calls``, for texts of two lengths, is its input."""
    small = Layer(copy.deepcopy(layer.module), layer.known)
    cut_layer(small, kept)
    raw, (call, longer) = folder / "layer.onnx", calls
    axes = call.growing(longer)
    torch.onnx.export(
        _Replayed(small.module, call, list(axes)).eval(),
        tuple(call.tensors[name] for name in axes),
        str(raw),
        input_names=list(axes),
        output_names=["out"],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    if kept.heads or kept.neurons:
        joined = folder / "joined.onnx"
        join_projections(raw, joined)
        raw = quantize(joined, folder, DYNAMIC, target=instruction_set()).file
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        raw, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED["cpu"]
    )


def _layer_run(session: ort.InferenceSession, feeds: Mapping[str, npt.NDArray[Any]]) -> Callable[[], object]:
    declared = {node.name: feeds[node.name] for node in session.get_inputs()}
    return partial(session.run, None, declared)


def _time(runs: Sequence[Callable[[], object]], clock: Callable[[], float]) -> Array:
    """(runs,) median milliseconds of many turns."""
    for run in runs:
        for _ in range(5):
            run()
    taken = np.empty((len(runs), _ROUNDS))
    for turn in range(_ROUNDS):
        for row, run in enumerate(runs):
            started = clock()
            run()
            taken[row, turn] = 1000 * (clock() - started)
    return np.asarray(np.median(taken, axis=1), dtype=np.float64)
