"""Quantization for the CPU: ways to make int8 graphs of a raw float32 one.

``raw`` graphs must not be fused: ONNX Runtime fuses at load, and a graph fused before is slower once quantized.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from export.errors import ParityError
from export.graph.files import graph_bytes, is_large, save_graph
from export.graph.operators import count_quantized, optimised_operators
from export.hardware import saturates
from service.contract.bundle import Scheme
from service.engine import Engine
from service.tasks.tokenizer import Tokens

Feeds = Mapping[str, npt.NDArray[np.int64]]

# On MiniLM a scale per channel more than halves the error of the logits at no cost in time.
DYNAMIC = Scheme(method="dynamic")
PER_TENSOR = Scheme(method="dynamic", per_channel=False)
UNSIGNED = Scheme(method="dynamic", unsigned=True)
STATIC = Scheme(method="static")
FLOAT = Scheme(method="none")
SCHEMES = (FLOAT, DYNAMIC, PER_TENSOR, UNSIGNED, STATIC)
"""What a search tries, in this order; between the second and the third come mixed ones, made for the model at hand."""
FIRST = SCHEMES[:2]  # tried however little time there is

_MULTIPLICATIONS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Quantized:
    """A graph made by ``scheme``; ``matmuls`` of its multiplications run in int8 once ONNX Runtime has optimised it."""

    file: Path
    scheme: Scheme
    matmuls: int
    bytes: int


def file_name(scheme: Scheme) -> str:
    return "model.fp32.onnx" if scheme.method == "none" else "model.int8.onnx"


def quantize(raw: Path, folder: Path, scheme: Scheme, *, target: str, calibration: Sequence[Feeds] = ()) -> Quantized:
    """Write ``raw`` quantized by ``scheme`` to ``folder``.

    ``target`` is the instruction set that it will run on; where 8-bit products can saturate, signed weights keep to 7
    bits.
    ``calibration`` are inputs for the static method, which fixes the activations' ranges by them.

    :raises ParityError: if not one multiplication runs in int8 afterwards.
    """
    out = folder / file_name(scheme)
    with _quiet():
        METHODS[scheme.method](raw, out, scheme, calibration, saturates(target))
    matmuls = count_quantized(optimised_operators(out))
    if matmuls == 0 and scheme.method != "none":
        raise ParityError(
            f"quantization ({scheme.name}) changed nothing in {raw.name}: no multiplication runs in int8 once ONNX "
            "Runtime has optimised the graph."
        )
    return Quantized(out, scheme, matmuls, graph_bytes(out))


def multiplications(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes that multiply with constant weights, in graph order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in _MULTIPLICATIONS and node.input[1] in constants]


def quantize_only(model: onnx.ModelProto, node: str, out: Path, *, target: str) -> None:
    """Write ``model`` with a single multiplication in int8, to see what that one costs. ``model`` is not changed."""
    with _quiet():
        quantize_dynamic(
            model,
            out,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=saturates(target),
            nodes_to_quantize=_named([node]),
        )


def check_padding(engine: Engine, tokens: Sequence[Tokens], *, what: str) -> None:
    """Run the longest of the texts beside the shortest, which is nearly all padding; all numbers must be finite.

    :raises ParityError: naming the row.
    """
    rows = {"a whole row": max(tokens, key=len), "a row that is mostly padding": min(tokens, key=len)}
    outputs = engine.run(list(rows.values()))
    for array in (outputs.logits, outputs.embedding):
        for row, name in enumerate(rows):
            if not np.isfinite(array[row]).all():
                raise ParityError(f"{what} gives NaN or infinity on {name}.")


def _dynamic(raw: Path, out: Path, scheme: Scheme, calibration: Sequence[Feeds], saturating: bool) -> None:
    """Activations are scaled as they come; ``calibration`` is not looked at."""
    quantize_dynamic(
        raw,
        out,
        weight_type=QuantType.QUInt8 if scheme.unsigned else QuantType.QInt8,
        per_channel=scheme.per_channel,
        reduce_range=saturating and not scheme.unsigned,
        nodes_to_exclude=_named(scheme.float_nodes),
        use_external_data_format=is_large(onnx.load(raw)),
    )


def _static(raw: Path, out: Path, scheme: Scheme, calibration: Sequence[Feeds], saturating: bool) -> None:
    """Activations as unsigned bytes: signed ones have no fast kernel (17 against 5 ms)."""
    model = onnx.load(raw)
    weighted = {*multiplications(model)}
    unweighted = [
        node.name for node in model.graph.node if node.op_type in _MULTIPLICATIONS and node.name not in weighted
    ]
    quantize_static(
        model,
        out,
        _Reader(calibration),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=scheme.per_channel,
        reduce_range=saturating,
        op_types_to_quantize=[*_MULTIPLICATIONS, "Gather"],
        use_external_data_format=is_large(model),
        nodes_to_exclude=_named([*unweighted, *scheme.float_nodes]),
    )


def _float(raw: Path, out: Path, scheme: Scheme, calibration: Sequence[Feeds], saturating: bool) -> None:
    save_graph(onnx.load(raw), out)


def _named(nodes: Sequence[str]) -> list[str]:
    """The nodes as the quantizer knows them, which first turns each Gemm into a MatMul of another name."""
    return [name for node in nodes for name in (node, f"{node}_MatMul")]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._left, None)


METHODS: dict[str, Callable[[Path, Path, Scheme, Sequence[Feeds], bool], None]] = {
    "dynamic": _dynamic,
    "static": _static,
    "none": _float,
}
"""What each method does with the raw graph; the last argument says that 8-bit products can overflow here."""


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on the root logger to pre-process, which is not done because it fuses."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        root.setLevel(level)
