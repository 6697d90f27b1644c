"""Two minutes in the life of a deployment, recorded by a real Prometheus: traffic, drift, a retrain, a take-over.

The model is a bag of words, so that nothing has to be trained; everything else is the real thing: server, monitor,
retrain command, signed webhooks, Prometheus with the rules, and Alertmanager. What a healthy deployment never shows
(lost records, damaged files, refused requests) is made to happen once, so that each panel has something to draw.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from plumbline.demo.running import Running, running
from plumbline.demo.traffic import Traffic
from service.contract.bundle import REFERENCE, Challenge, Champion
from service.contract.repository import Canary, Serving, change_serving, live_bundle
from tests.fakes import make_bundle
from tests.processes import free_port, until
from tests.processes import running as process

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "plumbline" / "rules" / "plumbline.rules.yaml"
NAME, OTHER = "reviews", "tickets"
WINDOW = 100
STEP = 2  # seconds between two scrapes


def known(count: int, seed: int) -> list[str]:
    """Film reviews of a sort, half of them positive."""
    return _texts(
        count,
        seed,
        ("the film was a", "it was a very", "the film and a"),
        (("good", "great", "fine"), ("bad", "awful", "poor")),
    )


def strange(count: int, seed: int) -> list[str]:
    """What the first version was not made for: words that it does not know, nearly all of them negative."""
    return _texts(
        count,
        seed,
        ("parcel 😀 שלום", "refund 😀 ! invoice", "courier שלום ! app"),
        (("poor", "awful"), ("bad", "poor", "fine")),
    )


def _texts(count: int, seed: int, begins: Sequence[str], ends: Sequence[Sequence[str]]) -> list[str]:
    chance = random.Random(seed)
    fill = ("!", ".", "very", "and", "a", "the")
    return [
        " ".join(
            [chance.choice(begins), *chance.choices(fill, k=chance.randint(0, 4)), chance.choice(chance.choice(ends))]
        )
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Recorded:
    """What is left to ask: a Prometheus with the recording between two times, and what Alertmanager sent."""

    prometheus: str
    start: float
    end: float
    notified: list[dict[str, Any]]

    def instant(self, query: str) -> list[dict[str, Any]]:
        return self._ask("query", query=query, time=self.end)

    def over_time(self, query: str) -> list[dict[str, Any]]:
        return self._ask("query_range", query=query, start=self.start, end=self.end, step=STEP)

    def _ask(self, kind: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.prometheus}/api/v1/{kind}", params=parameters, timeout=30)
        assert answer.status_code == 200, f"{parameters['query']}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


@contextmanager
def recorded(folder: Path) -> Iterator[Recorded]:
    """Play the scenario in ``folder``; Prometheus answers while the block lasts."""
    models = folder / "models"
    make_bundle(models, NAME, reference=known(400, 1))
    make_bundle(models, OTHER, reference=known(60, 2))
    retrain = [sys.executable, "-m", "tests.stack.scenario", str(models)]
    settings = {
        "PLUMBLINE_MODEL": NAME,
        "PLUMBLINE_WINDOW_ROWS": str(WINDOW),
        "PLUMBLINE_CONFIRM_WINDOWS": "1",
        "PLUMBLINE_LOG_SAMPLE": "0.9",
        "PLUMBLINE_LOG_QUEUE": "200",
        "PLUMBLINE_LOG_UPLOAD": (folder / "copies").as_uri(),
        "PLUMBLINE_LOG_UPLOAD_SECONDS": "2",
        "PLUMBLINE_MAX_BODY_BYTES": "100000",
        "PYTHONPATH": str(ROOT),
    }
    with ExitStack() as stack:
        live = stack.enter_context(running(folder, models, NAME, retrain, **settings))
        notified: list[dict[str, Any]] = []
        alertmanager = stack.enter_context(_alertmanager(folder, stack.enter_context(_receiver(notified))))
        prometheus = stack.enter_context(_prometheus(folder, live, alertmanager))
        start = time.time()
        _play(live, models, folder)
        until(
            lambda: any(one["labels"]["alertname"] == "PlumblineDrift" for one in notified), 60, "the alert to arrive"
        )
        yield Recorded(prometheus, start, time.time(), notified)


def _play(live: Running, models: Path, folder: Path) -> None:
    with Traffic(live.service, known(2000, 3), pause=0.02), _mischief(live):
        _label(live, known(100, 4))
        until(lambda: live.judged() >= 4, 60, "four windows without drift")
        time.sleep(15)
    with Traffic(live.service, strange(2000, 5), pause=0.02), _mischief(live):
        until(lambda: live.detected(20), 60, "drift to be told")
        _label(live, strange(40, 10))
        until(lambda: live.serves("2"), 60, "the retrained version to be served")
        _label(live, strange(100, 6))
        time.sleep(15)
        make_bundle(models, NAME, live=False, missing=1, reference=known(50, 7))
        change_serving(
            models,
            NAME,
            lambda now: Serving(live="2", previous="1", canary=Canary(version="3", weight=0.3), shadow="1"),
        )
        until(lambda: httpx.get(f"{live.service}/metrics").text.count("\nplumbline_candidate_share{") == 2, 60)
        _break_things(live, models, folder)
        time.sleep(20)


def _label(live: Running, texts: Sequence[str]) -> None:
    """Labels come back for answers; while the log is behind they are refused, and told again."""
    for place, answer in enumerate(live.client.predict(texts)):
        truth = _truth(answer.text) if place % 8 else "positive"
        body = {"id": answer.id, "label": truth, "source": "test"}
        until(lambda body=body: httpx.post(f"{live.service}/feedback", json=body).status_code == 202)  # type: ignore[misc]


def _truth(text: str) -> str:
    return "positive" if text.split()[-1] in ("good", "great", "fine") else "negative"


@contextmanager
def _mischief(live: Running) -> Iterator[None]:
    """Requests that are refused, beside the traffic."""
    stop: list[bool] = []

    def work() -> None:
        with httpx.Client(base_url=live.service, timeout=60) as http:
            while not stop:
                http.post("/predict", content=b'{"inputs": ["' + b"x" * 100_000 + b'"]}')
                http.post("/predict", json={"inputs": []})
                http.post("/predict", json={"inputs": "so"})  # the canary's last word, which it fails on
                time.sleep(0.5)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.append(True)
        thread.join(60)


def _break_things(live: Running, models: Path, folder: Path) -> None:
    """A segment that is none, a reference that is damaged, and a version that cannot be loaded."""
    segments = sorted((folder / "log" / NAME).rglob("*.parquet"))
    (segments[-1].parent / "someone-000001.parquet").write_bytes(b"no segment")
    reference = models / OTHER / "1" / REFERENCE
    reference.write_bytes(reference.read_bytes()[:-100])
    tensor = {"name": "text", "datatype": "BYTES", "shape": [100], "data": known(100, 8)}
    for _ in range(2):
        httpx.post(f"{live.service}/v2/models/{OTHER}/infer", json={"inputs": [tensor]}).raise_for_status()
    make_bundle(models, OTHER, golden_shift=10.0)
    for _ in range(4):  # more than the log's queue takes at once, and longer than the model reads
        httpx.post(f"{live.service}/predict", json={"inputs": ["very " * 60 + "bad"] * 250}, timeout=60)


@contextmanager
def _receiver(notified: list[dict[str, Any]]) -> Iterator[str]:
    """A webhook receiver for Alertmanager; keeps the alerts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notified.extend(json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _alertmanager(folder: Path, receiver: str) -> Iterator[str]:
    route = {"receiver": "test", "group_wait": "0s", "group_interval": "1s", "group_by": ["alertname", "model"]}
    config = {"route": route, "receivers": [{"name": "test", "webhook_configs": [{"url": receiver}]}]}
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus-alertmanager",
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with process(command, ready=f"http://{address}/-/ready", log=folder / "alertmanager.log"):
        yield address


@contextmanager
def _prometheus(folder: Path, live: Running, alertmanager: str) -> Iterator[str]:
    jobs = {"plumbline-serve": live.service, "plumbline-monitor": live.monitor}
    config = {
        "global": {"scrape_interval": f"{STEP}s", "evaluation_interval": f"{STEP}s"},
        "rule_files": [str(RULES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [httpx.URL(url).netloc.decode()]}]}
            for job, url in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with process(command, ready=f"http://{address}/-/ready", log=folder / "prometheus.log"):
        yield f"http://{address}"


def retrain(models: Path) -> None:
    """What the monitor's hook runs: after a while a version that knows the strange texts, too, goes live."""
    time.sleep(15)
    champion = live_bundle(models, NAME)
    reference = Champion(version=champion.manifest.version, digest=champion.digest)
    challenge = Challenge(champion=reference, accepted=True, reasons=("better on new rows",), figures={})
    make_bundle(models, NAME, seed=1, challenge=challenge, reference=strange(400, 9))


if __name__ == "__main__":
    retrain(Path(sys.argv[1]))
