"""What a processor's instruction set means for int8: a bundle is measured on one and may be served on another."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# Best first: the name of the instruction set and the flag that Linux gives it.
_INSTRUCTION_SETS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2")
_WITHOUT_SATURATION = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "neon_i8mm", "neon_dotprod"})


def instruction_set(cpuinfo: Path = CPUINFO) -> str:
    """The best one for int8 that the processor has: ``avx512_vnni``, ``avx_vnni``, ``avx2`` …, or its architecture."""
    flags = cpuinfo_field(cpuinfo, "flags") or cpuinfo_field(cpuinfo, "Features") or ""
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


def cpuinfo_field(cpuinfo: Path, wanted: str) -> str | None:
    """The first value of that name in Linux' description of its processors, None where there is none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return None
