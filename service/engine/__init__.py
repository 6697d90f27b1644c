"""ONNX Runtime sessions: providers, threads, padding and warm-up."""

from service.engine.cost import measure
from service.engine.session import Engine, EngineError, Outputs, length_grid
from service.engine.threads import usable_cores

__all__ = ["Engine", "EngineError", "Outputs", "length_grid", "measure", "usable_cores"]
