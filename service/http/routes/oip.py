"""Open Inference Protocol v2: metadata, readiness, inference, and Triton's configuration and statistics.

Input: one BYTES tensor, whatever its name, of shape [n] or [n, 1]; of a model that reads pairs two, ``text`` and
``text_pair``. Outputs: ``label`` and ``id`` (BYTES [n]), ``score``
(FP32 [n]) and ``probabilities`` (FP32 [n, labels], in the order of the labels in the model's metadata); of a model that
finds entities also ``entities`` (BYTES [n], a JSON list each). A model that gives vectors has ``embedding`` (FP32
[n, dimensions]) and ``id``. Tensors come as JSON or as binary data, see ``tensors``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from service import __version__
from service.contract.bundle import Manifest
from service.contract.inputs import Input, TextPair
from service.errors import Contradiction, InvalidRequest
from service.http.requests import documented, headers_of, most_values, shown, within
from service.http.route_table import PROBE, Policy, policy
from service.http.routes.embed import vectors
from service.http.routes.entities import found_entities
from service.http.routes.tensors import (
    EMBEDDING,
    ENTITIES,
    HEADER_LENGTH,
    OUTPUTS,
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
    parse_request,
    read_texts,
    split_binary,
    write_response,
)
from service.http.state import Server
from service.models.loaded import LoadedModel
from service.models.predictor import Answer, Predictor
from service.tasks import Task
from service.tasks.of_bundle import task_of
from service.telemetry.context import body_of
from service.workers.gathered import gather_metrics

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

EXTENSIONS = [
    *("binary_tensor_data", "classification", "model_configuration"),
    *("model_repository", "model_repository(unload)", "statistics"),
]

_INFER = documented(InferRequest)  # read by hand, for the binary data behind the JSON

_LONGEST_TIMEOUT = 86_400_000_000  # microseconds
_PAIR = ("text", "text_pair")
_EVERY = {*OUTPUTS, ENTITIES, EMBEDDING}


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


@router.get("")
async def server_metadata() -> dict[str, Any]:
    return {"name": "plumbline", "version": __version__, "extensions": EXTENSIONS}


@router.get("/health/live", tags=["operations"])
@policy(PROBE)
async def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/health/ready", tags=["operations"])
@policy(PROBE)
async def ready(server: Server) -> dict[str, bool]:
    await server.check_ready()
    return {"ready": True}


@router.get("/models/stats")
async def all_statistics(server: Server) -> dict[str, Any]:
    """Of every model; stands before the route that would take `stats` for a name."""
    counted, predictor = await gather_metrics(server.metrics, server.fleet), server.predictor
    return {"model_stats": [_statistics(counted, live.manifest, predictor) for live in predictor.models.values()]}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(name: str, server: Server, version: str | None = None) -> ModelMetadata:
    manifest = server.predictor.served(name, version).manifest
    return ModelMetadata(
        name=name,
        versions=server.predictor.versions(name),
        platform="onnxruntime_onnx",
        inputs=[TensorMetadata(name=one, datatype="BYTES", shape=[-1]) for one in _input_names(manifest)],
        outputs=_described_outputs(manifest),
        parameters={"labels": list(manifest.labels), "task": manifest.task, "max_length": manifest.max_length},
    )


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def model_config(name: str, server: Server, version: str | None = None) -> dict[str, Any]:
    """What Triton's clients expect to know of a model's configuration."""
    manifest = server.predictor.served(name, version).manifest
    types = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 0,  # the batch axis is part of the declared shapes, and batching is the server's own
        "version_policy": {"specific": {"versions": [int(one) for one in server.predictor.versions(name)]}},
        "input": [{"name": one, "data_type": "TYPE_STRING", "dims": [-1]} for one in _input_names(manifest)],
        "output": [
            {"name": one.name, "data_type": types[one.datatype], "dims": one.shape}
            for one in _described_outputs(manifest)
        ],
    }


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def statistics(name: str, server: Server, version: str | None = None) -> dict[str, Any]:
    """Counts and nanoseconds since the process started, over all versions of the name."""
    manifest = server.predictor.served(name, version).manifest
    counted = await gather_metrics(server.metrics, server.fleet)
    return {"model_stats": [_statistics(counted, manifest, server.predictor)]}


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(name: str, server: Server, version: str | None = None) -> dict[str, Any]:
    server.predictor.served(name, version)
    return {"name": name, "ready": True}


@router.post("/models/{name}/infer", response_model=InferResponse, openapi_extra=_INFER)
@router.post("/models/{name}/versions/{version}/infer", response_model=InferResponse, openapi_extra=_INFER)
@policy(Policy(predicts=True))
async def infer(name: str, request: Request, server: Server, version: str | None = None) -> Response:
    model = server.predictor.who_answers(name, version)
    body, binary = parse_request(body_of(request.scope), request.headers.get(HEADER_LENGTH), most_values(request))
    wanted = _wanted(body, model)
    texts = _inputs(body, binary, most_values(request), paired=model.manifest.paired)
    answer = await server.predictor.predict(model, texts, _timeout(body, request))
    content, head = write_response(
        InferResponse(
            model_name=name, model_version=answer.manifest.version, id=body.id, outputs=_outputs(answer, body, wanted)
        ),
        body,
    )
    response = Response(content, media_type="application/json" if head is None else "application/octet-stream")
    response.raw_headers += headers_of(answer)
    if head is not None:
        response.headers[HEADER_LENGTH] = str(head)
    return response


def _input_names(manifest: Manifest) -> Sequence[str]:
    return _PAIR if manifest.paired else _PAIR[:1]


def _inputs(body: InferRequest, binary: bytes, most: int, *, paired: bool) -> Sequence[Input]:
    """The texts of the one tensor, or the pairs of the two."""
    given = body.inputs
    if not paired:
        if len(given) != 1:
            raise Contradiction(f"there are {len(given)} inputs; give exactly one, with the texts.")
        return read_texts(given[0], binary, most)
    by_name = {one.name: one for one in given}
    if len(given) != len(_PAIR) or by_name.keys() != set(_PAIR):
        raise Contradiction("this model reads pairs of texts; give exactly two inputs, text and text_pair.")
    raw = dict(zip((one.name for one in given), split_binary(given, binary), strict=True))
    first, second = (read_texts(by_name[name], raw[name], most) for name in _PAIR)
    if len(first) != len(second):
        raise InvalidRequest(f"text has {len(first)} elements and text_pair {len(second)}; each pair needs both.")
    return list(map(TextPair, first, second))


def _described_outputs(manifest: Manifest) -> list[TensorMetadata]:
    task = task_of(manifest)
    shapes: dict[str, tuple[str, list[int]]] = {
        "label": ("BYTES", [-1]),
        "score": ("FP32", [-1]),
        "probabilities": ("FP32", [-1, len(manifest.labels)]),
        "id": ("BYTES", [-1]),
        ENTITIES: ("BYTES", [-1]),
        EMBEDDING: ("FP32", [-1, int(task.settings.get("dimensions", 0))]),
    }
    return [TensorMetadata(name=name, datatype=shapes[name][0], shape=shapes[name][1]) for name in _names(task)]


def _names(task: Task) -> list[str]:
    """The outputs of a model with this task."""
    if task.vector:
        return [EMBEDDING, "id"]
    return [*OUTPUTS, ENTITIES] if task.per_token else OUTPUTS


def _wanted(body: InferRequest, model: LoadedModel) -> list[str]:
    """The names of the outputs to give: the requested ones, or all."""
    names = _names(model.task)
    wanted = list(dict.fromkeys(one.name for one in body.outputs)) or names
    if other := [name for name in wanted if name in _EVERY and name not in names]:
        described = model.task.described(model.manifest.labels)
        raise Contradiction(
            f"{model.manifest.name!r} is a {described} and has no output {other[0]!r}; there are {', '.join(names)}."
        )
    for requested in body.outputs:
        _classes(requested)  # refused before the work, not after it
    for name in wanted:
        if name not in names:
            raise InvalidRequest(f"there is no output {shown(name)!r}; there are {', '.join(names)}.")
    return wanted


def _outputs(answer: Answer, body: InferRequest, wanted: list[str]) -> list[OutputTensor]:
    rows = answer.predictions
    count = len(rows)
    labels = answer.manifest.labels
    outputs: dict[str, tuple[str, list[int], list[Any]]] = {
        "label": ("BYTES", [count], [row.label for row in rows]),
        "score": ("FP32", [count], [row.score for row in rows]),
        "probabilities": ("FP32", [count, len(labels)], [p for row in rows for p in row.probs]),
        "id": ("BYTES", [count], [row.id for row in rows]),
    }
    if EMBEDDING in wanted:
        found = vectors(answer, unit=bool(answer.task.settings["normalized"]))
        outputs[EMBEDDING] = ("FP32", list(found.shape), found.ravel().tolist())
    if ENTITIES in wanted:
        outputs[ENTITIES] = ("BYTES", [count], [orjson.dumps(one).decode() for one in found_entities(answer)])
    for requested in body.outputs:
        if (most := _classes(requested)) is not None:
            ranked = [classes(row.probs, labels, most) for row in rows]
            outputs[requested.name] = ("BYTES", [count, len(ranked[0])], [one for row in ranked for one in row])
    return [
        OutputTensor(name=name, datatype=datatype, shape=shape, data=data)
        for name, (datatype, shape, data) in ((name, outputs[name]) for name in wanted)
    ]


def _classes(requested: RequestedOutput) -> int | None:
    """How many classes are asked for by Triton's classification extension, None if none are."""
    given = requested.parameters.get("classification")
    if given is None or given == 0:
        return None
    if requested.name != "probabilities":
        raise InvalidRequest(f"classification is of the output 'probabilities', not {shown(requested.name)!r}.")
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise InvalidRequest("parameter 'classification' must be a whole number of classes, 0 for none.")
    return given


