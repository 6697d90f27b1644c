"""The variant for CUDA: fused and in half precision."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from onnxruntime.transformers.optimizer import optimize_model

from export.graphs import graph_bytes, is_large
from export.operators import operators

logger = logging.getLogger(__name__)

FP16 = "model.fp16.onnx"

_FUSED = ("Attention", "MultiHeadAttention", "SkipLayerNormalization", "FastGelu", "BiasGelu", "Gelu")


@dataclass(frozen=True)
class Halved:
    """An fp16 graph: which fused operators it has, and its size."""

    file: Path
    fused: dict[str, int]
    bytes_after: int


def fuse_fp16(raw: Path, folder: Path) -> Halved:
    """Fuse attention and normalisation and convert to half precision; inputs and outputs keep their types.

    What the optimizer does not know how to fuse stays as it is and is only converted.
    """
    out = folder / FP16
    model = optimize_model(str(raw), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
    model.convert_float_to_float16(keep_io_types=True)
    model.save_model_to_file(str(out), use_external_data_format=is_large(model.model))
    found = operators(out)
    if not found["Attention"]:
        logger.warning("no attention was fused: the CUDA variant is slower than it could be")
    return Halved(out, {name: found[name] for name in _FUSED if found[name]}, graph_bytes(out))
