"""Traces: one for each request, under the caller's, with the work on it inside."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from service.contract.errors import SettingsError
from service.errors import Overloaded
from service.http.app import create_app
from service.http.server import serve
from service.http.tracing import Tracing
from service.models.loaded import LoadedModel
from service.settings import ServiceSettings
from tests.processes import free_port, plumbline, running, until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Traced = tuple[TestClient, Callable[[], dict[str, ReadableSpan]]]


@pytest.fixture
def traced(repo: Path) -> Iterator[Traced]:
    """The app, and the spans since the last call, by name."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = ServiceSettings(repo=repo, threads=1)

    def spans() -> dict[str, ReadableSpan]:
        found = {span.name: span for span in exporter.get_finished_spans()}
        exporter.clear()
        return found

    app = create_app(settings, tracing=Tracing(provider))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client, spans


def test_a_request_has_a_span_with_its_work_inside_and_in_order(traced: Traced) -> None:
    client, spans = traced
    client.post("/predict", json={"inputs": ["good", "bad"]}, headers={"x-request-id": "mine"})
    found = spans()
    assert set(found) == {"POST /predict", "tokenize", "queue", "inference"}
    request, tokenize, queue, inference = (found[n] for n in ("POST /predict", "tokenize", "queue", "inference"))
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "url.path": "/predict",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "plumbline.request_id": "mine",
        "plumbline.model": "reviews",
        "plumbline.model_version": "1",
        "plumbline.texts": 2,
    }
    assert request.kind == SpanKind.SERVER
    assert request.parent is None
    for span in (tokenize, queue, inference):
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.context.trace_id == request.context.trace_id
    assert tokenize.end_time == queue.start_time
    assert queue.end_time == inference.start_time
    assert request.start_time <= tokenize.start_time < inference.end_time <= request.end_time  # type: ignore[operator]


def test_the_open_inference_protocol_is_traced_by_its_route(traced: Traced) -> None:
    client, spans = traced
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}]}
    client.post("/v2/models/reviews/infer", json=body)
    assert set(spans()) == {"POST /v2/models/{name}/infer", "tokenize", "queue", "inference"}


def test_what_is_refused_unread_is_traced_by_its_route_too(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LoadedModel) -> None:
        raise Overloaded("full", retry_after=1)

    client, spans = traced
    monkeypatch.setattr(LoadedModel, "check_room", full)
    assert client.post("/v2/models/reviews/infer", json={}).status_code == 429
    assert set(spans()) == {"POST /v2/models/{name}/infer"}


def test_the_callers_trace_goes_on(traced: Traced) -> None:
    client, spans = traced
    client.post("/predict", json={"inputs": "good"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    for span in (found := spans()).values():
        assert f"{span.context.trace_id:032x}" == TRACE
    parent = found["POST /predict"].parent
    assert parent is not None
    assert f"{parent.span_id:016x}" == PARENT


def test_what_the_caller_does_not_sample_is_not_traced(traced: Traced) -> None:
    client, spans = traced
    client.post("/predict", json={"inputs": "good"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert spans() == {}


def test_requests_at_once_keep_their_spans_apart(traced: Traced) -> None:
    client, _ = traced
    threads = [
        threading.Thread(
            target=client.post,
            args=("/predict",),
            kwargs={"json": {"inputs": "good"}, "headers": {"traceparent": f"00-{number:032x}-{PARENT}-01"}},
        )
        for number in range(1, 9)
    ]
    provider: TracerProvider = client.app.tracing._provider  # type: ignore[attr-defined]
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_trace: dict[int, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        by_trace.setdefault(span.context.trace_id, []).append(span)
    assert set(by_trace) == set(range(1, 9))
    for spans in by_trace.values():
        (request,) = (span for span in spans if span.name == "POST /predict")
        inner = [span for span in spans if span is not request]
        assert sorted(span.name for span in inner) == ["inference", "queue", "tokenize"]
        assert all(span.parent is not None and span.parent.span_id == request.context.span_id for span in inner)


def test_errors_are_told_and_probes_are_not(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    client, spans = traced
    client.post("/predict", content=b"{")
    client.get("/nowhere")
    found = spans()
    assert {name: (span.attributes or {})["http.response.status_code"] for name, span in found.items()} == {
        "POST /predict": 400,
        "GET": 404,
    }
    assert all(span.status.status_code == StatusCode.UNSET for span in found.values())

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(client.app.state.predictor, "predict", fail)  # type: ignore[attr-defined]
    assert client.post("/predict", json={"inputs": "good"}).status_code == 500
    assert spans()["POST /predict"].status.status_code == StatusCode.ERROR
    for path in ("/livez", "/readyz", "/startupz", "/metrics", "/v2/health/live", "/v2/health/ready"):
        client.get(path)
    assert spans() == {}


def test_without_the_extra_the_start_names_it(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "service.http.tracing")
    with pytest.raises(SettingsError, match=r"-e '\.\[tracing\]'"):
        serve(ServiceSettings(repo=repo, tracing=True))


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP receiver on loopback, and what came."""
    came: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                came.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_spans_reach_a_collector_and_lines_of_the_log_name_their_trace(repo: Path, tmp_path: Path) -> None:
    url, log = f"http://127.0.0.1:{(port := free_port())}", tmp_path / "stderr"
    command = plumbline("serve", "--repo", repo, "--port", str(port), "--threads", "1")
    environment = {"PLUMBLINE_TRACING": "1", "PLUMBLINE_LOG_REQUESTS": "1", "OTEL_SERVICE_NAME": "reviews-service"}
    with collector() as (address, came):
        with running(
            command, ready=f"{url}/readyz", log=log, OTEL_EXPORTER_OTLP_ENDPOINT=address, **environment
        ) as process:
            httpx.post(f"{url}/predict", json={"inputs": "good"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
            process.terminate()
            assert process.wait(30) == 0
        spans = [
            span for one in came for part in one.resource_spans for scope in part.scope_spans for span in scope.spans
        ]
    assert {span.name for span in spans} >= {"POST /predict", "tokenize", "queue", "inference"}
    resource = {one.key: one.value.string_value for one in came[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "reviews-service"
    (line,) = (line for line in log.read_text().splitlines() if "POST /predict 200" in line)
    assert f"trace_id={TRACE}" in line
