"""The whole loop in one command, offline: what ``plumbline demo`` runs.

Every step is the ordinary command line or an HTTP request, so each can be repeated by hand; the commands are shown.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from examples.tickets import tickets, write_csv
from examples.traffic import Client, Receiver, Traffic
from service.contract.errors import InvalidInput, PlumblineError

NAME = "tickets"
MARKER = ".plumbline-demo"  # in folders that a later demonstration may replace
TRAIN_ROWS, EVAL_ROWS, HELD_OUT_ROWS = 800, 1500, 500
WINDOW_ROWS, LABELLED_ROWS = 200, 600

# Short training for a small grammar; real data does better with the defaults.
RECIPE = ("--epochs=3", "--learning-rate=1e-4", "--batch-size=16")

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Figures:
    """What the demonstration measured, all through HTTP."""

    accuracy_old_before: float
    accuracy_old_after: float
    accuracy_new_before: float
    accuracy_new_after: float
    requests_answered: int
    requests_failed: int
    seconds: float
    alert: str
    report: str
    card: str
    folder: str
    service_url: str
    monitor_url: str

    def summary(self) -> str:
        return f"""
                          before    after
  accuracy, old tickets    {self.accuracy_old_before:.3f}    {self.accuracy_old_after:.3f}
  accuracy, new tickets    {self.accuracy_new_before:.3f}    {self.accuracy_new_after:.3f}

  while the new version took over: {self.requests_answered} requests answered, {self.requests_failed} failed
  the alert, signature verified:   {self.alert}
  drift report:                    {self.report}
  model card:                      {self.card}
  everything is in:                {self.folder}
  the whole loop took:             {self.seconds:.0f} s
