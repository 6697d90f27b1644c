"""OpenTelemetry traces: a span for each request, with tokenizing, waiting and inference in it.

The only file that imports OpenTelemetry (the extra ``tracing``). Where spans go, how many, and the service's name are
said by the standard ``OTEL_…`` variables. A ``traceparent`` header (W3C Trace Context) is honoured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.telemetry.context import route_of

if TYPE_CHECKING:
    from service.models.predictor import Answer


def export_traces() -> Tracing:
    """Traces that are sent by OTLP over HTTP, in the background."""
    named = Resource.create({"service.name": "plumbline", "service.version": __version__})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """Makes the spans of one server."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("plumbline", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def wrap(self, app: ASGIApp, quiet: Callable[[str, str], bool]) -> ASGIApp:
        """The app with a span around each request, but for those whose method and path are ``quiet``."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or quiet(scope["method"], scope["path"]):
                await app(scope, receive, send)
                return
            parent = self._propagator.extract(dict(Headers(scope=scope)))
            attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
            span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER, attributes)

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    span.set_attribute("plumbline.request_id", Headers(raw=message["headers"]).get("x-request-id", ""))
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            with trace.use_span(span, end_on_exit=True):
                try:
                    await app(scope, receive, send_and_note)
                finally:
                    if route := route_of(scope):
                        span.update_name(f"{scope['method']} {route}")
                        span.set_attribute("http.route", route)

        return traced

    def answered(self, answer: Answer) -> None:
        """Spans of the work on a request, which has just been done; of its slowest text, if there are several."""
        request = trace.get_current_span()
        if not request.is_recording():
            return
        manifest = answer.manifest
        request.set_attributes(
            {
                "plumbline.model": manifest.name,
                "plumbline.model_version": manifest.version,
                "plumbline.texts": len(answer.predictions),
            }
        )
        end = time.time_ns()
        for name, seconds in (("inference", answer.inferred), ("queue", answer.queued), ("tokenize", answer.tokenized)):
            start = end - int(seconds * 1e9)
            self._tracer.start_span(name, start_time=start).end(end)
            end = start

    def fields(self) -> dict[str, str]:
        """The trace that the current work belongs to, for the lines of the log."""
        context = trace.get_current_span().get_span_context()
        return {"trace_id": trace.format_trace_id(context.trace_id)} if context.is_valid else {}

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
