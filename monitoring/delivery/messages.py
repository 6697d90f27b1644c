"""Decisions as events: CloudEvents of ``service.contract.events``, each with a body under 20 kB."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from monitoring.judging.decision import Decision
from monitoring.windows.log import WindowRows
from service.contract.bundle import Bundle, Manifest
from service.contract.events import (
    DriftData,
    Event,
    EventType,
    ModelData,
    ModelRef,
    RetrainData,
    RetrainFailedData,
    Window,
)
from service.contract.record import new_id

SOURCE = "/plumbline/monitor"
MOST_BYTES = 20_000  # Standard Webhooks: a body is under 20 kB

D = TypeVar("D", DriftData, RetrainData, RetrainFailedData, ModelData)


def drift_data(window: WindowRows, decision: Decision, report: str | None) -> DriftData:
    """What a drift event says about one judged window."""
    return decided(
        ModelRef(model=window.model, version=window.version, digest=window.digest),
        Window(first=window.first, last=window.last, rows=window.table.num_rows, start=window.start, end=window.end),
        decision,
        key=window.key,
        report=report,
    )


def decided(model: ModelRef, window: Window, decision: Decision, *, key: str, report: str | None = None) -> DriftData:
    """A decision in the form of an event's data; ``key`` is the same for the same decision."""
    estimate = decision.estimate
    return DriftData(
        model=model,
        window=window,
        severity=decision.severity,
        reason=decision.reason,
        signals=decision.signals,
        tokens=decision.tokens,
        labels=decision.labels,
        accuracy_reference=decision.accuracy_reference,
        accuracy_estimated=estimate.accuracy if estimate else None,
        accuracy_interval=(estimate.low, estimate.high) if estimate else None,
        accuracy_trusted=estimate.trusted if estimate else None,
        accuracy_doubt=estimate.doubt if estimate else None,
        report=report,
        idempotency_key=key,
    )


def drift_event(kind: EventType, data: DriftData, now: float) -> Event[DriftData]:
    """``plumbline.drift.detected`` or ``plumbline.drift.resolved``."""
    return _event(Event[DriftData], kind, data.model.model, data, now, _shorten_drift)


def retrain_event(data: DriftData, now: float) -> Event[RetrainData]:
    """``plumbline.retrain.requested`` for a window that drifted."""
    names = ", ".join(signal.name for signal in data.signals if signal.drifted)
    request = RetrainData(
        model=data.model, reason=f"drift: {names}; {data.reason}", idempotency_key=data.idempotency_key, drift=data
    )
    return _event(Event[RetrainData], "plumbline.retrain.requested", data.model.model, request, now, _shorten_retrain)


def retrain_failed_event(request: bytes, reason: str, now: float) -> Event[RetrainFailedData]:
    """``plumbline.retrain.failed`` for the JSON of a ``plumbline.retrain.requested`` that came to nothing."""
    asked = Event[RetrainData].model_validate_json(request)
    data = RetrainFailedData(model=asked.data.model, reason=reason[:500], request=asked.id)
    return _event(Event[RetrainFailedData], "plumbline.retrain.failed", asked.subject, data, now, lambda same: same)


def model_event(kind: EventType, bundle: Bundle, before: ModelRef | None, now: float) -> Event[ModelData]:
    """``plumbline.model.published`` or ``plumbline.model.rejected``, with the judgement if there was one."""
    manifest: Manifest = bundle.manifest
    challenge = manifest.challenge
    champion = before
    if challenge is not None:
        champion = ModelRef(model=manifest.name, version=challenge.champion.version, digest=challenge.champion.digest)
    data = ModelData(
        model=ModelRef(model=manifest.name, version=manifest.version, digest=bundle.digest),
        champion=champion,
        reasons=challenge.reasons if challenge else (),
        figures=challenge.figures if challenge else {},
    )
    return _event(Event[ModelData], kind, manifest.name, data, now, _shorten_model)


def _event(
    cls: type[Event[D]], kind: EventType, subject: str, data: D, now: float, shorten: Callable[[D], D]
) -> Event[D]:
    """Build the event, its data shortened step by step until the body is small enough."""
    identity = new_id()
    while True:
        event = cls(
            id=identity,
            source=SOURCE,
            type=kind,
            time=datetime.fromtimestamp(now, UTC),
            subject=subject,
            data=data,
        )
        if len(event.to_json()) < MOST_BYTES:
            return event
        shorter = shorten(data)
        if shorter == data:
            return event
        data = shorter


def _shorten_drift(data: DriftData) -> DriftData:
    """Half the lists, long words cut."""
    update: dict[str, Any] = {
        name: tuple(row.model_copy(update={"value": row.value[:80]}) for row in rows[: len(rows) // 2])
        for name, rows in (("tokens", data.tokens), ("labels", data.labels))
    }
    update["signals"] = tuple(
        signal.model_copy(update={"direction": signal.direction[:200]}) for signal in data.signals
    )
    return data.model_copy(update=update)


def _shorten_retrain(data: RetrainData) -> RetrainData:
    if data.drift is None:
        return data
    shorter = _shorten_drift(data.drift)
    return data.model_copy(update={"drift": None if shorter == data.drift else shorter})


def _shorten_model(data: ModelData) -> ModelData:
    keep = list(data.figures)[: len(data.figures) // 2]
    return data.model_copy(
        update={
            "figures": {name: data.figures[name] for name in keep},
            "reasons": tuple(reason[:500] for reason in data.reasons[:10]),
        }
    )
