"""The monitor's first page: each model with its state and its windows, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from monitoring.delivery.hooks import newest_command
from monitoring.delivery.model_events import live_version
from monitoring.delivery.outbox import counts
from monitoring.judging.alerts import read_alert
from monitoring.pages.timeline import timeline_address
from monitoring.pages.windows import alert_badge, as_time, table_of
from monitoring.state import StateStore
from service.card.page import badge, facts


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
        shown.append(("since", as_time(alert.since)))
    if (command := newest_command(store, state / "retrain", model)) is not None:
        shown.append(("last retrain", escape(command.end or command.status)))
    named = f'<a href="{timeline_address(model)}">{escape(model)}</a>'
    return (
        f"<section><h2>{named} {alert_badge(alert.state)}</h2>{facts(shown)}{table_of(store, model, reports)}</section>"
    )
