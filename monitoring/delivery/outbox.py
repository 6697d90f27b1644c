"""Deliveries that survive a crash: each event has one row for each target, retried until it is through or dead.

At least once: a row is marked delivered after the receiver said so, so a crash in between sends it again, with the
same id. Retry times follow Standard Webhooks 1.0: a growing backoff with jitter, ``Retry-After`` honoured, a receiver
that answers 410 never asked again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from monitoring.state import StateStore
from service.contract.events import Event

logger = logging.getLogger(__name__)

Kind = Literal[
    "webhook", "alertmanager", "retrain-http", "retrain-command", "retrain-job", "retrain-github", "retrain-airflow"
]
HTTP_KINDS: tuple[Kind, ...] = (
    "webhook",
    "alertmanager",
    "retrain-http",
    "retrain-job",
    "retrain-github",
    "retrain-airflow",
)
LONGEST_WAIT = 86_400.0  # seconds; a larger Retry-After is cut to this
_JITTER = 0.2


@dataclass(frozen=True)
class Target:
    """Where a copy of an event goes: a URL, or what the kind asks for: a command line, a file, ``owner/repository``."""

    kind: Kind
    address: str


@dataclass(frozen=True)
class Delivery:
    """One row of the outbox that is due; ``attempts`` counts those made before."""

    id: int
    event: str
    type: str
    model: str
    kind: Kind
    target: str
    body: bytes
    attempts: int


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt. ``gone`` disables the target; ``refused`` is an answer that no retry changes."""

    result: Literal["delivered", "failed", "gone", "refused"]
    error: str | None = None
    retry_after: float | None = None


Sender = Callable[[Delivery], Outcome]
GivenUp = Callable[[Delivery, str], None]  # in the transaction that gives a delivery up, with the reason


def enqueue(store: StateStore, event: Event[Any], targets: Sequence[Target], now: float) -> None:
    """Record an event and its deliveries; call inside the transaction that makes it true."""
    store.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?)", (event.id, event.type, event.subject, now, event.to_json())
    )
    disabled = {row["target"] for row in store.rows("SELECT target FROM disabled")}
    for target in targets:
        dead = target.address in disabled
        store.execute(
            "INSERT INTO outbox (event, kind, target, status, due, error) VALUES (?, ?, ?, ?, ?, ?)",
            (
                event.id,
                target.kind,
                target.address,
                "dead" if dead else "pending",
                now,
                "the receiver answered 410 Gone before" if dead else None,
            ),
        )


def due(store: StateStore, kinds: Sequence[Kind], now: float, most: int = 100) -> list[Delivery]:
    """Deliveries whose time has come, oldest first."""
    marks = ", ".join("?" * len(kinds))
    found = store.rows(
        "SELECT outbox.id, event, type, model, kind, target, body, attempts FROM outbox "  # noqa: S608  only marks
        f"JOIN events ON events.id = event WHERE status = 'pending' AND kind IN ({marks}) AND due <= ? "
        "ORDER BY due, outbox.id LIMIT ?",
        (*kinds, now, most),
    )
    return [Delivery(*row) for row in found]


def running(store: StateStore, kinds: Sequence[Kind]) -> list[Delivery]:
    """Deliveries that somebody began and has not ended, oldest first."""
    marks = ", ".join("?" * len(kinds))
    found = store.rows(
        "SELECT outbox.id, event, type, model, kind, target, body, attempts FROM outbox "  # noqa: S608  only marks
        f"JOIN events ON events.id = event WHERE status = 'running' AND kind IN ({marks}) ORDER BY outbox.id",
        tuple(kinds),
    )
    return [Delivery(*row) for row in found]


def deliver_due(
    store: StateStore,
    senders: Mapping[Kind, Sender],
    backoff: Sequence[float],
    clock: Callable[[], float],
    stopped: Callable[[], bool] = lambda: False,
    given_up: GivenUp = lambda delivery, reason: None,
) -> int:
    """Attempt every due HTTP delivery once, until ``stopped``; returns how many went through.

    A target that fails has to wait for the next call with all that is for it, so that it does not keep the others
    waiting by one timeout after another.
    """
    delivered = 0
    failed: set[str] = set()
    for delivery in due(store, HTTP_KINDS, clock()):
        if stopped():
            break
        if delivery.target in failed:
            continue
        try:
            outcome = senders[delivery.kind](delivery)
        except Exception as error:  # whatever one receiver causes, the others get theirs
            logger.exception("an attempt at %s failed in a way that nobody expected", place_of(delivery))
            outcome = Outcome("failed", f"{type(error).__name__}: {error}"[:300])
        settle(store, delivery, outcome, backoff, clock(), given_up)
        delivered += outcome.result == "delivered"
        if outcome.result in ("failed", "gone"):
            failed.add(delivery.target)
    return delivered


def settle(
    store: StateStore,
    delivery: Delivery,
    outcome: Outcome,
    backoff: Sequence[float],
    now: float,
    given_up: GivenUp = lambda delivery, reason: None,
) -> None:
    """Record what became of an attempt: delivered, due again later, or dead."""
    attempts = delivery.attempts + 1
    place = place_of(delivery)
    with store.transaction():
        if outcome.result == "delivered":
            status, when = "delivered", now
            logger.info("%s %s delivered to %s", delivery.type, delivery.event, place)
        elif outcome.result == "failed" and attempts <= len(backoff):
            status, when = "pending", now + next_wait(backoff[attempts - 1], outcome.retry_after)
            logger.warning(
                "%s %s not delivered to %s: %s; attempt %d follows in %.0f s",
                delivery.type,
                delivery.event,
                place,
                outcome.error,
                attempts + 1,
                when - now,
            )
        else:
            status, when = "dead", now
            logger.error(
                "%s %s given up for %s after %d attempts: %s; `plumbline webhook replay` sends it again",
                delivery.type,
                delivery.event,
                place,
                attempts,
                outcome.error,
            )
            given_up(delivery, outcome.error or outcome.result)
        store.execute(
            "UPDATE outbox SET status = ?, attempts = ?, due = ?, error = ?, finished = ? WHERE id = ?",
            (status, attempts, when, outcome.error, None if status == "pending" else now, delivery.id),
        )
        if outcome.result == "gone":
            store.execute("INSERT OR IGNORE INTO disabled VALUES (?, ?)", (delivery.target, now))
            store.execute(
                "UPDATE outbox SET status = 'dead', error = ?, finished = ? WHERE target = ? AND status = 'pending'",
                (outcome.error, now, delivery.target),
            )


def next_wait(wait: float, retry_after: float | None) -> float:
    """Seconds until the next attempt: the backoff give or take a fifth, and not before the receiver asked for."""
    jittered = wait * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  spreads load, keeps no secret
    return max(jittered, min(retry_after or 0.0, LONGEST_WAIT))


def counts(store: StateStore) -> tuple[int, int]:
    """Deliveries that are neither through nor dead, and those that were given up: a replay makes them due again."""
    found = {
        row["status"]: int(row["n"]) for row in store.rows("SELECT status, count(*) AS n FROM outbox GROUP BY status")
    }
    return found.get("pending", 0) + found.get("running", 0), found.get("dead", 0)


def replay(store: StateStore, now: float, event: str | None = None, *, retrains: bool = False) -> int:
    """Make dead deliveries due again, of one event or of all, and ask disabled receivers again; returns how many.

    :param retrains: also those that ask for a retrain, which would be run again.
    """
    with store.transaction():
        where, values = ("AND event = ?", (event,)) if event else ("", ())
        if not retrains:
            where += " AND kind NOT LIKE 'retrain-%'"
        store.execute(
            f"DELETE FROM disabled WHERE target IN (SELECT target FROM outbox WHERE status = 'dead' {where})",  # noqa: S608
            values,
        )
        return store.execute(
            f"UPDATE outbox SET status = 'pending', attempts = 0, due = ?, finished = NULL "  # noqa: S608
            f"WHERE status = 'dead' {where}",
            (now, *values),
        )


def place_of(delivery: Delivery) -> str:
    """The target without what may be secret: a URL's host, a command's program."""
    if delivery.kind == "retrain-command":
        return "the retrain command"
    if delivery.kind in ("retrain-job", "retrain-github"):
        return delivery.target
    return urlsplit(delivery.target).netloc.rsplit("@", 1)[-1]
