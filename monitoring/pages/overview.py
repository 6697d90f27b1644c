"""The monitor's first page: each model with its state and its windows, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from monitoring.delivery.hooks import newest_command
from monitoring.delivery.model_events import live_version
from monitoring.delivery.outbox import counts
from monitoring.judging.alerts import read_alert
from monitoring.state import StateStore
from service.card.page import Tone, badge, facts, table, verdict
from service.contract.events import DriftData

_WINDOWS = 30  # of each model
_STATES: dict[str, tuple[str, Tone]] = {"ok": ("ok", "good"), "notice": ("notice", "warn"), "drift": ("drift", "bad")}


def overview(state: Path, reports: Path) -> Iterator[str]:
    """Sections of HTML, one for each model that has had a window. ``reports`` is the folder that is served."""
    store = StateStore(state)
    try:
        pending, dead = counts(store)
        if dead:
            told = f"{dead} deliveries were given up; <code>plumbline webhook replay</code> sends them again"
            yield f"<p>{badge('undelivered', 'bad')} {told}</p>"
        elif pending:
            yield f"<p>{badge('delivering', 'warn')} {pending} deliveries are on their way</p>"
        models = [row["model"] for row in store.rows("SELECT DISTINCT model FROM windows ORDER BY model")]
        for model in models:
            yield _model(store, str(model), state, reports)
        if not models:
            yield "<p>No window was judged yet.</p>"
    finally:
        store.close()


def _model(store: StateStore, model: str, state: Path, reports: Path) -> str:
    alert = read_alert(store, model)
    live = live_version(store, model)
    shown = [("live", f"version {escape(live)}" if live else "nothing")]
    if alert.state == "drift":
        shown.append(("since", _time(alert.since)))
    if (command := newest_command(store, state / "retrain", model)) is not None:
        shown.append(("last retrain", escape(command.end or command.status)))
    rows = store.rows(
        "SELECT id, version, rows, ended, outcome, severity, decision FROM windows WHERE model = ? "
        "ORDER BY closed DESC, ended DESC LIMIT ?",
        (model, _WINDOWS),
    )
    cells = [
        (
            _report(reports, model, row["id"], _time(row["ended"])),
            _verdict(row["outcome"], row["severity"]),
            escape(_drifted(row["decision"])),
            escape(row["version"]),
            f"{row['rows']}",
        )
        for row in rows
    ]
    columns = ("until", "verdict", "what drifted", "version", "rows")
    return (
        f"<section><h2>{escape(model)} {badge(*_STATES[alert.state])}</h2>{facts(shown)}"
        f"{table(columns, cells, right=[4])}</section>"
    )


def _verdict(outcome: str, severity: str | None) -> str:
    if outcome != "judged" or severity is None:
        return badge({"dropped": "too few rows", "unjudged": "no reference"}.get(outcome, outcome))
    return verdict(severity)


def _drifted(decision: str | None) -> str:
    if decision is None:
        return ""
    data = DriftData.model_validate_json(decision)
    return ", ".join(signal.name for signal in data.signals if signal.drifted)


def _report(reports: Path, model: str, window: str, said: str) -> str:
    """What is said, as a link to the window's report where there is one."""
    if not (reports / model / f"{window}.html").is_file():
        return said
    return f'<a href="/reports/{quote(model)}/{quote(window)}.html">{said}</a>'


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{moment.isoformat()}">{moment:%Y-%m-%d %H:%M}</time>'
