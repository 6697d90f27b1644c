"""Whether a checkpoint can be converted at all, found out in seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from export.checkpoint.load import Checkpoint
from export.checkpoint.tokenizer import CheckpointTokenizer
from export.errors import CheckpointError, ParityError, disk_full_named, first_line
from export.graph.onnx import export_onnx
from export.graph.parity import check_parity
from service.contract.errors import PlumblineError
from service.tasks.tokenizer import Tokens


def check_conversion(
    model: PreTrainedModel,
    checkpoint: Checkpoint,
    tokens: Sequence[Tokens],
    hf_tokenizer: CheckpointTokenizer,
    *,
    seed: int,
) -> None:
    """Convert the model once, unpruned and in float32, and compare the graph with it on ``tokens`` and random rows.

    :raises CheckpointError: if it cannot be converted, or its graph answers otherwise.
    """
    what = f"{checkpoint.path}, of type {model.config.model_type!r},"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk_full_named(Path(folder)):
                graph = export_onnx(model, Path(folder))
                check_parity(
                    model, graph, tokens, max_length=hf_tokenizer.max_length, pad_id=hf_tokenizer.pad_id, seed=seed
                )
        except ParityError as error:
            raise CheckpointError(f"{what} cannot be served: {error}") from error
        except PlumblineError:
            raise
        except Exception as error:  # whatever the exporter raises
            raise CheckpointError(f"{what} cannot be converted: {first_line(error)}") from error
