"""The events that Plumbline sends: CloudEvents 1.0, structured JSON mode.

The bodies are signed by Standard Webhooks 1.0 when they are delivered; see ``monitoring.delivery.webhook``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

CONTENT_TYPE = "application/cloudevents+json"

EventType = Literal[
    "plumbline.drift.detected",
    "plumbline.drift.resolved",
    "plumbline.retrain.requested",
    "plumbline.retrain.failed",
    "plumbline.model.published",
    "plumbline.model.rejected",
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# Until 0.1 there was one level above a notice; windows and messages of that time are still read.
SeverityName = Annotated[
    Literal["none", "notice", "warning", "critical"],
    BeforeValidator(lambda name: "warning" if name == "alert" else name),
]


class ModelRef(_Model):
    model: str
    version: str
    digest: str


class Window(_Model):
    """A run of answered requests: ids of the first and last record, and their times."""

    first: str
    last: str
    rows: int = Field(ge=1)
    start: datetime = Field(serialization_alias="from", validation_alias="from")
    end: datetime = Field(serialization_alias="to", validation_alias="to")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Signal(_Model):
    """One test of a window against the reference; it counts if p-value and effect both pass their thresholds."""

    name: str
    method: str
    statistic: float
    p_value: float = Field(ge=0, le=1, description="after correction for the number of signals")
    alpha: float
    effect: float = Field(description="effect size, 0 for no difference")
    effect_threshold: float
    direction: str = Field(description="what moved, in words: 'higher', 'lower', 'more of: refund'")
    drifted: bool


class Moved(_Model):
    """A token or label whose share changed."""

    value: str
    reference_share: float
    window_share: float


class DriftData(_Model):
    """``data`` of ``plumbline.drift.detected`` and ``plumbline.drift.resolved``."""

    model: ModelRef
    window: Window
    severity: SeverityName
    reason: str = Field(default="", description="why it is so severe, in words")
    signals: tuple[Signal, ...]
    tokens: tuple[Moved, ...] = ()
    labels: tuple[Moved, ...] = ()
    accuracy_reference: float | None = Field(default=None, description="measured on the reference rows")
    accuracy_estimated: float | None = Field(default=None, description="estimated on the window from confidence")
    accuracy_interval: tuple[float, float] | None = Field(default=None, description="95 % interval of the estimate")
    accuracy_trusted: bool | None = Field(
        default=None, description="whether the estimate can be trusted on this window"
    )
    accuracy_doubt: str | None = Field(default=None, description="why it cannot be, in words")
    report: str | None = Field(default=None, description="URL or path of the HTML report")
    idempotency_key: str = Field(description="digest and window: the same decision never counts twice")


class RetrainData(_Model):
    """``data`` of ``plumbline.retrain.requested``."""

    model: ModelRef
    reason: str
    idempotency_key: str
    drift: DriftData | None = None


class RetrainFailedData(_Model):
    """``data`` of ``plumbline.retrain.failed``: nothing came of a request, and nothing will by itself."""

    model: ModelRef
    reason: str = Field(description="how it ended: an exit code, a timeout, a refusal")
    request: str = Field(description="id of the plumbline.retrain.requested")


class ModelData(_Model):
    """``data`` of ``plumbline.model.published`` and ``plumbline.model.rejected``: the challenger's judgement."""

    model: ModelRef
    champion: ModelRef | None
    reasons: tuple[str, ...]
    figures: dict[str, JsonValue]


Data = TypeVar("Data", DriftData, RetrainData, RetrainFailedData, ModelData)


class Event(_Model, Generic[Data]):
    """A CloudEvent; ``id`` is also the ``webhook-id`` of its delivery."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: EventType
    time: datetime
    subject: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: Data

    def to_json(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()
