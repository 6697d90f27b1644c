"""What others would serve of the same checkpoint: ONNX Runtime's float32, and its quantizer's int8 by its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.checkpoint.load import Checkpoint
from export.graph.onnx import export_onnx, load_model
from export.graph.quantize import PER_TENSOR, quantize
from export.hardware import instruction_set


@dataclass(frozen=True)
class Baselines:
    """Graphs of the unpruned checkpoint, of the model as transformers prefers it."""

    float32: Path
    int8: Path


def plain_baselines(checkpoint: Checkpoint, folder: Path) -> Baselines:
    """Write both graphs below ``folder``."""
    float32 = export_onnx(load_model(checkpoint, attention=None), folder)
    int8 = quantize(float32, folder, PER_TENSOR, target=instruction_set()).file
    return Baselines(float32, int8)
