"""The variant for CUDA: fused and in half precision."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_dtypes
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from export.graphs import graph_bytes, is_large
from export.operators import operators

logger = logging.getLogger(__name__)

Half = Literal["fp16", "bf16"]

_FUSED = ("Attention", "MultiHeadAttention", "SkipLayerNormalization", "FastGelu", "BiasGelu", "Gelu")


@dataclass(frozen=True)
class Halved:
    """A graph in half precision: which fused operators it has, and its size."""

    file: Path
    precision: Half
    fused: dict[str, int]
    bytes_after: int


def fuse_half(raw: Path, folder: Path, precision: Half) -> Halved:
    """Fuse attention and normalisation and convert to half precision; inputs and outputs keep their types.

    What the optimizer does not know how to fuse stays as it is and is only converted.
    """
    out = folder / f"model.{precision}.onnx"
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = precision == "fp16"  # ONNX Runtime has it in that type only
    model = optimize_model(
        str(raw), model_type="bert", num_heads=0, hidden_size=0, opt_level=0, optimization_options=options
    )
    model.convert_float_to_float16(keep_io_types=True)
    if precision == "bf16":
        to_bfloat16(model.model)
    model.save_model_to_file(str(out), use_external_data_format=is_large(model.model))
    found = operators(out)
    if not found["Attention"]:
        logger.warning("no attention was fused: the CUDA variant is slower than it could be")
    return Halved(out, precision, {name: found[name] for name in _FUSED if found[name]}, graph_bytes(out))


def to_bfloat16(model: onnx.ModelProto) -> None:
    """Make bfloat16 of everything that is float16; ONNX Runtime's converter knows the latter only."""
    graph = model.graph
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
            elif (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT16):
                attribute.i = TensorProto.BFLOAT16
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
