"""Whose rights a process has, for messages about files that it cannot use."""

from __future__ import annotations

import os


def this_user() -> str:
    """The user by number, as containers know it."""
    return f"user {os.geteuid()}"


def care_of_root() -> str | None:
    """What to say to people if the process runs as root; None if it does not."""
    if os.geteuid() != 0:
        return None
    return (
        "this runs as root, which Plumbline needs for nothing; what it writes, another user cannot continue. Start it "
        "as another user: `--user 10001` of docker and podman, `runAsNonRoot: true` in Kubernetes, `User=` of systemd"
    )
