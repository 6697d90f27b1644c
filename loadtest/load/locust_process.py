"""The generator: Locust in a process of its own, the only module that imports it (it patches the standard library).

    python -m loadtest.load.locust_process [WORKERS LISTEN]     the coordinator; reads lines of JSON, see ``main``
    python -m loadtest.load.locust_process --worker HOST:PORT   a worker, which sends

Without workers the coordinator sends by itself (Locust's local runner), otherwise it hands out what to do (its master
and workers).
"""

from __future__ import annotations

import base64
import resource
import ssl
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent
import locust  # its import patches the standard library, so everything else comes after
import msgpack
import numpy as np
import orjson
from gevent.fileobject import FileObjectThread
from locust import FastHttpUser, constant, task
from locust.env import Environment

from loadtest.load.sending import LEAD, Work
from loadtest.load.stage import Stage

_PATIENCE = 20.0  # seconds for a worker's report beyond those of the stage
_CONNECTIONS = 100_000


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
        deadline = perf_counter() + LEAD + stage.warm_up + stage.seconds + order["timeout"] + _PATIENCE
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
