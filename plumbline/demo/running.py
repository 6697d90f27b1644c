"""A server and a monitor beside each other, as the demonstration and the tests on real text run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from monitoring.delivery.hooks import end_command
from plumbline.demo.retraining import Retraining
from plumbline.demo.traffic import Client, Receiver
from plumbline.processes import PLUMBLINE, Process, answers, faults_explained, free_port, say, until
from service.contract.errors import PlumblineError
from service.tasks import SINGLE_LABEL, Task


@dataclass(frozen=True)
class Running:
    """A server and a monitor of one model, each as a process of its own, with what talks to them."""

    name: str
    service: str
    monitor: str
    client: Client
    receiver: Receiver
    retraining: Retraining
    processes: Sequence[Process]

    def detected(self, windows: int) -> dict[str, Any] | None:
        """The event once drift was detected. :raises PlumblineError: if none was in so many windows."""
        if events := self.receiver.of("plumbline.drift.detected"):
            return events[0]
        over = self.judged() >= windows
        if over and not self.sample(self.monitor, "plumbline_alerts_total", type="plumbline.drift.detected"):
            raise PlumblineError(f"the monitor found no drift in {windows} windows; see {self.monitor}/reports/.")
        return None

    def judged(self) -> int:
        """How many windows the monitor has judged."""
        return self.sample(self.monitor, "plumbline_windows_total", outcome="judged")

    def serves(self, version: str) -> bool:
        """Whether this version is live. :raises PlumblineError: if the server will not have it."""
        if self.sample(self.service, "plumbline_model_load_failures_total"):
            raise PlumblineError(f"the server refused version {version}; {self.processes[0].said}")
        return self.client.version(self.name) == version

    def sample(self, url: str, metric: str, **labels: str) -> int:
        """The newest value of a metric of the model; 0 if there is none yet."""
        shown = ",".join(f'{label}="{value}"' for label, value in {"model": self.name, **labels}.items())
        found = re.search(rf"^{re.escape(f'{metric}{{{shown}}}')} (\S+)$", httpx.get(f"{url}/metrics").text, re.M)
        return int(float(found[1])) if found else 0


@contextmanager
def running(
    folder: Path, models: Path, name: str, retrain: Sequence[str] = (), task: Task = SINGLE_LABEL, **environment: str
) -> Iterator[Running]:
    """Serve and monitor ``models``; the server, the monitor and its ``retrain`` command have ended when the block has.

    :param task: what its answers are.
    :param folder: where the log, the monitor's state and what both say goes.
    :param environment: settings of either.
    """
    log, state = folder / "log", folder / "monitor"
    service, monitor = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        arguments = ["serve", f"--repo={models}", f"--log={log}", f"--port={httpx.URL(service).port}"]
        # The log is sealed every second instead of every minute, so that the monitor sees it at once.
        settings = {"PLUMBLINE_LOG_SEAL_SECONDS": "1", "PLUMBLINE_GRACE_SECONDS": "0"}
        server = stack.enter_context(background(arguments, folder / "serve.log", service, **settings, **environment))
        arguments = ["monitor", f"--repo={models}", f"--log={log}", f"--port={httpx.URL(monitor).port}"]
        settings = {
            "PLUMBLINE_MONITOR_POLL_SECONDS": "1",
            "PLUMBLINE_WEBHOOK_URLS": receiver.url,
            "PLUMBLINE_WEBHOOK_SECRET": receiver.secret,
            "PLUMBLINE_PUBLIC_URL": monitor,
        }
        if retrain:
            settings["PLUMBLINE_RETRAIN_COMMAND"] = shlex.join(retrain)
        stack.callback(end_command, state / "retrain")  # the monitor does so itself, unless it is killed
        watcher = stack.enter_context(
            background([*arguments, f"--state={state}"], folder / "monitor.log", monitor, **{**settings, **environment})
        )
        retraining = Retraining(receiver, state, models, name)
        stack.callback(retraining.close)
        with faults_explained([server, watcher]):
            yield Running(name, service, monitor, Client(service, name, task), receiver, retraining, (server, watcher))


@contextmanager
def background(arguments: Sequence[str], log: Path, url: str, **environment: str) -> Iterator[Process]:
    """A command that runs while the block lasts, from when it is ready."""
    say(f"     $ plumbline {shlex.join(arguments)}")
    name = f"`plumbline {arguments[0]}`"
    with Process(name, [*PLUMBLINE, *arguments], log, environment) as process:
        until(lambda: answers(f"{url}/readyz"), f"{name} to be ready", [process])
        yield process
