"""Clients for the demonstration and the end-to-end tests: traffic that counts, and a webhook receiver that verifies."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

from service.contract.errors import PlumblineError

_BATCH = 16


@dataclass(frozen=True)
class Answered:
    """What the server said of one text."""

    id: str
    text: str
    label: str


class Client:
    """Sends texts and labels to a running server."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)

    def predict(self, texts: Sequence[str]) -> list[Answered]:
        """Classify texts in requests of 16. :raises httpx.HTTPStatusError: if one is not answered."""
        answers = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            response = self._http.post("/predict", json={"inputs": batch}).raise_for_status()
            answers += [
                Answered(rows[0]["id"], text, rows[0]["label"])
                for text, rows in zip(batch, response.json(), strict=True)
            ]
        return answers

    def label(self, texts: Sequence[str], labels: Sequence[str], source: str) -> None:
        """Classify texts and tell the true label of each answer soon after it, as people who check answers do."""
        for start in range(0, len(texts), _BATCH):
            answers = self.predict(texts[start : start + _BATCH])
            for answer, label in zip(answers, labels[start : start + _BATCH], strict=True):
                body = {"id": answer.id, "label": label, "source": source}
                self._http.post("/feedback", json=body).raise_for_status()

    def accuracy(self, texts: Sequence[str], labels: Sequence[str]) -> float:
        """Share of texts that get their label."""
        return sum(one.label == label for one, label in zip(self.predict(texts), labels, strict=True)) / len(texts)

    def version(self, model: str) -> str:
        """The live version."""
        return str(self._http.get("/readyz").raise_for_status().json()["models"][model])


@dataclass
class Traffic:
    """Steady requests from a thread while the ``with`` block lasts; counts answers by version, and failures."""

    url: str
    texts: Sequence[str]
    pause: float = 0.05
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
        self._thread.join()

    def _run(self) -> None:
        number = 0
        with httpx.Client(base_url=self.url, timeout=60) as http:
            while not self._stop.wait(self.pause):
                number += 1
                try:
                    response = http.post("/predict", json={"inputs": self.texts[number % len(self.texts)]})
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
        self._new = threading.Condition()
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

    def wait_for(self, kind: str, seconds: float, unless: str = "") -> dict[str, Any]:
        """The first event of this type. :raises PlumblineError: if none comes in time, or one of type ``unless``."""
        deadline = time.monotonic() + seconds
        with self._new:
            while not (found := self.of(kind)):
                if against := self.of(unless):
                    raise PlumblineError(f"{unless} instead of {kind}: {against[0]['data']}")
                if not self._new.wait(deadline - time.monotonic()):
                    raise PlumblineError(f"no {kind} in {seconds} s; received: {[one['type'] for one in self.events]}")
        return found[0]

    def of(self, kind: str) -> list[dict[str, Any]]:
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
        with self._new:
            self.events.append(json.loads(body))
            self._new.notify_all()
        return 204
