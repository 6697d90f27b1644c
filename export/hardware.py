"""What this machine's processor can do, as far as the speed and the exactness of an export depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

from service.contract.hardware import CPUINFO, cpuinfo_field, instruction_set, saturates

__all__ = ["has_native_bfloat16", "instruction_set", "processor", "saturates"]


def has_native_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    flags = (cpuinfo_field(cpuinfo, "flags") or cpuinfo_field(cpuinfo, "Features") or "").split()
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", "bf16"))


def processor(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name and instruction set, for people."""
    name = cpuinfo_field(cpuinfo, "model name") or platform.machine() or "unknown processor"
    return f"{name} ({instruction_set(cpuinfo)})"