"""


def run(folder: Path, *, keep: bool, seed: int, on_done: Callable[[Figures], None]) -> Figures:
    """Run the loop in ``folder``; with ``keep`` the server and monitor stay up until Ctrl-C.

    :raises PlumblineError: if a step fails or does not happen in time; the folder stays for a look at its logs.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise InvalidInput(f"{folder} is not empty and not an earlier demonstration. Name another with --dir.")
        shutil.rmtree(folder)
    folder = folder.absolute()
    (folder / "data").mkdir(parents=True)
    (folder / MARKER).touch()
    started = time.monotonic()
    say("1/6  make support tickets: an old product line to learn, a new one to be surprised by")
    judge, new = make_data(folder / "data", seed)
    files = [f"--train={folder / 'data/train.csv'}", f"--eval={folder / 'data/eval.csv'}"]
    models, log = folder / "models", folder / "log"

    say("2/6  fine-tune the packaged MiniLM and export it")
    plumbline("finetune", *files, *RECIPE, f"--out={folder / 'checkpoint'}", f"--seed={seed}")
    options = [f"--repo={models}", f"--name={NAME}", "--max-drop=2", "--time-budget=100s"]
    plumbline("export", str(folder / "checkpoint"), *files, *options)

    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        service, monitor = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        say("3/6  serve it and monitor it; ordinary tickets come in")
        stack.enter_context(serving(folder, models, log, service))
        stack.enter_context(monitoring(folder, models, log, monitor, files, receiver, seed))
        client = Client(service)
        old_before = client.accuracy(*unzip(judge[:HELD_OUT_ROWS]))
        wait(lambda: windows(monitor) >= HELD_OUT_ROWS // WINDOW_ROWS, "the windows to be judged", 60)
        if receiver.events:
            raise PlumblineError(f"ordinary tickets raised an alarm: {receiver.events[0]}. See {folder}.")
        say(f"     accuracy {old_before:.3f}, no alert")

        say("4/6  the new product line is launched; support staff correct the labels")
        held_out, labelled = new[:HELD_OUT_ROWS], new[HELD_OUT_ROWS:]
        client.label(*unzip(labelled), source="support")
        new_before = client.accuracy(*unzip(held_out))
        detected = receiver.wait_for("plumbline.drift.detected", 60)
        alert = f"{detected['type']} {detected['id']}, severity {detected['data']['severity']}"
        say(f"     accuracy {new_before:.3f}; alert received, signature verified")

        say("5/6  the monitor has called the retrain hook; requests keep coming")
        with Traffic(service, [text for text, _ in held_out + judge[:HELD_OUT_ROWS]]) as traffic:
            published = receiver.wait_for("plumbline.model.published", 300, unless="plumbline.model.rejected")
            version = published["data"]["model"]["version"]
            wait(lambda: client.version(NAME) == version, f"version {version} to be served", 30)
            wait(lambda: traffic.answered[version] >= 50, f"traffic on version {version}", 30)

        say(f"6/6  version {version} has taken over")
        figures = Figures(
            accuracy_old_before=old_before,
            accuracy_old_after=client.accuracy(*unzip(judge[:HELD_OUT_ROWS])),
            accuracy_new_before=new_before,
            accuracy_new_after=client.accuracy(*unzip(held_out)),
            requests_answered=sum(traffic.answered.values()),
            requests_failed=len(traffic.failed),
            seconds=time.monotonic() - started,
            alert=alert,
            report=report_file(folder, detected["data"]["report"]),
            card=str(models / NAME / version / "report.html"),
            folder=str(folder),
            service_url=service,
            monitor_url=monitor,
        )
        on_done(figures)
        if keep:
            say(f"running: {service}/docs  {service}/metrics  {monitor}/metrics; Ctrl-C ends it")
            wait_for_interrupt()
    return figures


def make_data(folder: Path, seed: int) -> tuple[Rows, Rows]:
    """Write train, eval and new rows as CSV; returns the last two. Evaluation rows are never training rows."""
    train = tickets(TRAIN_ROWS, seed=3 * seed + 1)
    known = {text for text, _ in train}
    judge = [row for row in tickets(EVAL_ROWS, seed=3 * seed + 2) if row[0] not in known]
    new = tickets(HELD_OUT_ROWS + LABELLED_ROWS, seed=3 * seed + 3, product_line="new")
    for name, rows in (("train", train), ("eval", judge), ("new", new)):
        write_csv(folder / f"{name}.csv", rows)
    return judge, new


@contextmanager
def serving(folder: Path, models: Path, log: Path, url: str) -> Iterator[None]:
    """``plumbline serve`` in the background, its log sealed every second instead of every minute."""
    arguments = ["serve", f"--repo={models}", f"--log={log}", f"--port={httpx.URL(url).port}"]
    with background(arguments, folder / "serve.log", url, PLUMBLINE_LOG_SEAL_SECONDS="1", PLUMBLINE_GRACE_SECONDS="0"):
        yield


@contextmanager
def monitoring(
    folder: Path, models: Path, log: Path, url: str, files: Sequence[str], receiver: Receiver, seed: int
) -> Iterator[None]:
    """``plumbline monitor`` in the background, with the receiver's webhook and a retrain command."""
    retrain = [
        *PLUMBLINE,
        "retrain",
        f"--repo={models}",
        f"--name={NAME}",
        f"--log={log}",
        *files,
        *RECIPE,
        f"--seed={seed}",
    ]
    arguments = ["monitor", f"--repo={models}", f"--log={log}", f"--port={httpx.URL(url).port}"]
    with background(
        [*arguments, f"--state={folder / 'monitor'}"],
        folder / "monitor.log",
        url,
        PLUMBLINE_MONITOR_POLL_SECONDS="1",
        PLUMBLINE_WINDOW_ROWS=str(WINDOW_ROWS),
        PLUMBLINE_CONFIRM_WINDOWS="2",
        PLUMBLINE_WEBHOOK_URLS=receiver.url,
        PLUMBLINE_WEBHOOK_SECRET=receiver.secret,
        PLUMBLINE_PUBLIC_URL=url,
        PLUMBLINE_RETRAIN_COMMAND=shlex.join(retrain),
    ):
        yield


PLUMBLINE = (sys.executable, "-m", "service")


def plumbline(*arguments: str) -> None:
    """Run one command to its end. :raises PlumblineError: if it fails."""
    say(f"     $ plumbline {shlex.join(arguments)}")
    ended = subprocess.run([*PLUMBLINE, *arguments], stdout=sys.stderr, check=False)
    if ended.returncode:
        raise PlumblineError(f"`plumbline {arguments[0]}` ended with exit code {ended.returncode}; it said why above.")


@contextmanager
def background(arguments: Sequence[str], log: Path, url: str, **environment: str) -> Iterator[None]:
    """A command that runs while the block lasts, from when it is ready."""
    say(f"     $ plumbline {shlex.join(arguments)}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*PLUMBLINE, *arguments], stdout=output, stderr=output, env={**os.environ, **environment}
        )

    def ready() -> bool:
        if process.poll() is not None:
            raise PlumblineError(f"`plumbline {arguments[0]}` ended with {process.returncode}; {log} says why.")
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait(ready, f"{url} to be ready", 60)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def report_file(folder: Path, url: str | None) -> str:
    """Where the report lies that the event names by its URL."""
    return "none was written" if url is None else str(folder / "monitor" / "reports" / NAME / url.rsplit("/", 1)[-1])


def windows(monitor: str) -> int:
    """How many windows the monitor has judged."""
    judged = re.findall(
        rf'^plumbline_windows_total{{model="{NAME}",outcome="judged"}} (\S+)$',
        httpx.get(f"{monitor}/metrics").text,
        re.M,
    )
    return int(float(judged[0])) if judged else 0


def unzip(rows: Rows) -> tuple[list[str], list[str]]:
    return [text for text, _ in rows], [label for _, label in rows]


def wait(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """:raises PlumblineError: if the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PlumblineError(f"waited {seconds:.0f} s for {what}.")
        time.sleep(0.1)


def wait_for_interrupt() -> None:
    """Until Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        say("ending")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