def classes(probs: Sequence[float], labels: Sequence[str], most: int) -> list[str]:
    """The most probable classes as Triton writes them: ``probability:index:label``."""
    ranked = sorted(range(len(labels)), key=probs.__getitem__, reverse=True)[:most]
    return [f"{probs[place]:f}:{place}:{labels[place]}" for place in ranked]


def _timeout(body: InferRequest, request: Request) -> float | None:
    """Seconds, by the protocol's parameter ``timeout`` in microseconds or the header."""
    given = body.parameters.get("timeout")
    if given is None or (given == 0 and not isinstance(given, bool)):  # Triton's default for no deadline
        return within(request)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given <= _LONGEST_TIMEOUT:
        raise InvalidRequest("parameter 'timeout' must be a whole number of microseconds, 0 for none, at most a day.")
    return given / 1_000_000


def _statistics(counted: CollectorRegistry, manifest: Manifest, predictor: Predictor) -> dict[str, Any]:
    """All fields of Triton's statistics extension, which its clients read without asking; what is not counted is 0."""

    def value(sample: str) -> float:
        return counted.get_sample_value(sample, {"model": manifest.name}) or 0.0

    def took(histogram: str) -> dict[str, int]:
        return {"count": int(value(f"{histogram}_count")), "ns": int(1e9 * value(f"{histogram}_sum"))}

    parts = {
        "queue": took("plumbline_queue_duration_seconds"),
        "compute_input": took("plumbline_tokenization_duration_seconds"),
        "compute_infer": took("plumbline_inference_duration_seconds"),
    }
    nothing = {"count": 0, "ns": 0}
    answered = int(value("plumbline_input_tokens_count"))
    failed = sum(
        sample.value
        for family in counted.collect()
        if family.name == "plumbline_requests"
        for sample in family.samples
        if sample.name.endswith("_total")
        and sample.labels["model"] == manifest.name
        and sample.labels["code"].startswith("5")
    )
    return {
        "name": manifest.name,
        "version": manifest.version,
        "last_inference": predictor.last_answered(manifest.name),
        "inference_count": answered,
        "execution_count": int(value("plumbline_batch_size_count")),
        "inference_stats": {
            "success": {"count": answered, "ns": sum(part["ns"] for part in parts.values())},
            "fail": {"count": int(failed), "ns": 0},
            **parts,
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
