"""Events over HTTP: signed by Standard Webhooks 1.0, or told to an Alertmanager.

The signature is HMAC-SHA256 of ``{id}.{timestamp}.{body}``; with several secrets there are several signatures, so a
receiver can change its secret at any time. Redirects are not followed: the signed body goes where it was meant to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import orjson
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from monitoring.delivery.http_post import NotAnswered, post
from monitoring.delivery.outbox import Delivery, Kind, Outcome, Sender
from monitoring.errors import SignatureError
from service.contract.events import CONTENT_TYPE

USER_AGENT = "plumbline-monitor"
ALERT_LIFETIME = timedelta(days=365)  # an Alertmanager forgets an alert at its end; ours ends when it is resolved
_GONE = 410


def signed_headers(secrets: Sequence[bytes], identity: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks; without secrets there is no signature."""
    headers = {"webhook-id": identity, "webhook-timestamp": str(timestamp)}
    if secrets:
        content = f"{identity}.{timestamp}.".encode() + body
        digests = [hmac.new(secret, content, hashlib.sha256).digest() for secret in secrets]
        headers["webhook-signature"] = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return headers


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes) -> None:
    """Accept a delivery signed with any of the secrets within five minutes. :raises SignatureError: otherwise."""
    reason = "no secret to verify with"
    for secret in secrets:
        try:
            Webhook(secret).verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:  # ValueError: a header or body that is no text
            reason = str(error)
        else:
            return
    raise SignatureError(f"the delivery's signature does not hold: {reason}.")


def http_senders(secrets: Sequence[bytes], timeout: float) -> dict[Kind, Sender]:
    """A sender for each kind of HTTP delivery, each attempt within ``timeout`` seconds."""

    def signed(delivery: Delivery) -> Outcome:
        headers = signed_headers(secrets, delivery.event, int(datetime.now(UTC).timestamp()), delivery.body)
        return _post(delivery.target, delivery.body, {"content-type": CONTENT_TYPE, **headers}, timeout)

    def alertmanager(delivery: Delivery) -> Outcome:
        body = alertmanager_body(delivery.body)
        return _post(delivery.target, body, {"content-type": "application/json"}, timeout)

    return {"webhook": signed, "retrain-http": signed, "alertmanager": alertmanager}


def alertmanager_address(url: str) -> str:
    """The alerts endpoint of an Alertmanager's base URL."""
    return url.rstrip("/") + "/api/v2/alerts"


def alertmanager_body(event_json: bytes) -> bytes:
    """A drift event as Alertmanager's ``POST /api/v2/alerts``; detected and resolved carry the same labels."""
    event = orjson.loads(event_json)
    data = event["data"]
    resolved = event["type"] == "plumbline.drift.resolved"
    time = datetime.fromisoformat(event["time"])
    drifted = ", ".join(signal["name"] for signal in data["signals"] if signal["drifted"]) or "nothing"
    summary = "is over" if resolved else f"found: {drifted} moved"
    alert = {
        "labels": {"alertname": "PlumblineDrift", "model": data["model"]["model"], "source": event["source"]},
        "annotations": {
            "summary": f"Drift of model {data['model']['model']} {summary}",
            "version": data["model"]["version"],
            "report": data["report"] or "",
        },
        "endsAt": (time if resolved else time + ALERT_LIFETIME).isoformat(),
    }
    if not resolved:
        alert["startsAt"] = time.isoformat()
    if urlsplit(data["report"] or "").scheme in ("http", "https"):
        alert["generatorURL"] = data["report"]
    return orjson.dumps([alert])


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """``Retry-After`` as seconds from now, from a number or an HTTP date; None if absent or unreadable."""
    if value is None:
        return None
    try:
        return (
            max(0.0, float(value))
            if value.strip().isdigit()
            else max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
        )
    except (ValueError, TypeError):
        return None


def _post(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Outcome:
    try:
        answer = post(url, body, {"user-agent": USER_AGENT, **headers}, timeout)
    except NotAnswered as error:
        return Outcome("failed", str(error))
    status, wait = answer.status, retry_after_seconds(answer.headers.get("retry-after"), datetime.now(UTC))
    if 200 <= status < 300:
        return Outcome("delivered")
    if status == _GONE:
        return Outcome("gone", "the receiver answered 410 Gone")
    return Outcome("failed", f"the receiver answered {status}", wait)
