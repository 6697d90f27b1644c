"""The whole loop in one command, offline: what ``plumbline demo`` runs.

Every step is the ordinary command line or an HTTP request, so each can be repeated by hand; the commands are shown.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from plumbline.demo.running import running
from plumbline.demo.tagged_tickets import tagged_tickets
from plumbline.demo.ticket_phrases import ProductLine
from plumbline.demo.tickets import tickets, write_csv
from plumbline.demo.traffic import Traffic
from plumbline.processes import PLUMBLINE, Process, interruptible, say, until
from service.contract.dataset import Dataset, write_jsonl
from service.contract.errors import InvalidInput, PlumblineError
from service.tasks import SINGLE_LABEL, TOKENS, Task

MARKER = ".plumbline-demo"  # in folders that a later demonstration may replace

# What decides how long it takes. Held-out rows make whole windows.
TRAIN_ROWS, EVAL_ROWS = 480, 440
WINDOW_ROWS, HELD_OUT_ROWS, LABELLED_ROWS = 200, 400, 400
TIME_BUDGET = "64s"
TRAFFIC_PAUSE = 0.2  # seconds; the retrain needs the cores, too
LEAST_ANSWERS = 15  # of the new version before the end

# Short training for a small grammar; real data does better with the defaults.
RECIPE = ("--learning-rate=2e-4", "--batch-size=16")
FINETUNE = (*RECIPE, "--epochs=3")

Rows = list[tuple[str, str]]


class _Tickets(Protocol):
    def __call__(self, count: int, *, seed: int, product_line: ProductLine = "old") -> Rows: ...


@dataclass(frozen=True)
class Subject:
    """What is shown: the model's name, its task, and its data by product line."""

    name: str
    task: Task
    tickets: _Tickets
    suffix: str
    retrain: tuple[str, ...]


SUBJECTS = {
    "intent": Subject("tickets", SINGLE_LABEL, tickets, "csv", (*RECIPE, "--epochs=2", "--max-drop=2")),
    "ner": Subject("orders", TOKENS, tagged_tickets, "jsonl", (*RECIPE, "--epochs=3", "--max-drop=4")),
}


@dataclass(frozen=True)
class Figures:
    """What the demonstration measured, all through HTTP."""

    metric: str
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
  {f"{self.metric}, old tickets":<23}  {self.accuracy_old_before:.3f}    {self.accuracy_old_after:.3f}
  {f"{self.metric}, new tickets":<23}  {self.accuracy_new_before:.3f}    {self.accuracy_new_after:.3f}

  while the new version took over: {self.requests_answered} requests answered, {self.requests_failed} failed
  the alert, signature verified:   {self.alert}
  drift report:                    {self.report}
  model card:                      {self.card}
  everything is in:                {self.folder}
  the whole loop took:             {self.seconds:.0f} s
"""


def run(
    folder: Path, *, keep: bool, seed: int, on_done: Callable[[Figures], None], subject: Subject = SUBJECTS["intent"]
) -> Figures:
    """Run the loop in ``folder``; with ``keep`` the server and monitor stay up until Ctrl-C.

    On any end, Ctrl-C included, no process is left; the folder stays for a look at its logs.

    :raises PlumblineError: if a step fails, or a process that something is expected of ends.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise InvalidInput(f"{folder} is not empty and not an earlier demonstration. Name another with --dir.")
        shutil.rmtree(folder)
    folder = folder.absolute()
    (folder / "data").mkdir(parents=True)
    (folder / MARKER).touch()
    with interruptible():
        return loop(folder, subject, keep=keep, seed=seed, on_done=on_done)


