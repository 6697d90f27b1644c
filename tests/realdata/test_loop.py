"""The whole loop on real text: film reviews, then phone-accessory reviews, then finance headlines.

Everything after the export goes through HTTP against a running server and monitor, as users meet them. The figures
are printed with 95 % Wilson intervals.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from scipy.stats import binomtest

from plumbline.demo.running import Running, running
from plumbline.demo.traffic import Traffic
from plumbline.processes import until
from service.contract.dataset import Dataset, read_dataset, write_jsonl
from tests.processes import plumbline

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(7200)]

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


def ask(live: Running, data: Dataset) -> Score:
    labels = [answer.label for answer in live.client.predict(data.texts)]
    return Score(sum(one == other for one, other in zip(labels, data.targets, strict=True)), len(data))


def state(live: Running) -> int:
    """0 no drift, 1 notice, 2 drift."""
    return live.sample(live.monitor, "plumbline_drift_state")


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
    run("finetune", *files, f"--out={folder / 'checkpoint'}", "--epochs=1")
    # 436 rows cannot settle a margin of half a point; the verdict is recorded as inconclusive.
    exported = json.loads(
        run(
            "export",
            folder / "checkpoint",
            *files,
            f"--repo={models}",
            f"--name={NAME}",
            "--time-budget=2m",
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


def test_film_reviews_raise_nothing_and_phone_reviews_are_noticed_but_keep_their_accuracy(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    with running(tmp_path, trained.models, NAME, PLUMBLINE_WINDOW_ROWS=str(WINDOW)) as live:
        home = ask(live, trained.unseen)
        until(lambda: live.judged() == 2, "two windows of film reviews", live.processes)
        print(f"\nsst2/dev, half that nothing has seen: {home}; events: {len(live.receiver.events)}")
        assert live.receiver.events == []
        assert state(live) == 0

        amazon = ask(live, read_dataset(data / "drift" / "amazon_cells.csv"))
        until(lambda: live.judged() >= 6, "four windows of phone reviews", live.processes)
        print(f"amazon_cells: {amazon}; drift state {state(live)}")
        assert state(live) >= 1
        assert amazon.accuracy >= 0.88


def test_finance_headlines_raise_an_alert_and_a_retrained_model_takes_over(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    finance = read_dataset(data / "drift" / "finance_tweets.csv")
    labelled, untouched = rows(finance, 0, 1000), rows(finance, 1000, 2800)
    retrain = plumbline(
        "retrain",
        f"--repo={trained.models}",
        f"--name={NAME}",
        f"--log={tmp_path / 'log'}",
        *trained.files,
        f"--max-drop={MAX_DROP}",
    )
    settings = {"PLUMBLINE_WINDOW_ROWS": str(WINDOW), "PLUMBLINE_CONFIRM_WINDOWS": "4"}
    with running(tmp_path, trained.models, NAME, retrain, **settings) as live:
        expect = partial(until, processes=live.processes)
        home_before = ask(live, trained.dev)
        live.client.label(labelled.texts, labelled.targets, source="test")
        finance_before = ask(live, untouched)
        windows = (len(trained.dev) + len(finance)) // WINDOW
        detected = expect(lambda: live.detected(windows), "the monitor to detect drift")
        assert detected["data"]["severity"] in ("warning", "critical")
        print(f"\nbefore: finance {finance_before}; sst2/dev {home_before}")
        assert finance_before.accuracy < 0.70

        with Traffic(live.service, untouched.texts[:200] + trained.dev.texts[:200]) as traffic:
            retraining = live.retraining
            published = expect(retraining.published, "the retrained version to be published", news=retraining.news)
            version = published["data"]["model"]["version"]
            expect(lambda: live.serves(version), f"version {version} to be served")
            expect(lambda: traffic.answered[version] >= 100, f"traffic on version {version}")
        finance_after, home_after = ask(live, untouched), ask(live, trained.dev)
        print(
            f"after:  finance {finance_after}; sst2/dev {home_after}\n"
            f"during the switch: {dict(traffic.answered)} requests answered by version, {len(traffic.failed)} failed"
        )
        assert traffic.failed == []
        assert set(traffic.answered) == {"1", version}
        assert finance_after.accuracy >= 0.80
        assert home_after.accuracy >= home_before.accuracy - MAX_DROP / 100
