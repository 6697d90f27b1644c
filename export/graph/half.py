"""The variant for CUDA: fused, and in half precision where the model bears it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from export.graph.files import graph_bytes, is_large
from export.graph.operators import operators

logger = logging.getLogger(__name__)

CudaPrecision = Literal["fp16", "bf16", "fp32"]

# Without a kernel for bfloat16 ONNX Runtime takes Clip apart, into operators of which some have none on CUDA either.
_NOT_IN_BF16 = ("Clip",)
_FUSED = ("Attention", "MultiHeadAttention", "SkipLayerNormalization", "FastGelu", "BiasGelu", "Gelu")


@dataclass(frozen=True)
class Fused:
    """A fused graph: its precision, which fused operators it has, and its size."""

    file: Path
    precision: CudaPrecision
    operators: dict[str, int]
    bytes_after: int


def fuse(raw: Path, folder: Path, precision: CudaPrecision) -> Fused:
    """Fuse attention and normalisation, and convert to half precision if asked; inputs and outputs keep their types.

    What the optimizer does not know how to fuse stays as it is and is only converted.
    """
    # Not by its precision alone: the variant for the CPU may be in float32, too, and lies in the same folder.
    out = folder / ("model.cuda.onnx" if precision == "fp32" else f"model.{precision}.onnx")
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = precision == "fp16"  # ONNX Runtime has it in that type only
    model = optimize_model(
        _with_heads(onnx.load(raw)),
        model_type="bert",
        num_heads=0,
        hidden_size=0,
        opt_level=0,
        optimization_options=options,
    )
    if precision == "fp16":
        model.convert_float_to_float16(keep_io_types=True)
    elif precision == "bf16":
        model.convert_float_to_float16(keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_NOT_IN_BF16])
        to_bfloat16(model.model)
    model.save_model_to_file(str(out), use_external_data_format=is_large(model.model))
    found = operators(out)
    if not found["Attention"]:
        logger.warning("no attention was fused: the CUDA variant is slower than it could be")
    return Fused(out, precision, {name: found[name] for name in _FUSED if found[name]}, graph_bytes(out))


def _with_heads(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the number of heads where transformers leaves it to be worked out: the fusion reads it there.

    Layers of a pruned model have numbers of their own.
    """
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    constants |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    made_by = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        shape = made_by.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or shape.op_type != "Concat" or len(shape.input) != 4:
            continue
        heads, size = (constants.get(name) for name in shape.input[2:])
        matrix = _matrix_behind(node.input[0], made_by, constants)
        if heads is not None and size is not None and heads.tolist() == [-1] and matrix is not None:
            name = f"{node.name}/heads"
            counted = np.array([matrix.shape[1] // int(size[0])], dtype=np.int64)
            model.graph.initializer.append(numpy_helper.from_array(counted, name))
            shape.input[2] = name
    return model


def _matrix_behind(
    name: str, made_by: Mapping[str, onnx.NodeProto], constants: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any] | None:
    """The weights that a value was multiplied with, before or without a bias."""
    node = made_by.get(name)
    if node is not None and node.op_type == "Add":
        node = next((made_by[one] for one in node.input if one in made_by and made_by[one].op_type == "MatMul"), None)
    return constants.get(node.input[1]) if node is not None and node.op_type == "MatMul" else None


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
