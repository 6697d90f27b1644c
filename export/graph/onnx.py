"""Checkpoint to ONNX by Optimum, with the outputs ``logits`` and ``embedding``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from optimum.exporters.onnx import export as optimum_export
from optimum.exporters.tasks import TasksManager
from transformers import PreTrainedModel

from export.checkpoint.load import Checkpoint
from export.checkpoint.weights import classifier_config, load_weights, set_labels
from export.errors import CheckpointError
from export.graph.files import save_graph
from export.inference.predict import input_names
from service.contract.bundle import Tensor

OPSET = 18
RAW = "model.onnx"
_BATCH, _LENGTH = "batch", "length"
_SERVED = ("input_ids", "attention_mask", "token_type_ids")


def load_model(checkpoint: Checkpoint, *, attention: Literal["eager"] | None = "eager") -> PreTrainedModel:
    """The checkpoint's model in float32, ready to be run.

    Written out (``eager``) attention exports to a graph with fewer small operators, 6 % faster in int8 on a CPU; None
    takes what transformers prefers.

    :raises CheckpointError: if transformers cannot load it, or its weights are not all there.
    """
    where = str(checkpoint.path)
    config = classifier_config(where, local=True)
    set_labels(config, checkpoint.labels)
    return load_weights(where, config, local=True, attention=attention).model


@contextmanager
def returning_embedding(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """While open, the model returns ``logits`` (n, labels) and ``embedding`` (n, hidden).

    The embedding is the mean of the last hidden state over the tokens that are not padding: it needs no pooler, so it
    is the same for every architecture.
    """
    hidden: list[torch.Tensor] = []
    original = model.forward

    def forward(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        mask = bound.bind(*args, **kwargs).arguments["attention_mask"].unsqueeze(-1).to(torch.float32)
        hidden.clear()
        logits = original(*args, **kwargs)["logits"]
        return {"logits": logits, "embedding": (hidden[0] * mask).sum(1) / mask.sum(1).clamp(min=1.0)}

    bound = signature(original)
    forward.__signature__ = bound  # type: ignore[attr-defined]  # Optimum orders the inputs by it
    hook = model.base_model.register_forward_hook(lambda _module, _args, output: hidden.append(output[0]))
    model.forward = forward
    try:
        yield model
    finally:
        hook.remove()
        del model.forward


def export_onnx(model: PreTrainedModel, folder: Path) -> Path:
    """Write the raw float32 graph to ``folder``; batch and length are dynamic, inputs int64.

    :raises CheckpointError: if Optimum does not know the architecture, or it needs an input that is not served.
    """
    kind = model.config.model_type
    try:
        constructor = TasksManager.get_exporter_config_constructor(
            "onnx", model=model, task="text-classification", library_name="transformers"
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"models of type {kind!r} cannot be exported: Optimum does not convert them.") from error
    known = constructor(model.config).inputs
    unserved = [name for name in known if name not in _SERVED]
    if unserved:
        raise CheckpointError(f"models of type {kind!r} need inputs that are not served: {', '.join(unserved)}.")
    inputs = {name: {0: _BATCH, 1: _LENGTH} for name in input_names(model)}
    outputs = {"logits": {0: _BATCH}, "embedding": {0: _BATCH}}
    declared_here = {"inputs": property(lambda _self: inputs), "outputs": property(lambda _self: outputs)}
    config = type("WithEmbedding", (constructor.func,), declared_here)(model.config, **constructor.keywords)
    raw = folder / RAW
    with returning_embedding(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parity check finds what they warn of
        optimum_export(model, config, raw, opset=OPSET, disable_dynamic_axes_fix=True)
    _name_axes(raw)
    return raw


def declared(graph: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and outputs that an ONNX file declares."""
    proto = onnx.load(graph, load_external_data=False).graph
    return tuple(map(_tensor, proto.input)), tuple(map(_tensor, proto.output))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(axis.dim_param or int(axis.dim_value) for axis in kind.shape.dim)
    return Tensor(name=value.name, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape=shape)


def _name_axes(raw: Path) -> None:
    """Give the axes the same two names everywhere; drop the exporter's stack traces, which hold paths."""
    model = onnx.load(raw)
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param = _BATCH
        if value.name in _SERVED:
            axes[1].dim_param = _LENGTH
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    save_graph(model, raw)
    raw.with_name(f"{raw.name}_data").unlink(missing_ok=True)  # where Optimum had put the weights of a large one
