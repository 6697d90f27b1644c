"""The serving core of Plumbline: contracts, ONNX Runtime engine and HTTP service."""

__version__ = "0.1.0"
