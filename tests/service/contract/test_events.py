"""Events are CloudEvents 1.0 in structured JSON and survive the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from service.contract.events import (
    CONTENT_TYPE,
    Data,
    DriftData,
    Event,
    EventType,
    ModelData,
    ModelRef,
    Moved,
    RetrainData,
    Signal,
    Window,
)

MODEL = ModelRef(model="reviews", version="3", digest="ab" * 32)
START, END = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 4, 0, tzinfo=UTC)
DRIFT = DriftData(
    model=MODEL,
    window=Window(first="0", last="1", rows=200, start=START, end=END),
    severity="warning",
    signals=(
        Signal(
            name="embedding",
            method="energy distance, permutations",
            statistic=0.5,
            p_value=0.001,
            alpha=0.01,
            effect=0.4,
            effect_threshold=0.1,
            direction="more of: שלום 😀",
            drifted=True,
        ),
    ),
    tokens=(Moved(value="sensor", reference_share=0.0, window_share=0.25),),
    accuracy_reference=0.95,
    accuracy_estimated=0.6,
    idempotency_key="ab:0-1",
)
RETRAIN = RetrainData(model=MODEL, reason="drift", idempotency_key="ab:0-1", drift=DRIFT)
PUBLISHED = ModelData(model=MODEL, champion=None, reasons=("better on new rows",), figures={"new": 0.9, "rows": 500})


def event(kind: EventType, data: Data) -> Event[Data]:
    return Event[Any](id="1", source="plumbline/monitor", type=kind, time=END, subject="reviews", data=data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("plumbline.drift.detected", DRIFT),
        ("plumbline.drift.resolved", DRIFT),
        ("plumbline.retrain.requested", RETRAIN),
        ("plumbline.model.published", PUBLISHED),
        ("plumbline.model.rejected", PUBLISHED.model_copy(update={"champion": MODEL})),
    ],
)
def test_an_event_survives_json(kind: EventType, data: DriftData | RetrainData | ModelData) -> None:
    typed: Any = {DriftData: Event[DriftData], RetrainData: Event[RetrainData], ModelData: Event[ModelData]}[type(data)]
    sent = typed(id="1", source="monitor", type=kind, time=END, subject="reviews", data=data)
    assert typed.model_validate_json(sent.to_json()) == sent


def test_it_has_the_attributes_of_cloudevents() -> None:
    body = orjson.loads(event("plumbline.drift.detected", DRIFT).to_json())
    assert body["specversion"] == "1.0"
    assert {"id", "source", "type", "time", "subject", "datacontenttype", "data"} < set(body)
    assert datetime.fromisoformat(body["time"]) == END
    assert body["datacontenttype"] == "application/json"
    assert CONTENT_TYPE == "application/cloudevents+json"


def test_a_window_says_from_and_to() -> None:
    for body in (
        orjson.loads(event("plumbline.drift.detected", DRIFT).to_json())["data"]["window"],
        orjson.loads(event("plumbline.retrain.requested", RETRAIN).to_json())["data"]["drift"]["window"],
        DRIFT.model_dump(mode="json")["window"],
    ):
        assert set(body) == {"first", "last", "rows", "from", "to"}
        assert datetime.fromisoformat(body["from"]) == START
    assert Window.model_validate({"first": "0", "last": "1", "rows": 200, "from": START, "to": END}) == DRIFT.window


def test_an_unknown_type_is_refused() -> None:
    body = orjson.loads(event("plumbline.drift.detected", DRIFT).to_json())
    with pytest.raises(ValidationError, match="type"):
        Event[DriftData].model_validate_json(orjson.dumps(body | {"type": "plumbline.drift.imagined"}))


@pytest.mark.parametrize("change", [{"specversion": "0.3"}, {"colour": "blue"}, {"data": {}}, {"time": "soon"}])
def test_a_malformed_event_is_refused(change: dict[str, object]) -> None:
    body = orjson.loads(event("plumbline.drift.detected", DRIFT).to_json())
    with pytest.raises(ValidationError):
        Event[DriftData].model_validate_json(orjson.dumps(body | change))


def test_the_data_of_another_type_is_refused() -> None:
    with pytest.raises(ValidationError):
        Event[DriftData].model_validate_json(event("plumbline.retrain.requested", RETRAIN).to_json())


@pytest.mark.parametrize("change", [{"rows": 0}, {"colour": "blue"}])
def test_a_malformed_window_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Window.model_validate(DRIFT.window.model_dump() | change)


def test_not_a_number_is_no_statistic() -> None:
    with pytest.raises(ValidationError):
        Signal.model_validate(DRIFT.signals[0].model_dump() | {"statistic": float("nan")})
