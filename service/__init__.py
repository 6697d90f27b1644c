"""The serving core of Plumbline: contracts, ONNX Runtime engine, HTTP service and command line."""

__version__ = "0.1.0"
