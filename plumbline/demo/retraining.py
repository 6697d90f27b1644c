"""The monitor's retrain command as it is seen from outside: what it is at, and how it ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monitoring.delivery.hooks import newest_command
from monitoring.state import StateStore
from plumbline.demo.traffic import Receiver
from plumbline.processes import last_lines
from service.contract.errors import PlumblineError
from service.contract.repository import versions


class Retraining:
    """Follows the retrain of a model that the monitor with this ``state`` has asked for."""

    def __init__(self, receiver: Receiver, state: Path, repo: Path, name: str) -> None:
        self._receiver, self._repo, self._name = receiver, repo, name
        self._store, self._logs = StateStore(state), state / "retrain"
        self._before = versions(repo, name)
        self._read = 0

    def published(self) -> dict[str, Any] | None:
        """The event of the new version once it came.

        :raises PlumblineError: if it never will: the version was rejected, or the command ended without one.
        """
        if events := self._receiver.of("plumbline.model.published"):
            return events[0]
        command = newest_command(self._store, self._logs, self._name)
        if command is None or command.status in ("pending", "running"):
            return None
        end = last_lines(command.log)
        if events := self._receiver.of("plumbline.model.rejected"):
            raise PlumblineError(
                f"the retrained version was rejected: {'; '.join(events[0]['data']['reasons'])}; {end}"
            )
        if command.status == "dead":
            raise PlumblineError(f"the retrain failed ({command.end}); {end}")
        if versions(self._repo, self._name) == self._before:
            raise PlumblineError(f"the retrain ended and published nothing; {end}")
        return None  # the monitor has yet to see the version and to tell of it

    def news(self) -> list[str]:
        """What the command said about its progress since the last call."""
        command = newest_command(self._store, self._logs, self._name)
        if command is None or not command.log.exists():
            return []
        with command.log.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        return re.findall(r"^\S+ \S+ INFO \S+: (.+)$", whole.decode(errors="replace"), re.M)

    def close(self) -> None:
        """Close the state."""
        self._store.close()
