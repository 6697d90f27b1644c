"""What this machine's processor can do, as far as the speed and the exactness of int8 depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# Best first: the name of the instruction set and the flag that Linux gives it.
_INSTRUCTION_SETS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2")
_WITHOUT_SATURATION = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "neon_i8mm", "neon_dotprod"})


def instruction_set(cpuinfo: Path = CPUINFO) -> str:
    """The best one for int8 that the processor has: ``avx512_vnni``, ``avx_vnni``, ``avx2`` …, or its architecture."""
    flags = _field(cpuinfo, "flags") or _field(cpuinfo, "Features") or ""
    present = set(flags.split())
    for name in _INSTRUCTION_SETS:
        if name in present:
            return name
    if platform.machine() in ("aarch64", "arm64"):
        return "neon_i8mm" if "i8mm" in present else "neon_dotprod"
    return platform.machine() or "unknown"


def saturates(name: str) -> bool:
    """Whether 8-bit dot products can overflow their 16-bit sums there, so that weights must keep to 7 bits.

    True of every x86 without VNNI (onnxruntime#6004).
    """
    return name not in _WITHOUT_SATURATION


def has_native_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    flags = (_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split()
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", "bf16"))


def processor(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name and instruction set, for people."""
    return f"{_field(cpuinfo, 'model name') or platform.machine() or 'unknown processor'} ({instruction_set(cpuinfo)})"


def _field(cpuinfo: Path, wanted: str) -> str | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return None
