"""Deliveries: signed, retried, never lost, given up in the end and sent again when told."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from monitoring.app import _given_up
from monitoring.delivery import outbox
from monitoring.delivery.hooks import run_commands
from monitoring.delivery.http_post import NotAnswered, post
from monitoring.delivery.messages import MOST_BYTES, drift_event, retrain_event
from monitoring.delivery.outbox import Target, counts, deliver_due, enqueue, next_wait, replay
from monitoring.delivery.webhook import alertmanager_address, http_senders, retry_after_seconds, signed_headers, verify
from monitoring.errors import SignatureError
from monitoring.metrics import Metrics
from monitoring.settings import MonitorSettings
from monitoring.state import StateStore
from service.contract.errors import SettingsError
from service.contract.events import DriftData, Event, EventType, ModelRef, Moved, Signal, Window
from service.contract.settings import load_settings
from tests.monitoring.receiver import receiver

KEY, NEXT_KEY = b"k" * 32, b"n" * 32
BACKOFF = (5.0, 60.0)
NOW = 1_800_000_000.0


def data(**changes: object) -> DriftData:
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    signal = Signal(
        name="tokens",
        method="classifier two-sample",
        statistic=0.9,
        p_value=0.001,
        alpha=0.01,
        effect=0.8,
        effect_threshold=0.15,
        direction="more of: laser",
        drifted=True,
    )
    found = DriftData(
        model=ModelRef(model="tickets", version="1", digest="d" * 64),
        window=Window(first="a", last="b", rows=100, start=moment, end=moment),
        severity="warning",
        signals=(signal,),
        idempotency_key="key",
    )
    return found.model_copy(update=changes)


def event(kind: EventType = "plumbline.drift.detected") -> Event[DriftData]:
    return drift_event(kind, data(), NOW)


class Sender:
    """The outbox of one monitor, restartable: a new store on the same folder."""

    def __init__(self, folder: Path, secrets: tuple[bytes, ...] = (KEY,)) -> None:
        self.store = StateStore(folder)
        self.secrets = secrets
        self.now = NOW

    def put(self, *targets: Target, of: Event[DriftData] | None = None) -> Event[DriftData]:
        made = of or event()
        with self.store.transaction():
            enqueue(self.store, made, targets, self.now)
        return made

    def deliver(self) -> int:
        return deliver_due(self.store, http_senders(self.secrets, 2.0), BACKOFF, lambda: self.now)

    def status(self) -> list[tuple[str, int]]:
        return [tuple(row) for row in self.store.rows("SELECT status, attempts FROM outbox ORDER BY id")]

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    found = Sender(tmp_path)
    yield found
    found.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_delivery_is_a_signed_cloud_event(sender: Sender) -> None:
    with receiver() as there:
        made = sender.put(Target("webhook", there.url()))
        assert sender.deliver() == 1
    ((path, headers, body),) = there.received
    assert path == "/hook"
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["webhook-id"] == made.id == orjson.loads(body)["id"]
    Webhook("whsec_" + base64.b64encode(KEY).decode()).verify(body, headers)
    assert sender.status() == [("delivered", 1)]
    assert counts(sender.store) == (0, 0)


def test_several_secrets_sign_so_that_either_verifies(sender: Sender) -> None:
    sender.secrets = (NEXT_KEY, KEY)
    with receiver() as there:
        sender.put(Target("webhook", there.url()))
        sender.deliver()
    _, headers, body = there.received[0]
    for key in (KEY, NEXT_KEY):
        Webhook(key).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another key of some length").verify(body, headers)


def test_without_a_secret_nothing_is_signed() -> None:
    assert signed_headers((), "id", 1, b"body") == {"webhook-id": "id", "webhook-timestamp": "1"}


def test_verify_refuses_a_changed_body_an_old_timestamp_and_missing_headers() -> None:
    now = int(datetime.now(UTC).timestamp())
    headers = signed_headers((KEY,), "id", now, b"{}")
    verify((NEXT_KEY, KEY), headers, b"{}")
    old = signed_headers((KEY,), "id", now - 3600, b"{}")
    garbled = {**headers, "webhook-signature": "no signature"}
    for bad, body in ((headers, b"{ }"), (old, b"{}"), ({}, b"{}"), (garbled, b"{}"), (headers, b"\xff")):
        with pytest.raises(SignatureError):
            verify((KEY,), bad, body)


def test_a_receiver_that_is_down_gets_the_event_once_it_is_up_after_a_restart_of_the_monitor(tmp_path: Path) -> None:
    port = closed_port()
    before = Sender(tmp_path)
    made = before.put(Target("webhook", f"http://127.0.0.1:{port}/hook"))
    assert before.deliver() == 0
    assert before.status() == [("pending", 1)]
    before.close()
    with receiver(port=port) as there:
        after = Sender(tmp_path)
        assert after.deliver() == 0  # not before its time
        after.now = NOW + 7
        assert after.deliver() == 1
        assert after.deliver() == 0
        after.close()
    assert [headers["webhook-id"] for _, headers, _ in there.received] == [made.id]


def test_retries_keep_the_id_follow_the_backoff_and_end_as_a_dead_letter(sender: Sender) -> None:
    with receiver([(500, {})]) as there:
        sender.put(Target("webhook", there.url()))
        for later, status in ((0, "pending"), (7, "pending"), (100, "dead"), (10_000, "dead")):
            sender.now = NOW + later
            sender.deliver()
            assert sender.status()[0][0] == status
    assert len(there.received) == 3
    assert len({headers["webhook-id"] for _, headers, _ in there.received}) == 1


def test_a_dead_letter_can_be_replayed(sender: Sender) -> None:
    with receiver([(500, {}), (500, {}), (500, {}), (204, {})]) as there:
        made = sender.put(Target("webhook", there.url()))
        for later in (0, 7, 100):
            sender.now = NOW + later
            sender.deliver()
        assert replay(sender.store, sender.now, "another event") == 0
        assert replay(sender.store, sender.now, made.id) == 1
        assert sender.deliver() == 1
    assert sender.status() == [("delivered", 1)]


def test_redirects_are_not_followed(sender: Sender) -> None:
    with receiver() as elsewhere, receiver([(307, {"location": elsewhere.url()})]) as there:
        sender.put(Target("webhook", there.url()))
        assert sender.deliver() == 0
    assert elsewhere.received == []


def test_410_disables_the_receiver_until_a_replay(sender: Sender) -> None:
    with receiver([(410, {}), (204, {})]) as there:
        sender.put(Target("webhook", there.url()))
        sender.now += 1
        sender.put(Target("webhook", there.url()))
        sender.deliver()
        sender.put(Target("webhook", there.url()))
        sender.deliver()
        assert [status for status, _ in sender.status()] == ["dead"] * 3
        count = len(there.received)
        replay(sender.store, sender.now)
        assert sender.deliver() == 3
        sender.put(Target("webhook", there.url()))
        assert sender.deliver() == 1
    assert len(there.received) == count + 4


def test_retry_after_is_honoured(sender: Sender) -> None:
    with receiver([(503, {"retry-after": "600"}), (204, {})]) as there:
        sender.put(Target("webhook", there.url()))
        sender.deliver()
        sender.now = NOW + 599
        assert sender.deliver() == 0
        sender.now = NOW + 601
        assert sender.deliver() == 1


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_seconds("120", now) == 120
    assert retry_after_seconds("Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert retry_after_seconds("Wed, 31 Dec 2025 23:00:00 GMT", now) == 0
    assert retry_after_seconds("soon", now) is None
    assert retry_after_seconds(None, now) is None


def test_waits_are_spread_and_a_day_long_at_most() -> None:
    waits = [next_wait(100, None) for _ in range(200)]
    assert min(waits) >= 80
    assert max(waits) <= 120
    assert max(waits) - min(waits) > 10
    assert next_wait(100, 10**9) == outbox.LONGEST_WAIT


def test_one_receiver_that_is_down_does_not_hold_up_another(sender: Sender) -> None:
    with receiver() as there:
        sender.put(Target("webhook", f"http://127.0.0.1:{closed_port()}/"), Target("webhook", there.url()))
        assert sender.deliver() == 1
    assert [status for status, _ in sender.status()] == ["pending", "delivered"]


def test_an_event_rolled_back_is_never_sent(sender: Sender) -> None:
    with receiver() as there:
        with contextlib.suppress(RuntimeError), sender.store.transaction():
            enqueue(sender.store, event(), [Target("webhook", there.url())], NOW)
            raise RuntimeError
        assert sender.deliver() == 0
    assert there.received == []


def test_an_alertmanager_gets_an_alert_and_its_end(sender: Sender) -> None:
    with receiver([(200, {})]) as there:
        target = Target("alertmanager", alertmanager_address(there.url("/")))
        sender.put(target)
        sender.put(target, of=event("plumbline.drift.resolved"))
        assert sender.deliver() == 2
    assert [path for path, _, _ in there.received] == ["/api/v2/alerts"] * 2
    (firing,), (resolved,) = (orjson.loads(body) for _, _, body in there.received)
    assert (
        firing["labels"]
        == resolved["labels"]
        == {"alertname": "PlumblineDrift", "model": "tickets", "source": "/plumbline/monitor"}
    )
    moment = datetime.fromtimestamp(NOW, UTC)
    assert datetime.fromisoformat(firing["endsAt"]) > moment + timedelta(days=100)
    assert datetime.fromisoformat(resolved["endsAt"]) == moment


def test_a_body_stays_below_twenty_kilobytes() -> None:
    words = tuple(Moved(value="w" * 5000, reference_share=0, window_share=1) for _ in range(10))
    long = data(tokens=words, labels=words)
    assert len(drift_event("plumbline.drift.detected", long, NOW).to_json()) < MOST_BYTES
    shortened = retrain_event(long, NOW)
    assert len(shortened.to_json()) < MOST_BYTES
    assert shortened.data.drift is not None


def test_what_one_receiver_causes_is_not_the_others_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An address that no name service takes raises something else than most."""
    with receiver() as found:
        sender = Sender(tmp_path)
        sender.put(Target("webhook", "https://hooks..example.org/a"), Target("webhook", found.url()))
        assert sender.deliver() == 1
        assert sender.status() == [("pending", 1), ("delivered", 1)]

        def broken(delivery: object) -> outbox.Outcome:
            raise RuntimeError("nobody expected this")

        sender.now += 10
        deliver_due(sender.store, {"webhook": broken}, BACKOFF, lambda: sender.now)
        assert "nobody expected this" in caplog.text
        assert sender.status() == [("pending", 2), ("delivered", 1)]
        sender.close()


