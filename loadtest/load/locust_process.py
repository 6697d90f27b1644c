"""The generator: Locust in a process of its own, the only module that imports it (it patches the standard library).

    python -m loadtest.load.locust_process [WORKERS LISTEN]     the coordinator; reads lines of JSON, see ``main``
    python -m loadtest.load.locust_process --worker HOST:PORT   a worker, which sends

Without workers the coordinator sends by itself (Locust's local runner), otherwise it hands out what to do (its master
and workers). Latency counts from the moment at which a request was meant to start, so that what piles up behind a
stalled server is not left out (Gil Tene's "coordinated omission").
"""

from __future__ import annotations

import base64
import errno
import resource
import ssl
import sys
from array import array
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import gevent
import locust  # its import patches the standard library, so everything else comes after
import msgpack
import numpy as np
import orjson
from gevent import monkey
from gevent.event import Event
from gevent.fileobject import FileObjectThread
from gevent.pool import Group
from geventhttpclient.response import HTTPConnectionClosed
from locust import FastHttpUser, constant, task
from locust.env import Environment

from loadtest.load.samples import OK, TOO_MANY_FILES
from loadtest.load.stage import Floats, Stage, arrivals

TIMEOUT = "timeout"
_LEAD = 0.1  # seconds from the first user to the first request: for the others to be made
_TICK = 0.01  # seconds between two looks at the own lateness where nothing arrives by itself
_PATIENCE = 20.0  # seconds for a worker's report beyond those of the stage
_LONGEST = 200  # characters of an example
_CONNECTIONS = 100_000
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
        late, began = self._late, perf_counter() + _LEAD + self.stage.warm_up
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


class Worker:
    """The side that sends: takes its orders as messages of Locust's."""

    def __init__(self, environment: Environment) -> None:
        self.requests: list[tuple[bytes, dict[str, str]]] = []
        self.work: Work | None = None
        self.client: Any = None
        environment.user_classes = [self._user_class()]

    def listen(self, runner: Any) -> None:
        self._runner = runner
        runner.register_message("requests", self._on_requests)
        runner.register_message("stage", self._on_stage)

    def _on_requests(self, environment: Environment, msg: Any, **_: Any) -> None:
        self.requests = [(body, headers) for body, headers in msg.data["requests"]]

    def _on_stage(self, environment: Environment, msg: Any, **_: Any) -> None:
        user: Any = environment.user_classes[0]
        user.network_timeout = user.connection_timeout = msg.data["timeout"]
        self.work = Work(msg.data, self.requests)
        gevent.spawn(self._carry_out, self.work)

    def _carry_out(self, work: Work) -> None:
        work.run(lambda: self.client)
        self._runner.send_message("report", work.report())

    def _user_class(self) -> type[FastHttpUser]:
        worker = self

        class Visitor(FastHttpUser):
            """In a closed stage one client; in an open one the connections of all that arrives."""

            wait_time = constant(0)
            insecure = False
            concurrency = _CONNECTIONS
            max_redirects = 0

            def ssl_context_factory(**_: Any) -> ssl.SSLContext:
                return ssl.create_default_context()  # which heeds SSL_CERT_FILE

            def on_stop(self) -> None:
                self.client.client.close()  # a server with too many connections answers nobody else

            @task
            def visit(self) -> None:
                work = worker.work
                assert work is not None, "users are made after the order"
                worker.client = self.client
                work.ready.set()
                work.started.wait()
                if work.over or work.stage.open:
                    gevent.sleep(3600)  # until Locust stops it
                else:
                    greenlet = gevent.spawn(work.send, self.client)
                    work.sent.add(greenlet)
                    greenlet.join()

        return Visitor


class Coordinator:
    """The side that decides: starts Locust's users and gathers the reports."""

    def __init__(self, environment: Environment, runner: Any, expected: int) -> None:
        self._environment, self._runner, self._expected = environment, runner, expected
        self._reports: dict[str, dict[str, Any]] = {}
        runner.register_message("report", self._on_report)

    def _on_report(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._reports[msg.node_id] = msg.data

    @property
    def workers(self) -> list[str]:
        return list(self._runner.clients) if hasattr(self._runner, "clients") else ["local"]

    def prepare(self, order: dict[str, Any]) -> None:
        self._environment.host = order["host"]
        requests = [(base64.b64decode(body), headers) for body, headers in order["requests"]]
        self._runner.send_message("requests", {"requests": requests})

    def stage(self, order: dict[str, Any]) -> None:
        """Carry out one and write the reports to the file ``out``. :raises RuntimeError: if a worker is lost."""
        stage = Stage.model_validate(order["stage"])
        deadline = perf_counter() + _PATIENCE
        while len(self.workers) < self._expected:  # each leaves and comes back when a stage is stopped
            if perf_counter() > deadline:
                raise RuntimeError(f"only {len(self.workers)} of {self._expected} workers are there; is one lost?")
            gevent.sleep(0.02)
        workers = self.workers
        seeds = np.random.SeedSequence(order["seed"]).generate_state(len(workers))
        self._reports.clear()
        for worker, seed in zip(workers, seeds, strict=True):
            told = {**order, "seed": int(seed), "share": 1 / len(workers)}
            self._runner.send_message("stage", told, client_id=worker)
        users = stage.clients or len(workers)
        self._runner.start(users, spawn_rate=users)
        deadline = perf_counter() + _LEAD + stage.warm_up + stage.seconds + order["timeout"] + _PATIENCE
        while len(self._reports) < len(workers):
            if perf_counter() > deadline:
                raise RuntimeError(f"only {len(self._reports)} of {len(workers)} workers reported; is one lost?")
            gevent.sleep(0.02)
        self._runner.stop()
        Path(order["out"]).write_bytes(msgpack.dumps([self._reports[one] for one in workers]))


def main() -> None:
    """Answer orders, one JSON object a line, each by a line: ``{"requests": …}`` and ``{"stage": …}``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environment = Environment()
    if sys.argv[1:2] == ["--worker"]:
        host, _, port = sys.argv[2].rpartition(":")
        sender = Worker(environment)
        member = environment.create_worker_runner(host, int(port))
        sender.listen(member)
        member.greenlet.join()
        return
    runner: Any
    if sys.argv[1:]:
        host, _, port = sys.argv[2].rpartition(":")
        Worker(environment)  # for its class of users
        runner = environment.create_master_runner(host, int(port))
        _answer({"listening": True})
        while runner.worker_count < int(sys.argv[1]):
            gevent.sleep(0.05)
    else:
        worker = Worker(environment)
        runner = environment.create_local_runner()
        worker.listen(runner)
    coordinator = Coordinator(environment, runner, int(sys.argv[1]) if sys.argv[1:] else 1)
    _answer({"ready": len(coordinator.workers), "locust": locust.__version__})
    for line in FileObjectThread(sys.stdin.buffer):
        order = orjson.loads(line)
        try:
            coordinator.prepare(order) if "requests" in order else coordinator.stage(order)
        except RuntimeError as error:
            _answer({"error": str(error)})
            continue
        _answer({"done": True})
    runner.quit()


def _answer(content: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(content) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
