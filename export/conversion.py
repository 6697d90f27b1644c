"""Whether a checkpoint can be served at all, found out in seconds: it is loaded, run, converted and compared."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from export.checkpoint import Checkpoint
from export.errors import CheckpointError, ParityError, disk_full_named, first_line
from export.onnx import export_onnx, load_model
from export.parity import ATOL, RTOL, check_parity
from export.predict import torch_inputs
from service.contract.bundle import TOKENIZER
from service.contract.errors import PlumblineError
from service.tokenizer import TextTokenizer, Tokens

_TEXTS = ("short", "a text of middling length", "a longer text than the others, so that those are padded beside it")
_NO_PADDING = " config.json names no pad_token_id: set it to the token that filled up the batches in training."


def check_conversion(checkpoint: Checkpoint, *, seed: int) -> None:
    """Convert the model once, unpruned and in float32, and compare the graph with it.

    :raises CheckpointError: if it cannot be loaded, run on a padded batch, or converted, or its graph answers
        otherwise.
    """
    model = load_model(checkpoint)
    what = f"{checkpoint.path}, of type {model.config.model_type!r},"
    _check_batch(model, TextTokenizer(checkpoint.path / TOKENIZER, checkpoint.max_length)(_TEXTS), what)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk_full_named(Path(folder)):
                check_parity(model, export_onnx(model, Path(folder)), checkpoint.max_length, seed=seed)
        except ParityError as error:
            raise CheckpointError(f"{what} cannot be served: {error}") from error
        except PlumblineError:
            raise
        except Exception as error:  # whatever the exporter raises
            raise CheckpointError(f"{what} cannot be converted: {first_line(error)}") from error


def _check_batch(model: PreTrainedModel, batch: list[Tokens], what: str) -> None:
    """Texts of several lengths get the answers that each gets by itself."""
    try:
        with torch.no_grad():
            together = model(**torch_inputs(model, batch)).logits
            alone = torch.cat([model(**torch_inputs(model, [one])).logits for one in batch])
    except Exception as error:  # whatever the model's own code raises
        mend = _NO_PADDING if model.config.pad_token_id is None else ""
        raise CheckpointError(
            f"{what} cannot answer several texts at once, as a server asks it to: {first_line(error)}{mend}"
        ) from error
    if not torch.allclose(together, alone, atol=ATOL, rtol=RTOL):
        raise CheckpointError(
            f"{what} cannot be served in batches: its answer to a text changes by up to "
            f"{float((together - alone).abs().max()):.2g} when the text is padded to the length of another."
        )