def test_a_receiver_that_drips_has_so_long_and_no_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    connection.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        with pytest.raises(NotAnswered, match=r"no answer within 0\.5 s"):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, 0.5)
        assert time.monotonic() - started < 5
        stop.set()
        thread.join()


def test_of_an_endless_answer_only_the_beginning_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def flood() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    connection.sendall(b"x" * 65536)

        thread = threading.Thread(target=flood)
        thread.start()
        answer = post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, 10.0)
        assert (answer.status, len(answer.content)) == (200, 65536)
        thread.join()


def test_a_target_that_fails_makes_the_others_wait_once_and_not_for_each_event(tmp_path: Path) -> None:
    sender = Sender(tmp_path)
    asked: list[str] = []

    def fail(delivery: outbox.Delivery) -> outbox.Outcome:
        asked.append(delivery.target)
        return outbox.Outcome("failed" if delivery.target == "https://slow" else "delivered")

    for _ in range(3):
        sender.put(Target("webhook", "https://slow"), Target("webhook", "https://quick"))
    deliver_due(sender.store, {"webhook": fail}, BACKOFF, lambda: sender.now)
    assert asked == ["https://slow", "https://quick", "https://quick", "https://quick"]
    sender.close()


def test_a_replay_leaves_retrains_alone_unless_it_is_told(tmp_path: Path) -> None:
    sender = Sender(tmp_path)
    sender.put(Target("webhook", "https://a"), Target("retrain-command", "train"))
    sender.store.execute("UPDATE outbox SET status = 'dead'")
    assert replay(sender.store, sender.now) == 1
    assert sender.status() == [("pending", 0), ("dead", 0)]
    assert replay(sender.store, sender.now, retrains=True) == 1
    sender.close()


