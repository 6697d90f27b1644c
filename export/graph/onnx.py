"""Checkpoint to ONNX, with the outputs ``logits`` and ``embedding``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from optimum.utils import DummyTextInputGenerator, NormalizedConfigManager
from optimum.utils.normalized_config import NormalizedTextConfig
from transformers import PreTrainedModel

from export.checkpoint.load import Checkpoint
from export.checkpoint.weights import classifier_config, load_weights, set_labels
from export.errors import CheckpointError
from export.graph.files import save_graph
from export.graph.pooled import with_pooled
from export.inference.predict import input_names
from export.tasks import training_of
from service.contract.bundle import Tensor

OPSET = 18
RAW = "model.onnx"
_BATCH, _LENGTH = "batch", "length"
_EXAMPLE = 16  # tokens
_UNSERVED = ("global_attention_mask", "bbox", "pixel_values")
_SERVED = ("input_ids", "attention_mask", "token_type_ids")


def load_model(checkpoint: Checkpoint, *, attention: Literal["eager"] | None = "eager") -> PreTrainedModel:
    """The checkpoint's model in float32, ready to be run.

    Written out (``eager``) attention exports to a graph with fewer small operators, 6 % faster in int8 on a CPU; None
    takes what transformers prefers.

    :raises CheckpointError: if transformers cannot load it, or its weights are not all there.
    """
    where = str(checkpoint.path)
    config = classifier_config(where, local=True)
    head = training_of(checkpoint.task).head
    if checkpoint.task.vector:
        model = load_weights(where, config, head, local=True, attention=attention).model
        return with_pooled(model, str(checkpoint.task.settings["pooling"]))
    set_labels(config, checkpoint.labels)
    return load_weights(where, config, head, local=True, attention=attention).model


@contextmanager
def returning_embedding(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """While open, the model returns ``logits``, (n, labels) or (n, tokens, labels), and ``embedding`` (n, hidden).

    The embedding is the mean of the last hidden state over the tokens that are not padding: it needs no pooler, so it
    is the same for every architecture.
    """
    hidden: list[torch.Tensor] = []
    original = model.forward

    def forward(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        mask = bound.bind(*args, **kwargs).arguments["attention_mask"].unsqueeze(-1).to(torch.float32)
        hidden.clear()
        given = original(*args, **kwargs)
        state = given["last_hidden_state"] if alone else hidden[0]
        return {"logits": given["logits"], "embedding": (state * mask).sum(1) / mask.sum(1).clamp(min=1.0)}

    bound = signature(original)
    forward.__signature__ = bound  # type: ignore[attr-defined]  # the exporter orders the inputs by it
    alone = model.base_model is model  # an encoder without a head
    keep = (lambda _module, _args, output: None) if alone else (lambda _module, _args, output: hidden.append(output[0]))
    hook = model.base_model.register_forward_hook(keep)
    model.forward = forward
    try:
        yield model
    finally:
        hook.remove()
        del model.forward


def export_onnx(model: PreTrainedModel, folder: Path) -> Path:
    """Write the raw float32 graph to ``folder``; batch and length are dynamic, inputs int64.

    By ``torch.onnx.export``'s tracer: its graphs are what the projections and the quantizer know, and are made in
    seconds, where the exporter on ``torch.export`` takes tens of them and a search makes dozens of graphs.

    :raises CheckpointError: if the model needs an input that is not served.
    """
    unserved = [name for name in signature(model.forward).parameters if name in _UNSERVED]
    if unserved:
        raise CheckpointError(
            f"models of type {model.config.model_type!r} need inputs that are not served: {', '.join(unserved)}."
        )
    raw = folder / RAW
    names = input_names(model)
    with returning_embedding(model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the parity check finds what they warn of
        example = _example(model, names)
        per_token = model(**example)["logits"].dim() > 2
        torch.onnx.export(
            model,
            (),
            raw,
            kwargs=example,
            input_names=list(names),
            output_names=["logits", "embedding"],
            dynamic_axes={
                **{name: {0: _BATCH, 1: _LENGTH} for name in names},
                "logits": {0: _BATCH, **({1: _LENGTH} if per_token else {})},
                "embedding": {0: _BATCH},
            },
            opset_version=OPSET,
            dynamo=False,
        )
    _name_axes(raw, per_token=per_token)
    return raw


def _example(model: PreTrainedModel, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Two rows, one of them padded, so that nothing that depends on a mask is folded away."""
    try:
        normalized = NormalizedConfigManager.get_normalized_config_class(model.config.model_type)
    except KeyError:  # newer than Optimum
        normalized = NormalizedTextConfig
    generator = DummyTextInputGenerator(
        "text-classification", normalized(model.config), batch_size=2, sequence_length=_EXAMPLE
    )
    example = {name: generator.generate(name, framework="pt").to(model.device) for name in names}
    example["attention_mask"] = torch.ones_like(example["attention_mask"])
    example["attention_mask"][1, _EXAMPLE // 2 :] = 0
    return example


def declared(graph: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and outputs that an ONNX file declares."""
    proto = onnx.load(graph, load_external_data=False).graph
    return tuple(map(_tensor, proto.input)), tuple(map(_tensor, proto.output))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(axis.dim_param or int(axis.dim_value) for axis in kind.shape.dim)
    return Tensor(name=value.name, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape=shape)


def _name_axes(raw: Path, *, per_token: bool) -> None:
    """Give the axes the same two names everywhere; drop the exporter's stack traces, which hold paths."""
    model = onnx.load(raw)
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param = _BATCH
        if value.name in _SERVED or (per_token and value.name == "logits"):
            axes[1].dim_param = _LENGTH
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    save_graph(model, raw)
    raw.with_name(f"{raw.name}_data").unlink(missing_ok=True)  # where the exporter had put the weights of a large one
