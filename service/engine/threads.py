"""How many cores this process may really use (affinity and cgroup quota, not the host's core count), and who first."""

from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores by affinity, cut by the cgroup's CPU quota (v2 ``cpu.max``, v1 ``cfs_quota_us``); at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, affinity if quota is None else min(affinity, math.floor(quota)))


def shares_core(processes: int) -> bool:
    """Whether so many processes have no core each for what they do beside inference."""
    return usable_cores() <= processes


def lower_priority() -> None:
    """Give the calling thread the lowest priority. Only Linux has one for each thread; elsewhere nothing happens."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        return None if limit <= 0 else limit / int((cgroup / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