def test_people_are_told_that_nothing_came_of_a_retrain(tmp_path: Path) -> None:
    with receiver() as people:
        settings = MonitorSettings(
            log=tmp_path / "log",
            monitor_state=tmp_path / "state",
            webhook_urls=(people.url(),),
            webhook_unsigned=True,
            retrain_command="/no/such/program",
        )
        store, metrics = StateStore(settings.state_folder), Metrics()
        made = retrain_event(data(), 0)
        with store.transaction():
            enqueue(store, made, [Target("retrain-command", "/no/such/program")], 0)
        given_up = _given_up(settings, store, metrics)
        run_commands(store, tmp_path / "logs", 5, threading.Event(), time.time, given_up)
        assert deliver_due(store, http_senders((), 2.0), BACKOFF, time.time) == 1
        (body,) = [orjson.loads(body) for _, _, body in people.received]
        assert body["type"] == "plumbline.retrain.failed"
        assert body["data"]["model"]["model"] == "tickets"
        assert body["data"]["request"] == made.id
        assert "could not be started" in body["data"]["reason"]
        labels = {"model": "tickets", "result": "failed"}
        assert metrics.registry.get_sample_value("plumbline_retrains_total", labels) == 1
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks..example.org",
        "https://" + "a" * 64 + ".example",
        "https://a b.example",
        "https://a.example:99999",
        "https://a.example:0",
        "https://a.example/\nb",
        "http://",
        "ftp://a.example",
        "https://[::1",
        "a.example",
    ],
)
def test_a_url_to_which_nothing_can_be_sent_is_refused_at_the_start(url: str) -> None:
    for name in ("webhook_urls", "alertmanager_url", "retrain_url", "retrain_airflow", "retrain_github_api"):
        with pytest.raises(SettingsError, match=f"PLUMBLINE_{name.upper()}"):
            load_settings(MonitorSettings, **{name: url})


@pytest.mark.parametrize(
    "url", ["https://bücher.example/x", "http://127.0.0.1:8002", "http://[::1]:1/", "http://localhost"]
)
def test_a_url_that_can_be_reached_is_taken(url: str) -> None:
    assert load_settings(MonitorSettings, webhook_urls=url).webhook_urls == (url,)
