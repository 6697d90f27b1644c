"""Clients for the demonstration and the end-to-end tests: traffic that counts, and a webhook receiver that verifies."""

from __future__ import annotations

import base64
import itertools
import json
import random
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

from service.tasks import SINGLE_LABEL, Task

_BATCH = 16
_LAST_ANSWER = 5.0  # seconds that an answer is waited for at the end; a server that hangs must not keep it from coming


@dataclass(frozen=True)
class Answered:
    """What the server said of one text."""

    id: str
    text: str
    label: str


class Client:
    """Sends texts and labels of the model ``name`` to a running server."""

    def __init__(self, url: str, name: str, task: Task = SINGLE_LABEL) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._name, self._task = name, task

    def predict(self, texts: Sequence[str]) -> list[Answered]:
        """Answer texts in requests of 16. :raises httpx.HTTPStatusError: if one is not answered."""
        answers = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            response = self._http.post(f"/v1/models/{self._name}:predict", json={"instances": batch})
            rows = response.raise_for_status().json()["predictions"]
            answers += [Answered(row["id"], text, row["label"]) for text, row in zip(batch, rows, strict=True)]
        return answers

    def label(self, texts: Sequence[str], labels: Sequence[str], source: str) -> None:
        """Send texts and tell the true label of each answer soon after it, as people who check answers do."""
        for start in range(0, len(texts), _BATCH):
            answers = self.predict(texts[start : start + _BATCH])
            for answer, label in zip(answers, labels[start : start + _BATCH], strict=True):
                body: dict[str, object] = {"id": answer.id, "label": label or [], "source": source}
                self._http.post("/feedback", json=body).raise_for_status()

    def score(self, texts: Sequence[str], labels: Sequence[str]) -> float:
        """The metric of the task, as the share of texts that get their label."""
        return self._task.score(self._task.merits([one.label for one in self.predict(texts)], labels))

    def version(self, model: str) -> str:
        """The live version."""
        return str(self._http.get("/readyz").raise_for_status().json()["models"][model])


@dataclass
class Traffic:
    """Steady requests from a thread while the ``with`` block lasts; counts answers by version, and failures.

    The texts come in an order of chance, so that every stretch of the traffic is the same mixture of them.
    """

    url: str
    texts: Sequence[str]
    pause: float = 0.05
    seed: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_LAST_ANSWER)

    def _run(self) -> None:
        texts = list(self.texts)
        random.Random(self.seed).shuffle(texts)  # noqa: S311  not for secrets
        with httpx.Client(base_url=self.url, timeout=60) as http:
            for text in itertools.cycle(texts):
                if self._stop.wait(self.pause):
                    break
                try:
                    response = http.post("/predict", json={"inputs": text})
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                    continue
                if response.status_code == 200:
                    self.answered[response.headers["x-model-version"]] += 1
                else:
                    self.failed.append(f"{response.status_code} {response.text}")


class Receiver:
    """A webhook receiver on loopback: verifies each signature and keeps the events; refuses what is not signed."""

    def __init__(self, port: int = 0) -> None:
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.events: list[dict[str, Any]] = []
        self.refused = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver._take(body, dict(self.headers.items())))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of this type, oldest first."""
        return [event for event in self.events if event["type"] == kind]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            Webhook(self.secret).verify(body, {name.lower(): value for name, value in headers.items()})
        except WebhookVerificationError:
            self.refused += 1
            return 401
        self.events.append(json.loads(body))
        return 204
