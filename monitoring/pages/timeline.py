"""A model's page: what its windows came to, one after the other, with their thresholds, and what was done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import orjson

from monitoring.judging.alerts import read_alert
from monitoring.pages.chart import STYLE, Mark, Point, Track, chart
from monitoring.pages.windows import alert_badge, as_time, report_link, table_of
from monitoring.state import StateStore
from service.card.page import facts, page, table, verdict
from service.contract.events import DriftData

WINDOWS = 120
_EVENTS = 50
_LEAST = 0.1  # of accuracy that is always in sight

_LABELS = "accuracy"  # the signal whose statistic is the accuracy by the labels that came back


@dataclass(frozen=True)
class _Judged:
    """A judged window, where its report is, and the seconds since 1970 at which it ended."""

    data: DriftData
    href: str | None
    ended: float

    @property
    def said(self) -> str:
        return f"{self.data.window.end:%Y-%m-%d %H:%M}, version {self.data.model.version}"


def timeline(state: Path, reports: Path, model: str) -> str | None:
    """The page of a model, whole; None if it has had no window. ``reports`` is the folder that is served."""
    store = StateStore(state)
    try:
        rows = store.rows(
            "SELECT id, ended, decision FROM windows WHERE model = ? AND decision IS NOT NULL "
            "ORDER BY ended DESC, closed DESC LIMIT ?",
            (model, WINDOWS),
        )
        windows = table_of(store, model, reports)
        if not windows:
            return None
        events = store.rows(
            "SELECT type, created, body FROM events WHERE model = ? ORDER BY created DESC LIMIT ?", (model, _EVENTS)
        )
        alert = read_alert(store, model)
    finally:
        store.close()
    judged = [
        _Judged(DriftData.model_validate_json(row["decision"]), report_link(reports, model, row["id"]), row["ended"])
        for row in reversed(rows)
    ]
    happened = [(float(row["created"]), *_told(row["type"], orjson.loads(row["body"])["data"])) for row in events]
    body = [_state(judged), *_charts(judged, happened), _happened(happened), f"<h2>Windows</h2>{windows}"]
    heading = f"{escape(model)} {alert_badge(alert.state)}"
    links = [("Monitor", "/"), ("All reports", "/reports/"), ("Metrics", "/metrics")]
    return page(f"{model}: timeline", body, heading=heading, links=links, style=STYLE, refresh=60)


def _state(judged: Sequence[_Judged]) -> str:
    if not judged:
        return "<p>No window was judged yet.</p>"
    newest = judged[-1].data
    shown = [("newest window", verdict(newest.severity)), ("until", as_time(judged[-1].ended))]
    if newest.reason:
        shown.append(("why", escape(newest.reason)))
    return facts(shown)


def _charts(judged: Sequence[_Judged], happened: Sequence[tuple[float, str, str]]) -> list[str]:
    if not judged:
        return []
    marks = [Mark(_after(judged, at), short) for at, short, _ in happened if short]
    shown = [_accuracy(judged, marks)]
    names = dict.fromkeys(signal.name for one in judged for signal in one.data.signals if signal.name != _LABELS)
    note = (
        "Effect of each signal by window, and from where it counts. Red points drifted: effect and corrected p-value "
        "both passed. Points lead to reports."
    )
    tracks = [_signal(judged, name) for name in names]
    return [*shown, f"<h2>Signals</h2><p class='note'>{note}</p>", *(chart(one, marks) for one in tracks)]


def _accuracy(judged: Sequence[_Judged], marks: Sequence[Mark]) -> str:
    points: list[Point] = []
    for index, one in enumerate(judged):
        data = one.data
        if data.accuracy_estimated is not None:
            low, high = data.accuracy_interval or (None, None)
            doubt = "" if data.accuracy_trusted else ", not to be trusted"
            said = f"{one.said}: {data.accuracy_estimated:.3f} estimated{doubt}"
            points.append(Point(index, data.accuracy_estimated, said, one.href, low, high, hollow=bool(doubt)))
        points += [
            Point(index, signal.statistic, f"{one.said}: {signal.direction}", one.href, bad=signal.drifted, square=True)
            for signal in data.signals
            if signal.name == _LABELS
        ]
    if not points:
        return ""
    reference = next((one.data.accuracy_reference for one in reversed(judged) if one.data.accuracy_reference), None)
    track = Track("Accuracy", len(judged), tuple(points), reference, (judged[0].said, judged[-1].said), least=_LEAST)
    note = (
        "Squares: by the labels that came back. Circles: estimated from confidence, with the 95 % interval; hollow "
        "where the estimate cannot be trusted. Dashed: measured on the reference."
    )
    return f"<h2>Accuracy</h2><p class='note'>{note}</p>{chart(track, marks)}"


def _signal(judged: Sequence[_Judged], name: str) -> Track:
    found = [
        (index, one, signal) for index, one in enumerate(judged) for signal in one.data.signals if signal.name == name
    ]
    points = tuple(
        Point(
            index,
            signal.effect,
            f"{one.said}: {signal.effect:.3f}, p {signal.p_value:.2g}, {signal.direction}",
            one.href,
            bad=signal.drifted,
        )
        for index, one, signal in found
    )
    return Track(name, len(judged), points, found[-1][2].effect_threshold, (judged[0].said, judged[-1].said), floor=0.0)


def _after(judged: Sequence[_Judged], moment: float) -> float:
    """Between which windows something happened: the index of the next one, less a half."""
    return next((index for index, one in enumerate(judged) if one.ended > moment), len(judged)) - 0.5


def _told(kind: str, data: dict[str, object]) -> tuple[str, str]:
    """(a word for the chart, or nothing; HTML for the table) of an event."""
    model = data["model"]
    version = escape(str(model["version"])) if isinstance(model, dict) else "?"
    reasons = data.get("reasons")
    listed = escape("; ".join(map(str, reasons))) if isinstance(reasons, list) else ""
    match kind:
        case "plumbline.drift.detected":
            return "alert", f"{verdict(str(data['severity']))} {escape(str(data.get('reason') or ''))}"
        case "plumbline.drift.resolved":
            return "resolved", "resolved"
        case "plumbline.retrain.requested":
            return "retrain", f"a retrain was asked for: {escape(str(data['reason']))}"
        case "plumbline.retrain.failed":
            return "failed", f"the retrain failed: {escape(str(data['reason']))}"
        case "plumbline.model.published":
            return f"v{version}", f"version {version} was published: {listed}"
        case "plumbline.model.rejected":
            return "rejected", f"version {version} was rejected: {listed}"
    return "", escape(kind)


def _happened(happened: Sequence[tuple[float, str, str]]) -> str:
    if not happened:
        return ""
    return f"<h2>What happened</h2>{table(('when', 'what'), [(as_time(at), said) for at, _, said in happened])}"


def timeline_address(model: str) -> str:
    """Where the page of a model is."""
    return f"/models/{quote(model, safe='')}"
