"""One worker's part of a stage: requests sent when they are due, and what becomes of each.

Runs on gevent, in the process of ``locust_process``. Latency counts from the moment at which a request was meant to
start, so that what piles up behind a stalled server is not left out (Gil Tene's "coordinated omission").
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Iterator
from itertools import cycle
from time import perf_counter, process_time
from typing import Any

import gevent
import numpy as np
import orjson
from gevent import monkey
from gevent.event import Event
from gevent.pool import Group
from geventhttpclient.response import HTTPConnectionClosed

from loadtest.load.samples import OK, TOO_MANY_FILES
from loadtest.load.stage import Floats, Stage, arrivals

TIMEOUT = "timeout"
LEAD = 0.1  # seconds from the first user to the first request: for the others to be made
_TICK = 0.01  # seconds between two looks at the own lateness where nothing arrives by itself
_LONGEST = 200  # characters of an example
_NAMED = {
    gevent.Timeout: TIMEOUT,
    TimeoutError: TIMEOUT,
    ConnectionRefusedError: "connection refused",
    ConnectionResetError: "connection reset",
    BrokenPipeError: "connection reset",
    HTTPConnectionClosed: "connection closed without an answer",
}
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")


def alarms(moments: Floats, began: float, ring: Callable[[int], None]) -> Event:
    """Call ``ring`` with the number of each moment (seconds after ``began``) as it comes; the event is the end.

    A thread sleeps, since gevent's timers are whole milliseconds: half a millisecond late on average, this a tenth.
    """
    watcher = gevent.get_hub().loop.async_()
    ended, place = Event(), 0

    def look() -> None:
        nonlocal place
        now = perf_counter() - began
        while place < len(moments) and moments[place] <= now:
            ring(place)
            place += 1
        if place == len(moments):
            watcher.stop()
            ended.set()

    def run() -> None:
        for moment in moments:
            if (left := began + moment - perf_counter()) > 0:
                _sleep(left)
            watcher.send()
        while not ended.is_set():  # the last may have been sent a hair too early
            watcher.send()
            _sleep(0.001)

    watcher.start(look)
    _start_thread(run, ())
    return ended


class Work:
    """One worker's part of a stage, and what it sees of it."""

    def __init__(self, order: dict[str, Any], requests: list[tuple[bytes, dict[str, str]]]) -> None:
        self.stage = Stage.model_validate(order["stage"])
        self.timeout: float = order["timeout"]
        self.path: str = order["path"]
        self.began = 0.0
        self.ready, self.started, self.over = Event(), Event(), False  # a user is there; the clock runs; it has run out
        rng = np.random.default_rng(order["seed"])
        self.moments = (
            arrivals(self.stage, order["share"], rng)
            if self.stage.open
            else np.arange(-self.stage.warm_up, self.stage.seconds, _TICK)
        )
        self._requests: Iterator[tuple[bytes, dict[str, str]]] = cycle(
            [requests[index] for index in rng.permutation(len(requests))]
        )
        self._intended, self._latency, self._late, self._kind = array("d"), array("d"), array("d"), array("H")
        self._kinds: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._cpu = 0.0
        self.sent = Group()

    def send(self, client: Any, intended: float | None = None) -> None:
        """Send the next request, meant for ``intended`` (seconds of the stage) or for now, and note its end."""
        body, headers = next(self._requests)
        if intended is None:
            intended = perf_counter() - self.began
        with gevent.Timeout(self.timeout, False):
            response = client.post(self.path, data=body, headers=headers, allow_redirects=False)
            kind = kind_of(response)
            self._note(intended, kind)
            if kind != OK and kind not in self._examples:
                self._examples[kind] = (response.text or str(response.error or ""))[:_LONGEST]
            return
        self._note(intended, TIMEOUT)

    def run(self, client_of: Callable[[], Any]) -> None:
        """From beginning to end, the answers that are waited for included."""
        self.ready.wait()
        late, began = self._late, perf_counter() + LEAD + self.stage.warm_up
        self.began = began
        self.started.set()

        def ring(place: int) -> None:
            moment = self.moments[place]
            if moment >= 0:
                late.append(perf_counter() - began - moment)
            if self.stage.open:
                self.sent.add(gevent.spawn(self.send, client_of(), moment))

        ended = alarms(self.moments, began, ring)
        gevent.sleep(max(began - perf_counter(), 0))
        used = process_time()
        gevent.sleep(max(began + self.stage.seconds - perf_counter(), 0))
        self._cpu = (process_time() - used) / self.stage.seconds
        self.over = True
        ended.wait()
        self.sent.join(self.timeout + 1)

    def report(self) -> dict[str, Any]:
        columns = {"intended": self._intended, "latency": self._latency, "kind": self._kind, "late": self._late}
        packed = {name: np.asarray(column).tobytes() for name, column in columns.items()}
        return {**packed, "kinds": list(self._kinds), "examples": self._examples, "cpu": self._cpu}

    def _note(self, intended: float, kind: str) -> None:
        self._intended.append(intended)
        self._latency.append(perf_counter() - self.began - intended)
        self._kind.append(self._kinds.setdefault(kind, len(self._kinds)))


def kind_of(response: Any) -> str:
    """:data:`OK`, or in what way it failed: status and the server's stable code, or what became of the connection."""
    status = response.status_code
    if status == 200:
        return OK
    if status:
        try:
            code = orjson.loads(response.content or b"")["code"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return f"HTTP {status}"
        return f"HTTP {status} {str(code)[:40]}"
    error = getattr(response.error, "original", response.error)  # geventhttpclient wraps what ends its retries
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return TOO_MANY_FILES
    for kind, said in _NAMED.items():
        if isinstance(error, kind):
            return said
    return type(error).__name__
