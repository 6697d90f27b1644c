"""Classification heads: loading a base with the wanted labels, keeping what an earlier head knew of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from export.checkpoint.weights import classifier_config, load_weights, set_labels
from export.tasks import training_of
from service.tasks import Task


def load_classifier(
    where: str, labels: Sequence[str], task: Task, *, local: bool, known: Sequence[str] | None = None
) -> PreTrainedModel:
    """Load a base for the given labels, in float32. A new head is random; rows for known labels are kept.

    ``known`` are the labels of a base that already classifies, if not those that its config.json names.

    :raises CheckpointError: if transformers cannot load it, or weights below the head are missing.
    """
    config, head = classifier_config(where, local=local), training_of(task).head
    named: dict[Any, str] = dict(config.id2label or {})
    old = list(known) if known is not None else [named.get(row) for row in range(len(named))]
    classifies = any(name.endswith(head) for name in config.architectures or [])
    set_labels(config, labels)
    config.problem_type = task.problem_type  # type: ignore[assignment]  # one of its literals
    loaded = load_weights(where, config, head, local=local, new_head=True)
    if classifies and old != list(labels) and set(old) & set(labels):
        before = classifier_config(where, local=local)
        set_labels(before, [str(name) for name in old])
        trained = load_weights(where, before, head, local=local, new_head=True)
        if not trained.new:
            _keep_rows(trained.model, loaded.model, old, labels)
    return loaded.model


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that makes the logits: the last one as wide as there are labels."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
    ]
    return found[-1]


def _keep_rows(trained: PreTrainedModel, model: PreTrainedModel, old: Sequence[str | None], new: Sequence[str]) -> None:
    source, target = output_layer(trained), output_layer(model)
    with torch.no_grad():
        for number, label in enumerate(new):
            if label in old:
                target.weight[number] = source.weight[old.index(label)]
                if target.bias is not None:
                    target.bias[number] = source.bias[old.index(label)]
