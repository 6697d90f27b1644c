"""Every metric of the service, declared once. Seconds and bytes; labels are few and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from service.telemetry.deferred import DeferredWork

_Metric = TypeVar("_Metric", Counter, Histogram)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_SHARES = tuple(step / 20 for step in range(1, 21))


class Metrics:
    """The metrics of one process, on a registry of its own so that several apps can live in one test.

    What is ``deferred`` is counted before the registry is read.
    """

    def __init__(self) -> None:
        self.deferred = DeferredWork()
        self.registry = registry = CollectorRegistry()
        registry.register(_Settled(self.deferred))

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return _remembering(Histogram(name, meaning, ["model", *labels], buckets=buckets, registry=registry))

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return _remembering(Counter(name, meaning, ["model", *labels], registry=registry))

        self.requests = counter("plumbline_requests", "Requests answered.", "route", "code")
        self.request_seconds = histogram(
            "plumbline_request_duration_seconds", "Time to answer a request.", _SECONDS, "route"
        )
        self.queue_seconds = histogram("plumbline_queue_duration_seconds", "Wait of an input for its batch.", _SECONDS)
        self.tokenization_seconds = histogram("plumbline_tokenization_duration_seconds", "Tokenizing.", _SECONDS)
        self.inference_seconds = histogram("plumbline_inference_duration_seconds", "Running one batch.", _SECONDS)
        self.batch_size = histogram("plumbline_batch_size", "Inputs in a batch.", _POWERS)
        self.batch_tokens = histogram("plumbline_batch_tokens", "Real tokens in a batch.", _POWERS)
        self.padding = histogram("plumbline_batch_padding_ratio", "Share of a batch that is padding.", (0.0, *_SHARES))
        self.queue_tokens = Gauge("plumbline_queue_tokens", "Tokens waiting or running.", ["model"], registry=registry)
        self.queue_limit = Gauge(
            "plumbline_queue_tokens_limit", "Tokens from which requests are refused.", ["model"], registry=registry
        )
        self.rejected = counter("plumbline_rejected", "Requests refused.", "reason")
        self.predictions = counter("plumbline_predictions", "Answered inputs by label.", "label")
        self.confidence = histogram("plumbline_confidence", "Confidence of predictions.", _SHARES)
        self.input_tokens = histogram("plumbline_input_tokens", "Tokens of an input.", _POWERS)
        self.truncated = counter("plumbline_truncated", "Inputs cut to the model's length.")
        self.model_info = Gauge(
            "plumbline_model_info",
            "1 for the live version.",
            ["model", "version", "digest", "precision", "provider"],
            registry=registry,
        )
        self.device_fallback = Gauge(
            "plumbline_device_fallback", "1 if a model fell back from the GPU to the CPU.", ["model"], registry=registry
        )
        self.unproven = Gauge(
            "plumbline_model_unproven",
            "1 if the live version was published although its eval rows cannot show that it is good enough.",
            ["model"],
            registry=registry,
        )
        self.load_failures = counter("plumbline_model_load_failures", "Versions that could not be made live.")
        self.candidate_share = Gauge(
            "plumbline_candidate_share",
            "Share of the requests that a canary answers, or 1 for a shadow.",
            ["model", "role", "version"],
            registry=registry,
        )
        self.version_seconds = histogram(
            "plumbline_version_duration_seconds", "Time to answer, while there is a canary.", _SECONDS, "version"
        )
        self.version_errors = counter(
            "plumbline_version_errors", "Requests not answered, while there is a canary.", "version", "code"
        )
        self.shadow_inputs = counter("plumbline_shadow_inputs", "Inputs shown to a shadow.", "version", "outcome")
        self.shadow_seconds = histogram(
            "plumbline_shadow_duration_seconds", "Time that a shadow takes for a request.", _SECONDS, "version"
        )
        self.records = counter("plumbline_records", "Records written to the log.")
        self.records_dropped = counter("plumbline_records_dropped", "Records lost on the way to the log.", "reason")
        self.records_left_out = counter("plumbline_records_left_out", "Predictions not in the sample that is logged.")
        self.uploads = counter("plumbline_uploads", "Copies of sealed segments that were attempted.", "result")
        self.uploads_pending = Gauge("plumbline_uploads_pending", "Sealed segments without a copy.", registry=registry)
        self.feedback = counter("plumbline_feedback", "Labels that came back.", "correct")


class _Settled(Collector):
    """Comes before all metrics, for they are collected in the order of their registration."""

    def __init__(self, deferred: DeferredWork) -> None:
        self._deferred = deferred

    def collect(self) -> Iterator[Metric]:
        self._deferred.flush()
        return iter(())


def _remembering(metric: _Metric) -> _Metric:
    """The metric with what it counts by labels at hand: looking that up takes it longer than counting does."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric
