"""When a verdict becomes a message: the alert state of one model, as a pure function.

ok ──notice──▶ notice ──warning, confirmed──▶ drift ──clean for long enough, or in a new version's window──▶ ok

A window that is critical while drift was told as less is told once more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from monitoring.judging.severity import LEVEL as SEVERITY
from monitoring.judging.severity import Severity
from monitoring.state import StateStore

State = Literal["ok", "notice", "drift"]
Change = Literal["detected", "worse", "resolved"]
_STRAY = 20  # clean windows that make up for one that is not
LEVEL: dict[State, int] = {"ok": 0, "notice": 1, "drift": 2}


@dataclass(frozen=True)
class Alert:
    """``digest`` is the version that drift was found on; ``drifted`` counts windows in a row.

    ``clean`` counts windows, too, and a stray one that is not clean takes back 20 of them; ``since`` is the end of the
    window at which it was last 0, in seconds since the epoch. ``told`` is the severity that people know of.
    """

    state: State = "ok"
    digest: str | None = None
    drifted: int = 0
    clean: int = 0
    since: float = 0.0
    told: Severity = "none"


def advance(
    alert: Alert,
    severity: Severity,
    digest: str,
    end: float,
    *,
    confirm: int,
    resolve: int,
    quiet: float,
    least: Severity = "warning",
) -> tuple[Alert, Change | None]:
    """The state after a judged window of the live version ``digest``, and whether people must be told.

    Drift begins with ``confirm`` windows in a row of severity ``least`` or more, and is over when for ``quiet``
    seconds all but about one window in twenty were clean, ``resolve`` at least. A few clean windows in the middle of
    a cycle of the traffic are no end: without ``quiet`` each cycle would be told as a drift of its own. And at a few
    windows a minute an hour without a single false alarm never comes: one in a hundred windows or two is one. Time is
    that of the requests (``end`` of the window), so that a monitor that catches up with a log tells what it would
    have told then.
    """
    wakes = SEVERITY[severity] >= SEVERITY[least]
    drifted = alert.drifted + 1 if wakes else 0
    clean = alert.clean + 1 if severity == "none" else max(0, alert.clean - _STRAY)
    since = min(alert.since, end) if clean else end
    counted = replace(alert, drifted=drifted, clean=clean, since=since)
    if alert.state == "drift":
        over = clean >= resolve and end - since >= quiet
        if severity == "none" and (over or digest != alert.digest):
            return replace(counted, state="ok", digest=None, told="none"), "resolved"
        if severity == "critical" != alert.told:
            return replace(counted, told=severity), "worse"
        return counted, None
    if wakes and drifted >= confirm:
        return replace(counted, state="drift", digest=digest, clean=0, since=end, told=severity), "detected"
    return replace(counted, state="ok" if severity == "none" else "notice"), None


def notice(alert: Alert) -> Alert:
    """The state after the sequential detector fired: never more than a notice, until a window confirms it."""
    return replace(alert, state="notice") if alert.state == "ok" else alert


def read_alert(store: StateStore, model: str) -> Alert:
    """The stored state; a model without one is ok."""
    row = store.row("SELECT state, digest, drifted, clean, since, told FROM alerts WHERE model = ?", (model,))
    return Alert(*row) if row else Alert()


def write_alert(store: StateStore, model: str, alert: Alert) -> None:
    """Store the state; call inside a transaction."""
    store.execute(
        "INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?)",
        (model, alert.state, alert.digest, alert.drifted, alert.clean, alert.since, alert.told),
    )
