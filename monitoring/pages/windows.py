"""A model's windows as a table, newest first, and what the monitor's pages say alike."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from monitoring.state import StateStore
from service.card.page import Tone, badge, table, verdict
from service.contract.events import DriftData

_WINDOWS = 30
_STATES: dict[str, tuple[str, Tone]] = {"ok": ("ok", "good"), "notice": ("notice", "warn"), "drift": ("drift", "bad")}


def table_of(store: StateStore, model: str, reports: Path) -> str:
    """The newest 30 windows of a model; empty if it has had none. ``reports`` is the folder that is served."""
    rows = store.rows(
        "SELECT id, version, rows, ended, outcome, severity, decision FROM windows WHERE model = ? "
        "ORDER BY closed DESC, ended DESC LIMIT ?",
        (model, _WINDOWS),
    )
    cells = [
        (
            _linked(as_time(row["ended"]), report_link(reports, model, row["id"])),
            _verdict(row["outcome"], row["severity"]),
            escape(_drifted(row["decision"])),
            escape(row["version"]),
            f"{row['rows']}",
        )
        for row in rows
    ]
    columns = ("until", "verdict", "what drifted", "version", "rows")
    return table(columns, cells, right=[4]) if cells else ""


def alert_badge(state: str) -> str:
    """The badge of a model: ok, notice or drift."""
    return badge(*_STATES[state])


def report_link(reports: Path, model: str, window: str) -> str | None:
    """Where a window's report is; None if there is none."""
    there = (reports / model / f"{window}.html").is_file()
    return f"/reports/{quote(model)}/{quote(window)}.html" if there else None


def as_time(seconds: float) -> str:
    """Seconds since 1970 as a time, in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{moment.isoformat()}">{moment:%Y-%m-%d %H:%M}</time>'


def _linked(said: str, href: str | None) -> str:
    return said if href is None else f'<a href="{href}">{said}</a>'


def _verdict(outcome: str, severity: str | None) -> str:
    if outcome != "judged" or severity is None:
        return badge({"dropped": "too few rows", "unjudged": "no reference"}.get(outcome, outcome))
    return verdict(severity)


def _drifted(decision: str | None) -> str:
    if decision is None:
        return ""
    data = DriftData.model_validate_json(decision)
    return ", ".join(signal.name for signal in data.signals if signal.drifted)
