"""The monitor's Prometheus metrics, each declared once; labels are few and never hold a text or an id."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from monitoring.judging.alerts import LEVEL, State
from monitoring.judging.severity import LEVEL as SEVERITY
from service.contract.events import DriftData


class Metrics:
    """Counters and gauges of one monitor, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.score = Gauge(
            "plumbline_drift_score", "Effect size of a signal in the last window", ["model", "signal"], registry=r
        )
        self.threshold = Gauge(
            "plumbline_drift_threshold", "Effect size from which a signal counts", ["model", "signal"], registry=r
        )
        self.evidence = Gauge(
            "plumbline_drift_evidence", "Natural log of the sequential statistic", ["model"], registry=r
        )
        self.evidence_threshold = Gauge(
            "plumbline_drift_evidence_threshold", "Log evidence at which the detector fires", ["model"], registry=r
        )
        self.state = Gauge("plumbline_drift_state", "0 no drift, 1 notice, 2 drift", ["model"], registry=r)
        self.severity = Gauge(
            "plumbline_drift_severity",
            "Of the last window: 0 none, 1 notice, 2 warning, 3 critical",
            ["model"],
            registry=r,
        )
        self.trusted = Gauge(
            "plumbline_accuracy_trusted",
            "Whether the accuracy estimated in the last window can be trusted",
            ["model"],
            registry=r,
        )
        self.window_rows = Gauge("plumbline_window_rows", "Rows of the last judged window", ["model"], registry=r)
        self.window_end = Gauge(
            "plumbline_window_end_timestamp_seconds", "Time of the last judged window's last row", ["model"], registry=r
        )
        self.accuracy = Gauge(
            "plumbline_accuracy",
            "Accuracy on the reference rows, estimated in the last window, or by the newest labels",
            ["model", "kind"],
            registry=r,
        )
        self.alerts = Counter("plumbline_alerts", "Events sent, by type", ["model", "type"], registry=r)
        self.windows = Counter("plumbline_windows", "Windows closed, by outcome", ["model", "outcome"], registry=r)
        self.segments_lost = Counter(
            "plumbline_segments_lost", "Log segments that could not be read and were left out", ["model"], registry=r
        )
        self.errors = Counter("plumbline_monitor_errors", "Rounds that failed, by part", ["part"], registry=r)
        self.finished = Gauge(
            "plumbline_monitor_round_timestamp_seconds", "Time at which the last round was finished", registry=r
        )
        self.outbox_dead = Gauge("plumbline_outbox_dead", "Deliveries that were given up", registry=r)
        self.outbox_pending = Gauge("plumbline_outbox_pending", "Deliveries neither through nor dead", registry=r)
        self.retrains = Counter(
            "plumbline_retrains", "Retrain requests and what became of them", ["model", "result"], registry=r
        )
        self.retrain_time = Gauge(
            "plumbline_retrain_timestamp_seconds", "Time of the last retrain request", ["model"], registry=r
        )

    def show_window(self, data: DriftData) -> None:
        """Show a judged window."""
        model = data.model.model
        for signal in data.signals:
            self.score.labels(model, signal.name).set(signal.effect)
            self.threshold.labels(model, signal.name).set(signal.effect_threshold)
        self.severity.labels(model).set(SEVERITY[data.severity])
        if data.accuracy_trusted is not None:
            self.trusted.labels(model).set(data.accuracy_trusted)
        self.window_rows.labels(model).set(data.window.rows)
        self.window_end.labels(model).set(data.window.end.timestamp())
        for kind, accuracy in (("reference", data.accuracy_reference), ("estimated", data.accuracy_estimated)):
            if accuracy is not None:
                self.accuracy.labels(model, kind).set(accuracy)

    def show_labelled_accuracy(self, model: str, accuracy: float | None) -> None:
        """Show the accuracy by feedback; None hides it: a new version has none yet."""
        if accuracy is not None:
            self.accuracy.labels(model, "labelled").set(accuracy)
        elif self.registry.get_sample_value("plumbline_accuracy", {"model": model, "kind": "labelled"}) is not None:
            self.accuracy.remove(model, "labelled")

    def show_outbox(self, pending: int, dead: int) -> None:
        """Show the deliveries that are not through."""
        self.outbox_pending.set(pending)
        self.outbox_dead.set(dead)

    def show_state(self, model: str, state: State) -> None:
        """Show a model's alert state."""
        self.state.labels(model).set(LEVEL[state])

    def count_events(self, model: str, types: Iterable[str]) -> None:
        """Count events as they are put into the outbox."""
        for kind in types:
            self.alerts.labels(model, kind).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
