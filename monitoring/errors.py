"""Errors of the monitor.

PlumblineError
├── StateError       the state folder cannot be used (exit code 1)
├── UnreadableNow    a segment of the log is there and cannot be read
└── Refused
    └── SignatureError   a delivery is not from who it claims to be (exit code 3)
"""

from __future__ import annotations

from service.contract.errors import PlumblineError, Refused


class StateError(PlumblineError):
    """The monitor's state folder is locked by another monitor, damaged, or from a newer version."""

    code = "monitor_state"


class UnreadableNow(PlumblineError):  # noqa: N818  what happened
    """A segment cannot be read, and may be later: for a right, a disk or a network that is missing now."""

    code = "unreadable"


class SignatureError(Refused):
    """A webhook's signature, timestamp or headers do not hold."""

    code = "invalid_signature"
