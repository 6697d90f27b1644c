"""The whole loop on real text: film reviews, then phone-accessory reviews, then finance headlines.

Everything after the export goes through HTTP against a running server and monitor, as users meet them. The figures
are printed with 95 % Wilson intervals.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from scipy.stats import binomtest

from examples.traffic import Client, Receiver, Traffic
from service.contract.dataset import Dataset, read_dataset, write_jsonl
from tests.processes import free_port, plumbline, running, until

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(1500)]

NAME = "sst2"
WINDOW = 218  # half of the held-out half of sst2/dev
# Points on old rows. Learning headlines costs about one, with a standard error of 1.25 on 436 rows: a fifth of all runs
# would be told that they lost more than 2.
MAX_DROP = 4


@dataclass(frozen=True)
class Score:
    right: int
    rows: int

    @property
    def accuracy(self) -> float:
        return self.right / self.rows

    def __str__(self) -> str:
        interval = binomtest(self.right, self.rows).proportion_ci(method="wilson")
        return f"{self.accuracy:.3f} ({interval.low:.3f} to {interval.high:.3f}, {self.rows} rows)"


@dataclass(frozen=True)
class Running:
    """A server and a monitor, each as a process of its own."""

    client: Client
    service: str
    monitor: str
    receiver: Receiver

    def score(self, data: Dataset) -> Score:
        labels = [answer.label for answer in self.client.predict(data.texts)]
        return Score(sum(one == other for one, other in zip(labels, data.targets, strict=True)), len(data))

    def windows(self) -> int:
        text = httpx.get(f"{self.monitor}/metrics").text
        found = re.findall(rf'^plumbline_windows_total{{model="{NAME}",outcome="judged"}} (\S+)$', text, re.M)
        return int(float(found[0])) if found else 0

    def state(self) -> int:
        """0 no drift, 1 notice, 2 drift."""
        text = httpx.get(f"{self.monitor}/metrics").text
        found = re.findall(rf'^plumbline_drift_state{{model="{NAME}"}} (\S+)$', text, re.M)
        return int(float(found[0])) if found else 0


def rows(data: Dataset, start: int, stop: int) -> Dataset:
    return Dataset(data.texts[start:stop], data.targets[start:stop])


def run(*arguments: str | Path) -> str:
    ended = subprocess.run(plumbline(*arguments), stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0, f"plumbline {arguments[0]} ended with {ended.returncode}"
    return ended.stdout


@dataclass(frozen=True)
class Trained:
    """A repository with sst2 version 1 in it; ``eval`` is the half of dev that export saw, ``unseen`` the other."""

    folder: Path
    models: Path
    files: Sequence[str]
    dev: Dataset
    unseen: Dataset


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("sst2")
    dev = read_dataset(data / "sst2" / "dev.csv")
    evaluation, unseen = rows(dev, 0, len(dev) // 2), rows(dev, len(dev) // 2, len(dev))
    write_jsonl(folder / "eval.jsonl", evaluation)
    files = [f"--train={data / 'sst2' / 'train.csv'}", f"--eval={folder / 'eval.jsonl'}"]
    models = folder / "models"
    run("finetune", *files, f"--out={folder / 'checkpoint'}", "--epochs=3")
    # 436 rows cannot settle a margin of half a point; the verdict is recorded as inconclusive.
    exported = json.loads(
        run(
            "export",
            folder / "checkpoint",
            *files,
            f"--repo={models}",
            f"--name={NAME}",
            "--time-budget=3m",
            "--json",
        )
    )
    quality = exported["manifest"]["quality"]["cpu"]
    chosen = next(one["name"] for one in exported["manifest"]["search"]["candidates"] if one["chosen"])
    print(
        f"\nexport: {chosen}; {quality['verdict']}, {quality['difference']:+.2f} points, "
        f"at least {quality['lower_bound']:+.2f} with 95 %, {quality['rows']} rows"
    )
    assert quality["verdict"] != "fail"
    return Trained(folder, models, files, dev, unseen)


@contextmanager
def loop(trained: Trained, folder: Path, **monitor_settings: str) -> Iterator[Running]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    service, monitor = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    serve = plumbline("serve", f"--repo={trained.models}", f"--log={log}", f"--port={httpx.URL(service).port}")
    watch = plumbline(
        "monitor", f"--repo={trained.models}", f"--log={log}", f"--port={httpx.URL(monitor).port}",
        f"--state={folder / 'monitor'}",
    )  # fmt: skip
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        stack.enter_context(running(serve, ready=f"{service}/readyz", PLUMBLINE_LOG_SEAL_SECONDS="1"))
        settings = {
            "PLUMBLINE_MONITOR_POLL_SECONDS": "1",
            "PLUMBLINE_WINDOW_ROWS": str(WINDOW),
            "PLUMBLINE_WEBHOOK_URLS": receiver.url,
            "PLUMBLINE_WEBHOOK_SECRET": receiver.secret,
        }
        stack.enter_context(running(watch, ready=f"{monitor}/readyz", **settings, **monitor_settings))
        yield Running(Client(service), service, monitor, receiver)


def test_film_reviews_raise_no_alert_and_phone_reviews_do_but_keep_their_accuracy(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    with loop(trained, tmp_path) as live:
        home = live.score(trained.unseen)
        until(lambda: live.windows() == 2, 60, "two windows of film reviews")
        print(f"\nsst2/dev, half that nothing has seen: {home}; events: {len(live.receiver.events)}")
        assert live.receiver.events == []
        assert live.state() == 0

        amazon = live.score(read_dataset(data / "drift" / "amazon_cells.csv"))
        until(lambda: live.windows() >= 6, 60, "four windows of phone reviews")
        print(f"amazon_cells: {amazon}; drift state {live.state()}")
        assert live.state() >= 1
        assert amazon.accuracy >= 0.88


def test_finance_headlines_raise_an_alert_and_a_retrained_model_takes_over(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    finance = read_dataset(data / "drift" / "finance_tweets.csv")
    labelled, untouched = rows(finance, 0, 1000), rows(finance, 1000, 2800)
    retrain = plumbline(
        "retrain", f"--repo={trained.models}", f"--name={NAME}", f"--log={tmp_path / 'log'}", *trained.files,
        f"--max-drop={MAX_DROP}",
    )  # fmt: skip
    with loop(trained, tmp_path, PLUMBLINE_CONFIRM_WINDOWS="4", PLUMBLINE_RETRAIN_COMMAND=shlex.join(retrain)) as live:
        home_before = live.score(trained.dev)
        live.client.label(labelled.texts, labelled.targets, source="test")
        finance_before = live.score(untouched)
        detected = live.receiver.wait_for("plumbline.drift.detected", 60)
        assert detected["data"]["severity"] == "alert"
        print(f"\nbefore: finance {finance_before}; sst2/dev {home_before}")
        assert finance_before.accuracy < 0.70

        with Traffic(live.service, untouched.texts[:200] + trained.dev.texts[:200]) as traffic:
            published = live.receiver.wait_for("plumbline.model.published", 900, unless="plumbline.model.rejected")
            version = published["data"]["model"]["version"]
            until(lambda: traffic.answered[version] >= 100, 60, f"traffic on version {version}")
        finance_after, home_after = live.score(untouched), live.score(trained.dev)
        print(
            f"after:  finance {finance_after}; sst2/dev {home_after}\n"
            f"during the switch: {dict(traffic.answered)} requests answered by version, {len(traffic.failed)} failed"
        )
        assert traffic.failed == []
        assert set(traffic.answered) == {"1", version}
        assert finance_after.accuracy >= 0.80
        assert home_after.accuracy >= home_before.accuracy - MAX_DROP / 100
