"""The receiver of the demonstration, with real requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks import Webhook

from examples.traffic import Receiver
from service.contract.errors import PlumblineError


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


def test_waiting_ends_with_the_event_or_with_the_one_that_rules_it_out(receiver: Receiver) -> None:
    send(receiver, "published")
    assert receiver.wait_for("published", 1, unless="rejected")["type"] == "published"
    send(receiver, "rejected")
    with pytest.raises(PlumblineError, match=r"rejected instead of deployed: .*worse on old rows"):
        receiver.wait_for("deployed", 60, unless="rejected")
    with pytest.raises(PlumblineError, match=r"no deployed in 0\.1 s"):
        receiver.wait_for("deployed", 0.1)
