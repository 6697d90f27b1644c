"""The monitor as a process: rounds in one thread, deliveries and retrain commands in their own, and a small server.

Each thread has its own connection to the state; what one writes the others find there, so any of them may be
killed at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from monitoring.delivery.hooks import run_commands
from monitoring.delivery.launch import cluster_address, launchers
from monitoring.delivery.messages import retrain_failed_event
from monitoring.delivery.outbox import Delivery, GivenUp, Kind, Sender, Target, counts, deliver_due, enqueue
from monitoring.delivery.webhook import http_senders
from monitoring.metrics import Metrics
from monitoring.pages.overview import overview
from monitoring.pages.server import serve_pages
from monitoring.pages.timeline import timeline
from monitoring.progress import ProgressReporter, cares, progress
from monitoring.rounds import Judged, Rounds, report_folder
from monitoring.settings import MonitorSettings
from monitoring.state import StateStore, lock_state
from monitoring.windows.log import Pending

logger = logging.getLogger(__name__)

_DELIVERY_PAUSE = 1.0  # seconds between two looks at the outbox
_STALE_ROUNDS = 10  # polls without a finished round after which the monitor is not ready


@dataclass
class Health:
    """When a round last finished, in seconds of the monotonic clock, None before the first; and what it left."""

    finished: float | None = field(default=None)
    waiting: tuple[Pending, ...] = ()


def run_once(settings: MonitorSettings, metrics: Metrics) -> list[Judged]:
    """One round over everything sealed, then one attempt at every due delivery and command.

    :raises SettingsError: if events would go out unsigned and nobody said that they may, or a Job can never be created.
    """
    _check(settings)
    for care in cares(settings):
        logger.warning("%s", care)
    with lock_state(settings.state_folder):
        store = StateStore(settings.state_folder)
        try:
            judged = Rounds(settings, store, metrics, reports_url=settings.public_url).run(flush=True)
            given_up = _given_up(settings, store, metrics)
            deliver_due(store, _senders(settings), settings.webhook_backoff, time.time, given_up=given_up)
            logs, stop = settings.state_folder / "retrain", threading.Event()
            run_commands(store, logs, settings.retrain_timeout, stop, time.time, given_up)
        finally:
            store.close()
    return judged


def run_forever(settings: MonitorSettings, stop: threading.Event, ready: Callable[[str], None] | None = None) -> None:
    """Watch until ``stop`` is set; ``ready`` is called with the address once pages are served.

    :raises SettingsError: if events would go out unsigned and nobody said that they may, or a Job can never be created.
    """
    _check(settings)
    for care in cares(settings):
        logger.warning("%s", care)
    metrics = Metrics()
    health = Health()
    with ExitStack() as stack:
        stack.enter_context(lock_state(settings.state_folder))
        store = StateStore(settings.state_folder)
        stack.callback(store.close)
        server = stack.enter_context(
            serve_pages(
                settings.monitor_host,
                settings.monitor_port,
                metrics,
                report_folder(settings),
                lambda: _is_ready(settings, health),
                lambda: [*cares(settings), *progress(health.waiting, settings)],
                lambda: overview(settings.state_folder, report_folder(settings)),
                lambda model: timeline(settings.state_folder, report_folder(settings), model),
            )
        )
        if ready is not None:
            ready(server)
        rounds = Rounds(settings, store, metrics, reports_url=settings.public_url or server)
        threads = [
            threading.Thread(target=_deliver_forever, args=(settings, metrics, stop), name="deliveries"),
            threading.Thread(target=_retrain_forever, args=(settings, metrics, stop), name="retrain"),
        ]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)  # runs before the joins, also when a round raised
        teller = ProgressReporter(settings)
        while not stop.is_set():
            if _guarded("rounds", metrics, rounds.run) is not None:
                health.finished, health.waiting = time.monotonic(), rounds.waiting
                teller.tell(rounds.waiting)
            stop.wait(settings.monitor_poll_seconds)


def _check(settings: MonitorSettings) -> None:
    """:raises SettingsError: if messages could not be sent as they are set."""
    settings.check_signing()
    if settings.retrain_job is not None:
        cluster_address()


def _deliver_forever(settings: MonitorSettings, metrics: Metrics, stop: threading.Event) -> None:
    store = StateStore(settings.state_folder)
    senders, given_up = _senders(settings), _given_up(settings, store, metrics)

    def work() -> int:
        delivered = deliver_due(store, senders, settings.webhook_backoff, time.time, stop.is_set, given_up)
        metrics.show_outbox(*counts(store))
        return delivered

    while not stop.is_set():
        _guarded("deliveries", metrics, work)
        stop.wait(min(_DELIVERY_PAUSE, settings.monitor_poll_seconds))
    store.close()


def _senders(settings: MonitorSettings) -> dict[Kind, Sender]:
    token = settings.retrain_token.get_secret_value() if settings.retrain_token is not None else ""
    elsewhere = launchers(token, settings.retrain_github_api, settings.webhook_timeout)
    return http_senders(settings.secrets, settings.webhook_timeout) | elsewhere


def _given_up(settings: MonitorSettings, store: StateStore, metrics: Metrics) -> GivenUp:
    """Tells people that nothing came of a retrain; an alert that was given up has its own metric and rule."""

    def tell(delivery: Delivery, reason: str) -> None:
        if not delivery.kind.startswith("retrain-"):
            return
        event = retrain_failed_event(delivery.body, reason, time.time())
        enqueue(store, event, [Target("webhook", url) for url in settings.webhook_urls], time.time())
        metrics.count_events(delivery.model, [event.type])
        metrics.retrains.labels(delivery.model, "failed").inc()

    return tell


def _retrain_forever(settings: MonitorSettings, metrics: Metrics, stop: threading.Event) -> None:
    store = StateStore(settings.state_folder)
    logs = settings.state_folder / "retrain"

    given_up = _given_up(settings, store, metrics)

    def work() -> int:
        return len(run_commands(store, logs, settings.retrain_timeout, stop, time.time, given_up))

    while not stop.is_set():
        _guarded("retrain", metrics, work)
        stop.wait(min(_DELIVERY_PAUSE, settings.monitor_poll_seconds))
    store.close()


def _guarded(part: str, metrics: Metrics, work: Callable[[], object]) -> object | None:
    """Do the work; a fault is logged and counted, and the next round tries again."""
    try:
        return work()
    except Exception:  # the process must outlive a full disk, a vanished log or a damaged row
        logger.exception("%s failed; the next round tries again", part)
        metrics.errors.labels(part).inc()
        return None


def _is_ready(settings: MonitorSettings, health: Health) -> bool:
    if health.finished is None:
        return False
    return time.monotonic() - health.finished < max(60.0, _STALE_ROUNDS * settings.monitor_poll_seconds)
