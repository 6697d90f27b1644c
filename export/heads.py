"""Classification heads: loading a base with the wanted labels, keeping what an earlier head knew of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from export.errors import CheckpointError
from service.contract.bundle import Task


def load_classifier(where: str, labels: Sequence[str], task: Task, *, local: bool) -> PreTrainedModel:
    """Load a base for the given labels, in float32. A new head is random; rows for known labels are kept.

    :raises CheckpointError: if transformers cannot load it.
    """
    id2label = dict(enumerate(labels))
    problem = "multi_label_classification" if task == "multi-label" else "single_label_classification"
    try:
        before = AutoConfig.from_pretrained(where, local_files_only=local)
        classifies = any(name.endswith("ForSequenceClassification") for name in before.architectures or [])
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            where,
            id2label=id2label,
            label2id={label: number for number, label in id2label.items()},
            num_labels=len(labels),
            problem_type=problem,
            local_files_only=local,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
        old = [before.id2label[number] for number in range(before.num_labels)]
        if classifies and old != list(labels) and set(old) & set(labels):
            trained = AutoModelForSequenceClassification.from_pretrained(where, local_files_only=local)
            _keep_rows(trained, model, old, labels)
    except Exception as error:  # transformers raises many types without a common base
        first = str(error).strip().split("\n")[0]
        mend = "Check the folder." if local else "Check the name and the network, or give a folder."
        raise CheckpointError(f"{where} cannot be loaded as a classifier: {first} {mend}") from error
    return model


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that makes the logits: the last one as wide as there are labels."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
    ]
    return found[-1]


def _keep_rows(trained: PreTrainedModel, model: PreTrainedModel, old: Sequence[str], new: Sequence[str]) -> None:
    source, target = output_layer(trained), output_layer(model)
    with torch.no_grad():
        for number, label in enumerate(new):
            if label in old:
                target.weight[number] = source.weight[old.index(label)]
                if target.bias is not None:
                    target.bias[number] = source.bias[old.index(label)]
