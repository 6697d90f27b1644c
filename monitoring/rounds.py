"""One round of the monitor: read what was sealed, judge complete windows, and write down what follows from it."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import orjson
import pyarrow as pa

from monitoring.delivery.hooks import Gate, may_request
from monitoring.delivery.messages import drift_data, drift_event, retrain_event
from monitoring.delivery.model_events import live_digest, was_known, watch_versions
from monitoring.delivery.outbox import Target, counts, enqueue
from monitoring.delivery.webhook import alertmanager_address
from monitoring.errors import UnreadableNow
from monitoring.judging import sequential
from monitoring.judging.alerts import Change, advance, notice, read_alert, write_alert
from monitoring.judging.decision import Decision, decide
from monitoring.judging.labelled import FeedbackWatch, Outcomes, accuracy_of, outcomes_of
from monitoring.judging.severity import LEVEL
from monitoring.metrics import Metrics
from monitoring.settings import MonitorSettings
from monitoring.signals.columns import columns_of
from monitoring.state import REPORTS, StateStore
from monitoring.windows.log import (
    Pending,
    Rules,
    WindowRows,
    complete,
    index_segments,
    pending_rows,
    take_rows,
    use_rows,
)
from monitoring.windows.references import Reference, References
from service.contract.errors import BundleError, InvalidInput
from service.contract.events import DriftData, EventType
from service.contract.last_window import write_last_window
from service.contract.repository import check_name, model_names
from service.contract.segments import seal_orphans
from service.tasks import Task
from service.terminal.throttled import ThrottledLogger

logger = logging.getLogger(__name__)

Outcome = Literal["judged", "dropped", "unjudged"]


@dataclass(frozen=True)
class Judged:
    """A judged window as ``--once`` prints it; ``change`` is the message that it caused, if any."""

    window: str
    data: DriftData
    change: Change | None
    retrain: bool


class Rounds:
    """Works through the log; holds nothing that is not in the store except caches.

    ``waiting`` are the rows that the last round left for the next windows.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        store: StateStore,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
        reports_url: str | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._reports_url = reports_url
        self._references = References(settings.repo)
        self._feedback = FeedbackWatch(settings.log_folder)
        self._rules = Rules(settings.window_rows, settings.window_seconds, settings.min_rows)
        self._labelled: dict[tuple[str, str], Outcomes] = {}  # in this round
        self._complained: set[str] = set()
        self._throttled = ThrottledLogger(logger)
        self.waiting: tuple[Pending, ...] = ()
        self._show_stored()

    def run(self, *, flush: bool = False) -> list[Judged]:
        """Everything there is to do now; with ``flush`` smaller windows are judged without waiting for their age."""
        sealed = seal_orphans(self._settings.log_folder)
        if sealed:
            logger.info("sealed %d segments that a dead server left open", sealed)
        self._watch_versions()
        judged: list[Judged] = []
        waiting: list[Pending] = []
        self._labelled.clear()
        for model in self._models():
            damaged = index_segments(
                self._store, self._settings.log_folder, model, functools.partial(self._gather, model)
            )
            self._metrics.segments_lost.labels(model).inc(damaged)
            for pending in pending_rows(self._store, model):
                judged += self._windows_of(pending, flush=flush)
            waiting += pending_rows(self._store, model)
            digest = live_digest(self._store, model)
            if digest is not None and self._feedback.since_last_look(model, digest):
                self._show_labelled(model, digest)
        self._metrics.show_outbox(*counts(self._store))
        self._metrics.finished.set(self._clock())
        self.waiting = tuple(waiting)
        return judged

    def _models(self) -> list[str]:
        names = set(model_names(self._settings.repo))
        if self._settings.log_folder.is_dir():
            for folder in self._settings.log_folder.iterdir():
                try:
                    names.add(check_name(folder.name))
                except InvalidInput:
                    continue
        return sorted(names)

    def _watch_versions(self) -> None:
        for news in watch_versions(self._store, self._settings.repo, self._targets(), self._clock()):
            model = news.event.subject
            self._metrics.count_events(model, [news.event.type])
            if news.retrained:
                self._metrics.retrains.labels(model, news.result).inc()

    def _windows_of(self, pending: Pending, *, flush: bool) -> list[Judged]:
        """Close every complete window of one version."""
        judged: list[Judged] = []
        while pending.rows:
            live = live_digest(self._store, pending.model) in (None, pending.digest)
            verdict = complete(pending, self._rules, self._clock(), live=live, flush=flush)
            if verdict == "wait":
                break
            try:
                reference = self._references.find(pending.model, pending.digest)
            except BundleError as error:
                self._complain(f"windows of {pending.model} version {pending.version} wait: {error}")
                break
            if reference is None and not was_known(self._store, pending.model, pending.digest):
                self._complain(
                    f"windows of {pending.model} version {pending.version} wait: nothing in {self._settings.repo} has "
                    "their digest, and never had. Is it the repository of this log?"
                )
                break
            try:
                window, lost = take_rows(self._store, self._settings.log_folder, pending, self._rules.rows)
            except UnreadableNow as error:
                self._throttled.error(pending.digest, "windows of %s wait: %s", pending.model, error)
                break
            self._metrics.segments_lost.labels(pending.model).inc(lost)
            if window is not None and not (lost and window.table.num_rows < self._rules.fewest and verdict == "judge"):
                if verdict == "drop" or reference is None:
                    self._set_aside(window, "dropped" if verdict == "drop" else "unjudged")
                else:
                    judged.append(self._judge(window, reference, live=live))
            rest = [row for row in pending_rows(self._store, pending.model) if row.digest == pending.digest]
            if not rest or (window is None and not lost):
                break
            pending = rest[0]
        return judged

    def _set_aside(self, window: WindowRows, outcome: Outcome) -> None:
        reason = "too few for a window" if outcome == "dropped" else "their version was taken out of the repository"
        logger.warning(
            "%d rows of %s version %s are not judged: %s", window.table.num_rows, window.model, window.version, reason
        )
        with self._store.transaction():
            self._close(window, outcome, None, None)
        self._metrics.windows.labels(window.model, outcome).inc()

    def _judge(self, window: WindowRows, reference: Reference, *, live: bool) -> Judged:
        """Decide, report, and in one transaction write down the window and everything that follows."""
        seed = int.from_bytes(hashlib.sha256(window.key.encode()).digest()[:4], "big")
        columns = columns_of(window.table, reference.task)
        if self._settings.accuracy_alerts:
            known, until = self._outcomes(window.model, window.digest, reference.task), window.end.timestamp()
            recent = known.between(self._moved_since(window), until)
            columns = replace(columns, outcomes=known.between(None, until), recent_outcomes=recent)
        decision = decide(reference.columns, columns, self._settings.thresholds, seed=seed)
        data = drift_data(window, decision, None)
        data = data.model_copy(update={"report": self._report(window, reference, data)})
        now = self._clock()
        with self._store.transaction():
            change, retrain = self._follow(data, now) if live else (None, False)
            self._close(window, "judged", decision, data)
        self._show(data, change, retrain, now)
        return Judged(window.id, data, change, retrain)

    def _show_labelled(self, model: str, digest: str) -> None:
        """What the labels say of the live version, if its reference can be read; a window says why it cannot."""
        with suppress(BundleError):
            if (reference := self._references.find(model, digest)) is not None:
                outcomes = self._outcomes(model, digest, reference.task)
                self._metrics.show_labelled_accuracy(model, accuracy_of(outcomes))

    def _outcomes(self, model: str, digest: str, task: Task) -> Outcomes:
        """What the labels that came back say of a version, as far as they are known now."""
        if (model, digest) not in self._labelled:
            self._labelled[model, digest] = outcomes_of(self._settings.log_folder, model, digest, task)
        return self._labelled[model, digest]

    def _moved_since(self, window: WindowRows) -> float | None:
        """The end of the version's last window before this one that was like the reference; None if none was."""
        row = self._store.row(
            "SELECT max(ended) AS ended FROM windows "
            "WHERE model = ? AND digest = ? AND severity = 'none' AND ended <= ?",
            (window.model, window.digest, window.end.timestamp()),
        )
        return row["ended"] if row else None

    def _follow(self, data: DriftData, now: float) -> tuple[Change | None, bool]:
        """Move the alert state and put events into the outbox; inside the transaction of the window.

        Only windows of the live version come here: a leftover of an old one must not raise what was resolved.
        """
        model = data.model.model
        alert, change = advance(
            read_alert(self._store, model),
            data.severity,
            data.model.digest,
            data.window.end.timestamp(),
            confirm=self._settings.confirm_windows,
            resolve=self._settings.resolve_windows,
            quiet=self._settings.resolve_seconds,
            least=self._settings.alert_from,
        )
        write_alert(self._store, model, alert)
        if change is not None:
            kind: EventType = "plumbline.drift.resolved" if change == "resolved" else "plumbline.drift.detected"
            event = drift_event(kind, data, now)
            enqueue(self._store, event, self._targets(alertmanager=True), now)
            logger.info("%s: %s", kind, model)
        wanted = alert.state == "drift" and LEVEL[data.severity] >= LEVEL[self._settings.alert_from]
        return change, wanted and self._request_retrain(data, now)

    def _request_retrain(self, data: DriftData, now: float) -> bool:
        model = data.model.model
        if self._settings.retrain == "off":
            return False
        gate = Gate(self._settings.cooldown_seconds, self._settings.retrain_daily_cap)
        refusal = may_request(self._store, model, gate, now)
        if refusal is not None:
            logger.info("no retrain of %s is requested: %s", model, refusal)
            self._metrics.retrains.labels(model, "suppressed").inc()
            return False
        if self._settings.retrain == "dry-run":
            logger.info("a retrain of %s would be requested now (dry run)", model)
            self._metrics.retrains.labels(model, "dry-run").inc()
            return False
        enqueue(self._store, retrain_event(data, now), self._targets(retrain=True), now)
        return True

    def _targets(self, *, alertmanager: bool = False, retrain: bool = False) -> tuple[Target, ...]:
        settings = self._settings
        targets = [Target("webhook", url) for url in settings.webhook_urls]
        if alertmanager and settings.alertmanager_url:
            targets.append(Target("alertmanager", alertmanager_address(settings.alertmanager_url)))
        if retrain and settings.retrain_target is not None:
            targets.append(Target(*settings.retrain_target))
        return tuple(targets)

    def _report(self, window: WindowRows, reference: Reference, data: DriftData) -> str | None:
        """Write the report; without one the decision stands all the same."""
        if not self._settings.reports_kept:
            return None
        folder = self._settings.state_folder / REPORTS / window.model
        try:
            from monitoring.report import write_report

            path = write_report(
                folder, window.id, reference.table, window.table, data, self._settings.reports_kept, reference.task
            )
        except Exception:  # the library's faults are many and none of them may cost a decision
            logger.exception("the report of window %s could not be written", window.id)
            self._metrics.errors.labels("report").inc()
            return None
        if self._reports_url is None:
            return str(path.resolve())
        return f"{self._reports_url.rstrip('/')}/{REPORTS}/{window.model}/{path.name}"

    def _close(self, window: WindowRows, outcome: Outcome, decision: Decision | None, data: DriftData | None) -> None:
        use_rows(self._store, window)
        self._store.execute(
            "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                window.id,
                window.model,
                window.version,
                window.digest,
                window.table.num_rows,
                window.first,
                window.last,
                window.start.timestamp(),
                window.end.timestamp(),
                self._clock(),
                outcome,
                decision.severity if decision else None,
                data.model_dump_json(by_alias=True) if data else None,
                data.report if data else None,
            ),
        )

    def _gather(self, model: str, digest: str, rows: pa.Table) -> None:
        """Let the sequential detector see rows as they arrive; called inside the transaction that indexes them."""
        try:
            reference = self._references.find(model, digest)
        except BundleError:
            return
        if reference is None:
            return
        threshold = self._settings.evidence_threshold
        found = sequential.observe(self._store, model, digest, reference.columns, rows, threshold)
        if digest != live_digest(self._store, model):
            return
        self._metrics.evidence.labels(model).set(found.log_evidence)
        self._metrics.evidence_threshold.labels(model).set(found.log_threshold)
        if found.crossed:
            after = notice(read_alert(self._store, model))
            write_alert(self._store, model, after)
            self._metrics.show_state(model, after.state)
            logger.warning("%s: evidence of drift crossed its threshold; the next window decides", model)

    def _complain(self, message: str) -> None:
        """Log an error that stays until someone mends it, once."""
        if message not in self._complained:
            self._complained.add(message)
            self._metrics.errors.labels("reference").inc()
            logger.error("%s", message)

    def _show(self, data: DriftData, change: Change | None, retrain: bool, now: float) -> None:
        model = data.model.model
        self._show_window(data)
        self._metrics.windows.labels(model, "judged").inc()
        self._metrics.show_state(model, read_alert(self._store, model).state)
        if change is not None:
            self._metrics.count_events(
                model, ["plumbline.drift.resolved" if change == "resolved" else "plumbline.drift.detected"]
            )
        if retrain:
            self._metrics.count_events(model, ["plumbline.retrain.requested"])
            self._metrics.retrains.labels(model, "requested").inc()
            self._metrics.retrain_time.labels(model).set(now)
        logger.info(
            "window of %d rows of %s version %s: %s (%s); %s",
            data.window.rows,
            model,
            data.model.version,
            data.severity,
            ", ".join(signal.name for signal in data.signals if signal.drifted) or "nothing",
            data.reason,
        )

    def _show_window(self, data: DriftData) -> None:
        """In the gauges, and beside the log for the server's status page; those of the live version only.

        A canary's windows come between, and old versions' leftovers after them.
        """
        if live_digest(self._store, data.model.model) not in (None, data.model.digest):
            return
        self._metrics.show_window(data)
        try:
            write_last_window(self._settings.log_folder, data)
        except OSError as error:  # a log that only the server may write: the page is poorer, the decision stands
            logger.warning("the server's status page will not show the last window: %s", error)
            self._metrics.errors.labels("page").inc()

    def _show_stored(self) -> None:
        """Show the newest windows of the state, so that a restart does not blank them."""
        for row in self._store.rows(
            "SELECT model, decision FROM windows WHERE rowid IN "
            "(SELECT max(rowid) FROM windows WHERE outcome = 'judged' GROUP BY model, digest)"
        ):
            self._show_window(DriftData.model_validate(orjson.loads(row["decision"])))
            self._metrics.show_state(row["model"], read_alert(self._store, row["model"]).state)
        self._metrics.show_outbox(*counts(self._store))


def report_folder(settings: MonitorSettings) -> Path:
    """Where reports are written."""
    return settings.state_folder / REPORTS