def loop(folder: Path, subject: Subject, *, keep: bool, seed: int, on_done: Callable[[Figures], None]) -> Figures:
    """The six steps."""
    name, metric, suffix = subject.name, subject.task.metric, subject.suffix
    started = time.monotonic()
    say("1/6  make support tickets: an old product line to learn, a new one to be surprised by")
    judge, new = make_data(folder / "data", subject, seed)
    old, held_out, labelled = judge[:HELD_OUT_ROWS], new[:HELD_OUT_ROWS], new[HELD_OUT_ROWS:]
    files = [f"--{what}={folder / f'data/{what}.{suffix}'}" for what in ("train", "eval")]
    models = folder / "models"

    say("2/6  fine-tune the packaged MiniLM and export it")
    plumbline("finetune", *files, *FINETUNE, f"--out={folder / 'checkpoint'}", f"--seed={seed}")
    options = [f"--repo={models}", f"--name={name}", "--max-drop=2", f"--time-budget={TIME_BUDGET}"]
    plumbline("export", str(folder / "checkpoint"), *files, *options)

    say("3/6  serve it and monitor it; ordinary tickets come in")
    retrain = [*PLUMBLINE, "retrain", f"--repo={models}", f"--name={name}", f"--log={folder / 'log'}"]
    command = [*retrain, *files, *subject.retrain, f"--seed={seed}"]
    settings = {"PLUMBLINE_WINDOW_ROWS": str(WINDOW_ROWS), "PLUMBLINE_CONFIRM_WINDOWS": "2"}
    with running(folder, models, name, command, subject.task, **settings) as live:
        client, expect = live.client, partial(until, processes=live.processes)
        old_before = client.score(*unzip(old))
        windows = len(old) // WINDOW_ROWS
        expect(lambda: live.judged() >= windows, f"{windows} windows to be judged")
        if live.receiver.events:
            raise PlumblineError(f"ordinary tickets raised an alarm: {live.receiver.events[0]}. See {folder}.")
        say(f"     {metric} {old_before:.3f}, no alert")

        say("4/6  the new product line is launched; support staff correct the labels")
        client.label(*unzip(labelled), source="support")
        new_before = client.score(*unzip(held_out))
        windows = (len(old) + len(new)) // WINDOW_ROWS
        detected = expect(lambda: live.detected(windows), "the monitor to detect drift")
        alert = f"{detected['type']} {detected['id']}, severity {detected['data']['severity']}"
        say(f"     {metric} {new_before:.3f}; alert received, signature verified")

        say("5/6  the monitor has called the retrain hook; requests keep coming")
        with Traffic(live.service, [text for text, _ in held_out + old], TRAFFIC_PAUSE) as traffic:
            retraining = live.retraining
            published = expect(retraining.published, "the retrained version to be published", news=retraining.news)
            version = published["data"]["model"]["version"]
            expect(lambda: live.serves(version), f"version {version} to be served")
            expect(lambda: traffic.answered[version] >= LEAST_ANSWERS, f"traffic on version {version}")

        say(f"6/6  version {version} has taken over")
        figures = Figures(
            metric=metric,
            accuracy_old_before=old_before,
            accuracy_old_after=client.score(*unzip(old)),
            accuracy_new_before=new_before,
            accuracy_new_after=client.score(*unzip(held_out)),
            requests_answered=sum(traffic.answered.values()),
            requests_failed=len(traffic.failed),
            seconds=time.monotonic() - started,
            alert=alert,
            report=report_file(folder, name, detected["data"]["report"]),
            card=str(models / name / version / "report.html"),
            folder=str(folder),
            service_url=live.service,
            monitor_url=live.monitor,
        )
        on_done(figures)
        if keep:
            say(f"running: {live.service}/docs  {live.service}/metrics  {live.monitor}/metrics; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                signal.pause()
            say("ending")
    return figures


def make_data(folder: Path, subject: Subject, seed: int) -> tuple[Rows, Rows]:
    """Write train, eval and new rows as files; returns the last two. Evaluation rows are never training rows."""
    train = subject.tickets(TRAIN_ROWS, seed=3 * seed + 1)
    known = {text for text, _ in train}
    judge = [row for row in subject.tickets(EVAL_ROWS, seed=3 * seed + 2) if row[0] not in known]
    new = subject.tickets(HELD_OUT_ROWS + LABELLED_ROWS, seed=3 * seed + 3, product_line="new")
    for name, rows in (("train", train), ("eval", judge), ("new", new)):
        if subject.suffix == "csv":
            write_csv(folder / f"{name}.csv", rows)
        else:
            texts, labels = unzip(rows)
            write_jsonl(folder / f"{name}.jsonl", Dataset(texts, labels, spans=subject.task.per_token))
    return judge, new


def plumbline(*arguments: str) -> None:
    """Run one command to its end. :raises PlumblineError: if it fails."""
    say(f"     $ plumbline {shlex.join(arguments)}")
    with Process(f"`plumbline {arguments[0]}`", [*PLUMBLINE, *arguments]) as process:
        process.finish()


def report_file(folder: Path, name: str, url: str | None) -> str:
    """Where the report lies that the event names by its URL."""
    return "none was written" if url is None else str(folder / "monitor" / "reports" / name / url.rsplit("/", 1)[-1])


def unzip(rows: Rows) -> tuple[list[str], list[str]]:
    return [text for text, _ in rows], [label for _, label in rows]
