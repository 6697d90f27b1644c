"""When a verdict becomes a message: the alert state of one model, as a pure function.

ok ──notice──▶ notice ──alert, confirmed──▶ drift ──clean windows, or a new version's first──▶ ok
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from monitoring.decision import Severity
from monitoring.state import Store

State = Literal["ok", "notice", "drift"]
Change = Literal["detected", "resolved"]
LEVEL: dict[State, int] = {"ok": 0, "notice": 1, "drift": 2}


@dataclass(frozen=True)
class Alert:
    """``digest`` is the version that drift was found on; ``drifted`` and ``clean`` count windows in a row."""

    state: State = "ok"
    digest: str | None = None
    drifted: int = 0
    clean: int = 0
    since: float = 0.0


def advance(
    alert: Alert, severity: Severity, digest: str, now: float, *, confirm: int, resolve: int
) -> tuple[Alert, Change | None]:
    """The state after a judged window of the live version ``digest``, and whether people must be told."""
    drifted = alert.drifted + 1 if severity == "alert" else 0
    clean = alert.clean + 1 if severity == "none" else 0
    counted = replace(alert, drifted=drifted, clean=clean)
    if alert.state == "drift":
        if clean and (clean >= resolve or digest != alert.digest):
            return replace(counted, state="ok", digest=None, since=now), "resolved"
        return counted, None
    if severity == "alert" and drifted >= confirm:
        return replace(counted, state="drift", digest=digest, since=now), "detected"
    state: State = "ok" if severity == "none" else "notice"
    return (counted if state == alert.state else replace(counted, state=state, since=now)), None


def notice(alert: Alert, now: float) -> Alert:
    """The state after the sequential detector fired: never more than a notice, until a window confirms it."""
    return replace(alert, state="notice", since=now) if alert.state == "ok" else alert


def read_alert(store: Store, model: str) -> Alert:
    """The stored state; a model without one is ok."""
    row = store.row("SELECT state, digest, drifted, clean, since FROM alerts WHERE model = ?", (model,))
    return Alert(*row) if row else Alert()


def write_alert(store: Store, model: str, alert: Alert) -> None:
    """Store the state; call inside a transaction."""
    store.execute(
        "INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?, ?)",
        (model, alert.state, alert.digest, alert.drifted, alert.clean, alert.since),
    )
