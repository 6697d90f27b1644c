"""The model repository's news: versions that went live and challengers that were turned down."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monitoring.delivery.messages import model_event
from monitoring.delivery.outbox import Target, enqueue
from monitoring.state import StateStore
from service.contract.bundle import Bundle, read_bundle
from service.contract.errors import BundleError
from service.contract.events import Event, ModelData, ModelRef
from service.contract.repository import model_names, read_serving, versions

logger = logging.getLogger(__name__)

_STARTED = "versions recorded"


@dataclass(frozen=True)
class VersionEvent:
    """One event about a version; ``retrained`` if it was a challenger."""

    event: Event[ModelData]
    result: Literal["accepted", "rejected"]
    retrained: bool


def watch_versions(store: StateStore, repo: Path, targets: tuple[Target, ...], now: float) -> list[VersionEvent]:
    """Compare the repository with what was seen before, and send an event for what is new, in one transaction each.

    On the very first call everything there is recorded silently. A damaged version is logged and looked at again
    the next time.
    """
    first = store.row("SELECT value FROM meta WHERE key = ?", (_STARTED,)) is None
    news: list[VersionEvent] = []
    for model in model_names(repo):
        news += _new_versions(store, repo, model, targets, now, silent=first)
        found = _new_live(store, repo, model, targets, now, silent=first)
        news += [found] if found else []
    if first:
        store.execute("INSERT INTO meta VALUES (?, ?)", (_STARTED, str(now)))
    return news


def live_version(store: StateStore, model: str) -> str | None:
    """The version that was live when the repository was last looked at."""
    row = store.row("SELECT version FROM live WHERE model = ?", (model,))
    return str(row["version"]) if row else None


def live_digest(store: StateStore, model: str) -> str | None:
    """The digest of the live version; None if nothing was live yet."""
    row = store.row("SELECT digest FROM live JOIN versions USING (model, version) WHERE model = ?", (model,))
    return str(row["digest"]) if row else None


def was_known(store: StateStore, model: str, digest: str) -> bool:
    """Whether a version with this digest was ever seen in the repository."""
    return store.row("SELECT 1 FROM versions WHERE model = ? AND digest = ?", (model, digest)) is not None


def _new_versions(
    store: StateStore, repo: Path, model: str, targets: tuple[Target, ...], now: float, *, silent: bool
) -> list[VersionEvent]:
    news = []
    known = {row["version"] for row in store.rows("SELECT version FROM versions WHERE model = ?", (model,))}
    for version in versions(repo, model):
        if version in known:
            continue
        bundle = _read(repo / model / version)
        if bundle is None:
            continue
        challenge = bundle.manifest.challenge
        with store.transaction():
            store.execute("INSERT INTO versions VALUES (?, ?, ?, ?)", (model, version, bundle.digest, now))
            if challenge is not None and not challenge.accepted and not silent:
                event = model_event("plumbline.model.rejected", bundle, None, now)
                enqueue(store, event, targets, now)
                news.append(VersionEvent(event, "rejected", retrained=True))
                logger.info("version %s of %s was rejected: %s", version, model, "; ".join(challenge.reasons))
    return news


def _new_live(
    store: StateStore, repo: Path, model: str, targets: tuple[Target, ...], now: float, *, silent: bool
) -> VersionEvent | None:
    try:
        live = read_serving(repo, model).live
    except BundleError:
        return None  # published, and nothing live yet
    before = live_version(store, model)
    bundle = _read(repo / model / live) if live != before else None
    if bundle is None:
        return None
    champion = _reference(store, model, before) if before else None
    event: Event[Any] = model_event("plumbline.model.published", bundle, champion, now)
    with store.transaction():
        store.execute("INSERT OR REPLACE INTO live VALUES (?, ?)", (model, live))
        if silent:
            return None
        enqueue(store, event, targets, now)
    logger.info("version %s of %s is live", live, model)
    challenge = bundle.manifest.challenge
    return VersionEvent(event, "accepted", retrained=challenge is not None and challenge.accepted)


def _reference(store: StateStore, model: str, version: str) -> ModelRef | None:
    row = store.row("SELECT digest FROM versions WHERE model = ? AND version = ?", (model, version))
    return ModelRef(model=model, version=version, digest=row["digest"]) if row else None


def _read(path: Path) -> Bundle | None:
    try:
        return read_bundle(path)
    except BundleError as error:
        logger.error("%s", error)
        return None
