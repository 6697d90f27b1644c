"""What others would serve of the same checkpoint: Optimum's float32 graph and Optimum's own int8."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

from optimum.exporters.onnx import onnx_export_from_model
from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

from export.checkpoint.load import Checkpoint
from export.graph.onnx import OPSET, load_model
from export.hardware import instruction_set

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Baselines:
    """Graphs made by Optimum from the unpruned checkpoint, with Optimum's defaults for this processor."""

    float32: Path
    int8: Path


def optimum_baselines(checkpoint: Checkpoint, folder: Path) -> Baselines:
    """Write both graphs below ``folder``, of the model as transformers prefers it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx_export_from_model(
            load_model(checkpoint, attention=None), folder, task="text-classification", opset=OPSET, do_validation=False
        )
    quantizer = ORTQuantizer.from_pretrained(folder, file_name="model.onnx")
    made = AutoQuantizationConfig.avx512_vnni if "vnni" in instruction_set() else AutoQuantizationConfig.avx2
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantizer.quantize(made(is_static=False, per_channel=False), folder)
    finally:
        root.setLevel(level)
    return Baselines(folder / "model.onnx", folder / "model_quantized.onnx")
