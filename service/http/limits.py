"""What all connections of a process share: how many there may be, what their requests hold, what was refused."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from service.settings import ServiceSettings

logger = logging.getLogger(__name__)

Reason = Literal[
    "malformed",
    "head_too_large",
    "head_timeout",
    "body_timeout",
    "answer_timeout",
    "bodies_too_large",
    "connections",
    "connections_of_address",
]

_RESERVED = 128  # descriptors for the server's own files: log, models, repository, other workers
_SILENT = 1.0  # seconds without a request after which a new connection may have to make room
_IDLE = 5.0  # the same between two requests: clients that are at work come back sooner


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask for, in bytes and seconds; see :class:`ServiceSettings`."""

    head_bytes: int = 32 * 2**10
    headers: int = 100
    head_seconds: float = 20.0
    body_seconds: float = 10.0
    body_rate: int = 16 * 2**10
    bodies_bytes: int = 64 * 2**20
    connections: int = 1000
    connections_per_address: int = 0
    keep_alive_seconds: float = 120.0


def limits(settings: ServiceSettings) -> Limits:
    """As the settings say, but with no more connections than leave descriptors for the server's own files."""
    return Limits(
        head_bytes=settings.max_head_bytes,
        headers=settings.max_headers,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        body_rate=settings.min_body_rate,
        bodies_bytes=settings.max_bodies_bytes,
        connections=_with_descriptors(settings.max_connections),
        connections_per_address=settings.max_connections_per_address,
        keep_alive_seconds=settings.keep_alive_seconds,
    )


def _with_descriptors(wanted: int) -> int:
    """How many connections there is room for. Raises the process's soft limit as far as that takes and is allowed."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + _RESERVED:
        soft = wanted + _RESERVED if hard == resource.RLIM_INFINITY else min(wanted + _RESERVED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else max(soft - _RESERVED, soft // 2)
    if room < wanted:
        logger.warning(
            "PLUMBLINE_MAX_CONNECTIONS is %d, but the process may have %d files open: at most %d connections are "
            "taken. Raise the limit (ulimit -n).",
            *(wanted, soft, room),
        )
    return min(wanted, room)


class Guest(Protocol):
    """A connection, as the door knows it."""

    def turn_out(self) -> None:
        """Close at once, to make room."""


class ConnectionGuard:
    """Counts connections and the bytes that their requests hold. For one event loop.

    :param on_refused: called with the reason of each refusal.
    """

    def __init__(self, limits: Limits, on_refused: Callable[[Reason], None] = lambda reason: None) -> None:
        self.limits = limits
        self.refused = on_refused
        self._inside = 0
        self._of_address: Counter[str] = Counter()
        self._bytes = 0
        self._silent: dict[Guest, float] = {}  # without a whole head, by when they came; oldest first
        self._idle: dict[Guest, float] = {}  # between two requests, by when the last was answered

    def enter(self, guest: Guest, address: str, now: float) -> Reason | None:
        """Let a connection in; or say why not. One that is let in has to :meth:`leave`.

        Where there is no room, one that says nothing has to go: a flood of silent connections must not keep clients
        out that have something to ask.
        """
        most = self.limits.connections_per_address
        if most and address and self._of_address[address] >= most:
            return "connections_of_address"
        if self._inside >= self.limits.connections and not self._made_room(now):
            return "connections"
        self._inside += 1
        if most:
            self._of_address[address] += 1
        self._silent[guest] = now
        return None

    def leave(self, guest: Guest, address: str) -> None:
        self._inside -= 1
        self.busy(guest)
        if self.limits.connections_per_address:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def busy(self, guest: Guest) -> None:
        """A connection has a request to be answered."""
        if self._silent.pop(guest, None) is None:
            self._idle.pop(guest, None)

    def idle(self, guest: Guest, now: float) -> None:
        """A connection has had its answer."""
        self._idle[guest] = now

    def take(self, count: int) -> bool:
        """Whether a request may hold so many bytes more. Those that it took, it has to :meth:`give` back."""
        if self._bytes + count > self.limits.bodies_bytes:
            return False
        self._bytes += count
        return True

    def give(self, count: int) -> None:
        self._bytes -= count

    def _made_room(self, now: float) -> bool:
        for group, patience in ((self._silent, _SILENT), (self._idle, _IDLE)):
            for guest, since in group.items():
                if now - since < patience:
                    break
                self.refused("connections")
                guest.turn_out()  # which leaves a little later
                self.busy(guest)
                return True
        return False
