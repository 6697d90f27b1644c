"""Which operators a graph has, as written and after ONNX Runtime has optimised it."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort

# What multiplies with int8 weights, before and after fusion.
QUANTIZED = (
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearMatMul",
    "QAttention",
)


def operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)


def optimised_operators(file: Path) -> Counter[str]:
    """The operators that really run on the CPU: ONNX Runtime rewrites a graph when it loads it."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimised.data")
        ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return operators(Path(options.optimized_model_filepath))


def count_quantized(found: Counter[str]) -> int:
    return sum(found[name] for name in QUANTIZED)
