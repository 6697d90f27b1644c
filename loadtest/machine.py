"""What figures were measured on, the instruction set first: those of one processor say little of another."""

from __future__ import annotations

import platform

import numpy
import onnxruntime
import tokenizers

from service.contract.hardware import CPUINFO, cpuinfo_field, instruction_set
from service.engine import usable_cores


def machine() -> str:
    """One line: instruction set, processor, cores, Python, and the libraries that figures depend on most."""
    name = cpuinfo_field(CPUINFO, "model name") or platform.machine()
    libraries = ", ".join(f"{one.__name__} {one.__version__}" for one in (onnxruntime, tokenizers, numpy))
    return f"{instruction_set()}: {name}, {usable_cores()} cores, Python {platform.python_version()}, {libraries}"
