"""Open Inference Protocol v2 over JSON: server and model metadata, readiness, inference.

Input: one BYTES tensor ``text`` of shape [n] or [n, 1]. Outputs: ``label`` and ``id`` (BYTES [n]), ``score``
(FP32 [n]) and ``probabilities`` (FP32 [n, labels], in the order of the labels in the model's metadata).
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from service import __version__
from service.errors import InvalidRequest
from service.live import LiveModel
from service.predictor import Answer, Predictor
from service.protocols import TimeoutHeader, check_ready, describe, predictor, seconds

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


class InputTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any]


class RequestedOutput(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = []


class OutputTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


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


Models = Annotated[Predictor, Depends(predictor)]


@router.get("")
async def server_metadata() -> dict[str, Any]:
    return {"name": "plumbline", "version": __version__, "extensions": []}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    check_ready(request)
    return {"ready": True}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(name: str, predictor: Models, version: str | None = None) -> ModelMetadata:
    manifest = predictor.model(name, version).manifest
    return ModelMetadata(
        name=name,
        versions=[manifest.version],
        platform="onnxruntime_onnx",
        inputs=[TensorMetadata(name="text", datatype="BYTES", shape=[-1])],
        outputs=[
            TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="score", datatype="FP32", shape=[-1]),
            TensorMetadata(name="probabilities", datatype="FP32", shape=[-1, len(manifest.labels)]),
            TensorMetadata(name="id", datatype="BYTES", shape=[-1]),
        ],
        parameters={"labels": list(manifest.labels), "task": manifest.task, "max_length": manifest.max_length},
    )


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(name: str, predictor: Models, version: str | None = None) -> dict[str, Any]:
    predictor.model(name, version)
    return {"name": name, "ready": True}


@router.post("/models/{name}/infer", response_model_exclude_none=True)
@router.post("/models/{name}/versions/{version}/infer", response_model_exclude_none=True)
async def infer(
    name: str,
    body: InferRequest,
    response: Response,
    predictor: Models,
    version: str | None = None,
    timeout_ms: TimeoutHeader = None,
) -> InferResponse:
    model: LiveModel = predictor.model(name, version)
    answer = await predictor.predict(model, _texts(body), _timeout(body, timeout_ms))
    describe(answer, response)
    return InferResponse(
        model_name=name, model_version=answer.manifest.version, id=body.id, outputs=_outputs(answer, body)
    )


def _timeout(body: InferRequest, timeout_ms: int | None) -> float | None:
    """Seconds, by the protocol's parameter ``timeout`` in microseconds or the header."""
    given = body.parameters.get("timeout")
    if given is None:
        return seconds(timeout_ms)
    if isinstance(given, bool) or not isinstance(given, int) or given <= 0:
        raise InvalidRequest(f"parameter 'timeout' is {given!r}; it must be a whole number of microseconds above 0.")
    return given / 1_000_000


def _texts(body: InferRequest) -> list[str]:
    tensor = body.inputs[0]
    if len(body.inputs) != 1 or tensor.name != "text":
        raise InvalidRequest(f"inputs are {[one.name for one in body.inputs]}; give exactly one, called 'text'.")
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"input 'text' has datatype {tensor.datatype}; it must be BYTES.")
    data = [cell for row in tensor.data for cell in (row if isinstance(row, list) else [row])]
    if tensor.shape not in ([len(data)], [len(data), 1]):
        raise InvalidRequest(
            f"input 'text' has shape {tensor.shape} and {len(data)} elements; it must be [n] or [n, 1]."
        )
    if not all(isinstance(cell, str) for cell in data):
        raise InvalidRequest("input 'text' must hold strings only.")
    return data


def _outputs(answer: Answer, body: InferRequest) -> list[OutputTensor]:
    rows = answer.predictions
    count = len(rows)
    outputs = {
        "label": ("BYTES", [count], [row.label for row in rows]),
        "score": ("FP32", [count], [row.confidence for row in rows]),
        "probabilities": ("FP32", [count, len(answer.manifest.labels)], [p for row in rows for p in row.probs]),
        "id": ("BYTES", [count], [row.id for row in rows]),
    }
    wanted = [one.name for one in body.outputs] or list(outputs)
    for name in wanted:
        if name not in outputs:
            raise InvalidRequest(f"there is no output {name!r}; there are {', '.join(outputs)}.")
    return [
        OutputTensor(name=name, datatype=datatype, shape=shape, data=data)
        for name, (datatype, shape, data) in ((name, outputs[name]) for name in wanted)
    ]
