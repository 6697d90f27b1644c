"""ONNX Runtime sessions: providers, threads, padding and warm-up."""

from service.engine.cost import measure
from service.engine.session import SLOWER_FUSED, Engine, EngineError, Outputs, length_grid
from service.engine.threads import lower_priority, shares_core, usable_cores

__all__ = [
    "SLOWER_FUSED",
    "Engine",
    "EngineError",
    "Outputs",
    "length_grid",
    "lower_priority",
    "measure",
    "shares_core",
    "usable_cores",
]
