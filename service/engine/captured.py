"""CUDA graphs: one for each shape of a batch, so that a batch is one launch instead of hundreds.

ONNX Runtime captures a graph at the first run with a new ``gpu_graph_id`` and replays it afterwards. A replay reads
and writes the memory that the capture did, so every shape has inputs and outputs of its own on the device; and graphs
belong to the thread that captured them, so one thread must warm up and serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

_GRAPH = "gpu_graph_id"
_NONE = "-1"  # run without capturing anything


@dataclass(frozen=True, slots=True)
class _Shape:
    inputs: dict[str, ort.OrtValue]
    outputs: list[ort.OrtValue]
    binding: ort.IOBinding
    options: ort.RunOptions


class Captured:
    """Runs a session with its inputs and outputs bound to memory of the device. Use it from one thread."""

    def __init__(self, session: ort.InferenceSession, outputs: Sequence[str], device: str) -> None:
        self._session = session
        self._outputs = outputs
        self._device = device
        self._shapes: dict[tuple[int, ...], _Shape] = {}

    def run(self, feeds: Mapping[str, npt.NDArray[np.int64]]) -> list[npt.NDArray[np.floating]]:
        """The outputs; ``feeds`` are all of one shape, and a new shape is captured."""
        shape = next(iter(feeds.values())).shape
        held = self._shapes.get(shape)
        if held is None:
            held = self._shapes[shape] = self._bind(feeds, len(self._shapes))
        for name, array in feeds.items():
            held.inputs[name].update_inplace(array)
        held.binding.synchronize_inputs()
        self._session.run_with_iobinding(held.binding, held.options)
        held.binding.synchronize_outputs()
        return [value.numpy().copy() for value in held.outputs]  # on the CPU, numpy() is the memory itself

    def _bind(self, feeds: Mapping[str, npt.NDArray[np.int64]], number: int) -> _Shape:
        """Memory for one shape. A plain run says which outputs it has, and loads what the device needs."""
        plain = self._session.run(self._outputs, feeds, _options(_NONE))
        inputs = {name: ort.OrtValue.ortvalue_from_numpy(array, self._device) for name, array in feeds.items()}
        outputs = [ort.OrtValue.ortvalue_from_numpy(array, self._device) for array in plain]
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(self._outputs, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        return _Shape(inputs, outputs, binding, _options(str(number)))


def _options(graph: str) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry(_GRAPH, graph)
    return options
