"""ONNX graphs as files: one file, and a second one for the weights where they are too many for the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

# A protobuf message ends at 2 GiB; what stands beside the weights needs some room, too.
LARGEST = 2**31 - 2**26


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the weights need a file of their own."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` to ``path``, the weights of a large one to ``<path>.data``."""
    data = weights_file(path)
    data.unlink(missing_ok=True)
    if is_large(model):
        onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
    else:
        onnx.save(model, path)


def copy_graph(path: Path, folder: Path) -> Path:
    """Copy a graph with its weights, under the same name, because a graph names the file of its weights."""
    if weights_file(path).is_file():
        shutil.copyfile(weights_file(path), folder / weights_file(path).name)
    return Path(shutil.copyfile(path, folder / path.name))


def graph_bytes(path: Path) -> int:
    """The size of the file, or of both."""
    data = weights_file(path)
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def weights_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")
