"""The generator as seen from the command: a process of Locust, and its workers on this machine, carry out stages.

It is a process of its own because Locust patches the standard library, and because what it costs can be told apart.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgpack

from loadtest.load.protocols import Request
from loadtest.load.samples import Samples, joined
from loadtest.load.stage import Stage
from plumbline.processes import Process, free_port, last_lines
from service.contract.errors import PlumblineError

_PATIENCE = 10.0  # seconds for it to end by itself
COMMAND = (sys.executable, "-m", "loadtest.load.locust_process")


@dataclass(frozen=True)
class Target:
    """Where requests go: ``host`` is the server's URL without a path, ``path`` begins with ``/``."""

    host: str
    path: str
    requests: Sequence[Request]
    headers: Mapping[str, str]  # of each request, beside its own
    timeout: float  # seconds


class Generator:
    """Carries out stages against targets, one at a time."""

    def __init__(self, orders: IO[bytes], answers: IO[bytes], folder: Path, fault: Callable[[], str]) -> None:
        self._orders, self._answers, self._folder, self._fault = orders, answers, folder, fault
        self._target: Target | None = None
        self.workers = 0

    def run(self, target: Target, stage: Stage, seed: int) -> Samples:
        """:raises PlumblineError: if a worker or the generator is lost."""
        if target is not self._target:
            requests = [
                (base64.b64encode(one.body).decode(), {**target.headers, **one.headers}) for one in target.requests
            ]
            self._ask({"host": target.host, "requests": requests})
            self._target = target
        out = self._folder / "reports"
        self._ask(
            {
                "stage": stage.model_dump(),
                "path": target.path,
                "timeout": target.timeout,
                "seed": seed,
                "out": str(out),
            }
        )
        return joined(msgpack.loads(out.read_bytes()), stage.seconds)

    def answer(self) -> dict[str, Any]:
        """The next line that it says. :raises PlumblineError: if it ended instead."""
        line = self._answers.readline()
        if not line:
            raise PlumblineError(f"the load generator ended: {self._fault()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ask(self, order: dict[str, Any]) -> None:
        try:
            self._orders.write(json.dumps(order).encode() + b"\n")
            self._orders.flush()
        except BrokenPipeError as error:
            raise PlumblineError(f"the load generator ended: {self._fault()}") from error
        answer = self.answer()
        if "error" in answer:
            raise PlumblineError(f"the load generator failed: {answer['error']}")


@contextmanager
def generating(
    workers: int = 1, listen: str | None = None, on_wait: Callable[[], None] = lambda: None
) -> Iterator[Generator]:
    """A generator of so many processes.

    :param listen: ``HOST:PORT`` at which workers on other machines are waited for; without it they are started here.
    :param on_wait: called when it waits for them.
    :raises PlumblineError: if it cannot start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = folder / "generator.log"
        spread = workers > 1 or listen is not None
        address = listen or f"127.0.0.1:{free_port()}"
        process = stack.enter_context(_process([str(workers), address] if spread else [], log))
        assert process.stdin is not None
        assert process.stdout is not None
        generator = Generator(process.stdin, process.stdout, folder, lambda: last_lines(log))
        if spread:
            generator.answer()
            on_wait()
            for number in range(0 if listen else workers):
                worker_log = folder / f"worker-{number}.log"
                stack.enter_context(Process("a worker", [*COMMAND, "--worker", address], worker_log))
        generator.workers = generator.answer()["ready"]
        yield generator


@contextmanager
def _process(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """It ends when its input does, so also when this process is killed; Ctrl-C is for this process only."""
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        try:
            yield process
            assert process.stdin is not None
            process.stdin.close()  # then it ends its workers, those on other machines too
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
        finally:
            process.terminate()
