"""The receiver and the traffic of the demonstration, with real requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from standardwebhooks import Webhook

from plumbline.demo.traffic import Receiver, Traffic
from tests.processes import until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def send(receiver: Receiver, kind: str, secret: str | None = None) -> int:
    body = json.dumps({"type": kind, "data": {"reason": "worse on old rows"}})
    now = datetime.now(UTC)
    signature = Webhook(secret or receiver.secret).sign("msg_1", now, body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    return httpx.post(receiver.url, content=body, headers=headers).status_code


def test_what_is_signed_is_kept_and_what_is_not_is_refused(receiver: Receiver) -> None:
    assert send(receiver, "one") == 204
    assert send(receiver, "two", secret="whsec_" + "A" * 32) == 401
    assert [event["type"] for event in receiver.events] == ["one"]
    assert receiver.refused == 1


def test_traffic_is_the_same_mixture_all_along() -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"])
            self.send_response(200)
            self.send_header("x-model-version", "1")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Traffic(f"http://127.0.0.1:{server.server_port}", ["old"] * 100 + ["new"] * 100, pause=0) as traffic:
            until(lambda: len(asked) >= 400)
        server.shutdown()
    shares = [asked[start : start + 50].count("new") / 50 for start in range(0, 400, 50)]
    assert all(0.3 < share < 0.7 for share in shares)
    assert traffic.answered.total() >= 400
    assert traffic.failed == []
