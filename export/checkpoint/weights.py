"""Loading the weights of a classifier whole: what is missing or left over is an error, not a random number.

transformers fills what a file lacks with random numbers and drops what it does not know, and says so in a log line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from export.checkpoint.load import weight_files
from export.checkpoint.no_code import refuse_code
from export.errors import CheckpointError, first_line

logger = logging.getLogger(__name__)

# What torch.compile, DistributedDataParallel and FSDP put before the names of a module's weights.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PARALLEL = re.compile(r"^(?:module\.)+")

# Weights that no classifier uses: what pretraining leaves beside the encoder, and constants of older versions.
_LEFT_OVER = re.compile(
    r"(?:^|\.)(?:pooler|position_ids|inv_freq|masked_bias|attn\.bias)(?:\.|$)"
    r"|^(?:cls|lm_head|predictions|sop_classifier|pred_layer|lm_loss|mask_predictions|lm_predictions|generator_\w+"
    r"|discriminator_predictions|vocab_transform|vocab_layer_norm|vocab_projector|head|decoder|heads)\."
)
_SHOWN = 3

Head = Literal["ForSequenceClassification", "ForTokenClassification", "Model"]
HEADS: dict[Head, Any] = {
    "ForSequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "ForTokenClassification": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "Model": MODEL_MAPPING,
}


@dataclass(frozen=True)
class Loaded:
    """A model in float32, and the names of its weights that the files did not hold: none, or those of a new head."""

    model: PreTrainedModel
    new: tuple[str, ...] = ()


def classifier_config(where: str, *, local: bool) -> PretrainedConfig:
    """The configuration of the checkpoint in ``where``, a folder or a hub name, for one run forward and no cache.

    :raises CheckpointError: if there is none, it asks for code of its own, or is that of an encoder-decoder.
    """
    try:
        asked, _ = PretrainedConfig.get_config_dict(where, local_files_only=local)
        refuse_code(asked, where)
        config: PretrainedConfig = AutoConfig.from_pretrained(where, local_files_only=local, trust_remote_code=False)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many types without a common base
        mend = "Check the folder." if local else "Check the name and the network, or give a folder."
        raise CheckpointError(f"{where} cannot be loaded: {first_line(error)} {mend}") from error
    if config.is_encoder_decoder:
        raise CheckpointError(
            f"{where} is of type {config.model_type!r}, an encoder-decoder, and only models of one stack are trained "
            "and served. Choose an encoder such as BERT, or a decoder such as Qwen2."
        )
    for name, value in (("use_cache", False), ("output_hidden_states", False), ("output_attentions", False)):
        if hasattr(config, name):
            setattr(config, name, value)
    config.return_dict = True  # otherwise logits have no name
    return config


def set_labels(config: PretrainedConfig, labels: Sequence[str]) -> None:
    """Give the head one row for each label."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}


def load_weights(
    where: str,
    config: PretrainedConfig,
    head: Head,
    *,
    local: bool,
    new_head: bool = False,
    attention: Literal["eager"] | None = None,
) -> Loaded:
    """The classifier in ``where``, in float32, as ``config`` describes it.

    Names that torch.compile or a parallel wrapper put before the weights' own are taken off. With ``new_head`` the
    head, and the pooler below it, may be missing or of another size; they are random then.

    :raises CheckpointError: if transformers cannot load it, or its weights are not those of such a model.
    """
    kind: Any = HEADS[head].get(type(config), None)
    if kind is None:
        raise CheckpointError(f"{where} is of type {config.model_type!r}, of which there is no model {head}.")
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    try:
        state = _without_wrappers(where)
        model, found = kind.from_pretrained(
            where if state is None else None,  # None: the weights are given
            config=config,
            state_dict=state,
            local_files_only=local,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            **options,
        )
    except CheckpointError:
        raise
    except Exception as error:  # as above
        mend = "Check the folder." if local else "Check the name and the network, or give a folder."
        raise CheckpointError(f"{where} cannot be loaded as a classifier: {first_line(error)} {mend}") from error
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    other = sorted(_name(one) for one in found["mismatched_keys"])
    new = (*missing, *other)
    if new_head:
        _check_base(where, model, new)
    else:
        _check_whole(where, model, missing, other)
        _check_left_over(where, model, unexpected)
    loaded: PreTrainedModel = model.eval()
    loaded.name_or_path = loaded.config.name_or_path = where  # what has no name is looked for on the hub
    return Loaded(loaded, new)


def _check_whole(where: str, model: PreTrainedModel, missing: Sequence[str], other: Sequence[str]) -> None:
    kind = type(model).__name__
    if missing:
        raise CheckpointError(
            f"{where} lacks weights of {kind}: {_shown(missing)}. They would be random numbers. "
            f"Save the fine-tuned model itself, head included, with {kind}.save_pretrained."
        )
    if other:
        shapes = _shapes(where)
        ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        told = [f"{name} is {shapes.get(name, '?')} in the file and {ours[name]} by config.json" for name in other]
        raise CheckpointError(
            f"{where} does not fit its config.json: {_shown(told)}. A head has one row for each label: name as many in "
            "id2label, or with --labels. Otherwise save config.json and weights together once more."
        )


def _check_left_over(where: str, model: PreTrainedModel, unexpected: Sequence[str]) -> None:
    unknown = [name for name in unexpected if not _LEFT_OVER.search(name)]
    kind = type(model).__name__
    if unknown:
        raise CheckpointError(
            f"{where} has weights that {kind} does not use: {_shown(unknown)}. It was trained as another model than "
            "config.json says, and would answer otherwise. Save it with the class that config.json names, or remove "
            "the weights if training alone needed them."
        )
    if unexpected:
        logger.info("%s: left out what %s does not use: %s", where, kind, _shown(unexpected))


def _check_base(where: str, model: PreTrainedModel, new: Sequence[str]) -> None:
    """A new head is usual, and a pooler, which masked language models are trained without."""
    prefix = f"{model.base_model_prefix}."
    lost = [name for name in new if name.startswith(prefix) and ".pooler." not in name]
    if lost:
        raise CheckpointError(
            f"{where} lacks weights of the {model.config.model_type} below the head, or has them in another shape: "
            f"{_shown(lost)}. They would be random numbers. Save the base with save_pretrained, or choose another."
        )


def _without_wrappers(where: str) -> dict[str, torch.Tensor] | None:
    """The weights under their own names, if a wrapper's name stands before one of them; None otherwise."""
    names = {name: _PARALLEL.sub("", _WRAPPERS.sub("", name)) for name in _shapes(where)}
    if all(name == own for name, own in names.items()):
        return None
    if len(set(names.values())) < len(names):
        raise CheckpointError(
            f"{where} holds the same weights twice, with and without a wrapper's name before theirs. Save it once more."
        )
    wrapped = next(name for name, own in names.items() if name != own)
    logger.warning("%s: weights were saved through a wrapper; %s is taken for %s", where, wrapped, names[wrapped])
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(Path(where)):
        with safe_open(file, "pt") as tensors:
            state |= {names[name]: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  not a dict
    return state


def _shapes(where: str) -> dict[str, tuple[int, ...]]:
    """The weights by name, of a folder that has them as safetensors; nothing of a hub's."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(Path(where)):
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def _name(mismatched: str | tuple[Any, ...]) -> str:
    return mismatched if isinstance(mismatched, str) else str(mismatched[0])


def _shown(names: Sequence[str]) -> str:
    left = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {left} more" if left > 0 else "")
