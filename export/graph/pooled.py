"""An encoder whose ``logits`` are one vector of each text: what sentence-transformers pools of its tokens."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from transformers import PreTrainedModel


def with_pooled(model: PreTrainedModel, pooling: str) -> PreTrainedModel:
    """``model``, changed so that its outputs have ``logits`` (n, hidden); ``pooling`` is mean, cls or max.

    Its class becomes one of its own, so that copies of it, and of what is cut out of it, pool as well.
    """
    kind = type(model)
    own = kind.forward
    names = list(signature(own).parameters)[1:]  # without self

    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}  # by name, as transformers' own wrappers want them
        found = own(self, **{name: value for name, value in given.items() if value is not None})
        found["logits"] = pooled(found["last_hidden_state"], given["attention_mask"], pooling)
        return found

    forward.__signature__ = signature(own)  # type: ignore[attr-defined]  # inputs are found by it
    # transformers knows by the name of a class which of its outputs can be had
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, **named})
    return model


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(n, hidden) of (n, tokens, hidden), over the tokens that the (n, tokens) ``mask`` keeps."""
    if pooling == "cls":
        return hidden[:, 0]
    kept = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "max":
        return hidden.masked_fill(kept == 0, torch.finfo(hidden.dtype).min).max(dim=1).values
    return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
