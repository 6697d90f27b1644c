"""Joining multiplications that read the same input, as query, key and value do, into one.

The joined multiplication quantizes its input once instead of three times and fills the processor better; every number
stays the same, because weights have a scale per output channel. Only for the CPU: the fusion for CUDA looks for three.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graph.files import save_graph


@dataclass(frozen=True)
class _Projection:
    """``x @ weight + bias``, both constant."""

    multiply: onnx.NodeProto
    add: onnx.NodeProto
    weight: onnx.TensorProto
    bias: onnx.TensorProto


def join_projections(raw: Path, out: Path) -> int:
    """Write ``raw`` with joined projections to ``out``; returns how many multiplications were saved."""
    model = onnx.load(raw)
    graph = model.graph
    joined = {group[0].multiply.output[0]: group for group in _groups(graph)}
    replaced = {node.output[0] for group in joined.values() for one in group for node in (one.multiply, one.add)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in joined:
            nodes += _joined(graph, joined[node.output[0]])
        if node.output[0] not in replaced:
            nodes.append(node)
    made = helper.make_graph(nodes, graph.name, graph.input, graph.output, graph.initializer)
    graph.CopyFrom(made)
    _drop_unused(graph)
    save_graph(model, out)
    return sum(len(group) - 1 for group in joined.values())


def _groups(graph: onnx.GraphProto) -> list[list[_Projection]]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: Mapping[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    groups: dict[str, list[_Projection]] = defaultdict(list)
    for node in graph.node:
        found = _projection(node, readers, constants)
        if found is not None:
            groups[node.input[0]].append(found)
    return [group for group in groups.values() if len(group) > 1]


def _projection(
    node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], constants: Mapping[str, onnx.TensorProto]
) -> _Projection | None:
    if node.op_type != "MatMul" or node.input[1] not in constants or len(readers[node.output[0]]) != 1:
        return None
    weight, add = constants[node.input[1]], readers[node.output[0]][0]
    biases = [constants[name] for name in add.input if name in constants]
    if add.op_type != "Add" or len(biases) != 1 or list(biases[0].dims) != list(weight.dims[1:]):
        return None
    return _Projection(node, add, weight, biases[0])


def _joined(graph: onnx.GraphProto, group: Sequence[_Projection]) -> list[onnx.NodeProto]:
    name = f"{group[0].multiply.name}/joined"
    constants = {
        "weight": np.concatenate([numpy_helper.to_array(one.weight) for one in group], axis=1),
        "bias": np.concatenate([numpy_helper.to_array(one.bias) for one in group]),
        "widths": np.array([one.weight.dims[1] for one in group], dtype=np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}/{key}") for key, array in constants.items())
    return [
        helper.make_node("MatMul", [group[0].multiply.input[0], f"{name}/weight"], [f"{name}/product"], name=name),
        helper.make_node("Add", [f"{name}/product", f"{name}/bias"], [f"{name}/sum"], name=f"{name}/Add"),
        helper.make_node(
            "Split",
            [f"{name}/sum", f"{name}/widths"],
            [one.add.output[0] for one in group],
            name=f"{name}/Split",
            axis=-1,
        ),
    ]


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
