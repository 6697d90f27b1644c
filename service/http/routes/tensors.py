"""Tensors of the Open Inference Protocol, as JSON and as Triton's binary data.

With binary data a body is a JSON header of ``Inference-Header-Content-Length`` bytes, then the raw data of each tensor
that declares a ``binary_data_size``, in order. A BYTES element is a 4-byte little-endian length and that many bytes.
With a header of 0 bytes the whole body is one text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field

from service.errors import InvalidRequest, Malformed
from service.http.requests import AS_DESCRIBED, parse, shown

HEADER_LENGTH = "inference-header-content-length"
_MOST_DIGITS = 18

DESCRIBED_ITEMS = 64  # sizes of a tensor that are spelled out; readers of descriptions give up at some hundreds
OUTPUTS = ["label", "score", "probabilities", "id"]
EMBEDDING = "embedding"  # in place of them of a model that gives vectors
ENTITIES = "entities"  # beside them of a model that finds such: a JSON list for each text

Parameters = dict[str, Any]


def _describe_tensor(schema: dict[str, Any]) -> None:
    """A shape has to fit its data, which a JSON Schema can only say size by size."""
    cell = {"type": "string"}
    row = {"type": "array", "items": cell, "minItems": 1, "maxItems": 1}
    fields = schema["properties"]
    fields["datatype"] = {"const": "BYTES"}
    fields["data"] = {
        "type": "array",
        "items": {"anyOf": [cell, row]},
        "minItems": 1,
        "description": f"n texts; those of more than {DESCRIBED_ITEMS} are taken, too, and not spelled out here",
    }
    fields["shape"] = {"type": "array", "items": {"type": "integer", "minimum": 1}, "description": "[n] or [n, 1]"}
    schema["required"] = ["name", "shape", "datatype", "data"]
    schema["anyOf"] = [
        {"properties": {"shape": {"enum": [[size], [size, 1]]}, "data": {"minItems": size, "maxItems": size}}}
        for size in range(1, DESCRIBED_ITEMS + 1)
    ]


class InputTensor(BaseModel):
    model_config = ConfigDict(json_schema_extra=_describe_tensor)

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0), AS_DESCRIBED]], FailFast(), Field(max_length=8)]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    name: str = Field(json_schema_extra={"enum": [*OUTPUTS, ENTITIES, EMBEDDING]})
    parameters: Parameters = {}


class InferRequest(BaseModel):
    id: str | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[InputTensor], FailFast()] = Field(
        min_length=1, max_length=8, json_schema_extra={"maxItems": 2}
    )
    outputs: Annotated[list[RequestedOutput], FailFast()] = Field(default=[], max_length=8)

    def wants_binary(self, output: str) -> bool:
        """Whether an output is to come as binary data: by its own parameter, else by the request's."""
        for requested in self.outputs:
            if requested.name == output and "binary_data" in requested.parameters:
                return bool(requested.parameters["binary_data"])
        return bool(self.parameters.get("binary_data_output", False))


class OutputTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def parse_request(body: bytes, header_length: str | None, most: int) -> tuple[InferRequest, bytes]:
    """The JSON part of a body, and the binary data behind it.

    :param most: values that the JSON may hold.
    :raises Malformed: if the JSON, or its declared length, is broken. :raises InvalidRequest: naming the field.
    """
    length = len(body)
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= _MOST_DIGITS
        if not digits or int(header_length) > len(body):
            raise Malformed(f"{HEADER_LENGTH} is {header_length[:20]!r}; the body has {len(body)} bytes.")
        length = int(header_length)
    if header_length is not None and not length:
        return InferRequest(inputs=[_whole(body)]), b""
    return parse(InferRequest, body[:length], most), body[length:]


def _whole(body: bytes) -> InputTensor:
    try:
        return InputTensor(name="text", shape=[1], datatype="BYTES", data=[body.decode()])
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not UTF-8.") from error


def read_texts(tensor: InputTensor, binary: bytes, most: int) -> list[str]:
    """The elements of a BYTES tensor of shape [n] or [n, 1], of which there may be so many.

    :raises InvalidRequest: saying what does not fit.
    """
    name = shown(tensor.name)
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"input {name!r} has datatype {shown(tensor.datatype)}; it must be BYTES.")
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if size != len(binary):
            raise InvalidRequest(f"binary_data_size of {name!r} is {shown(size)!r}; {len(binary)} bytes of data came.")
        texts = _read_bytes(name, binary, most)
    elif tensor.data is None:
        raise InvalidRequest(f"input {name!r} has neither data nor a binary_data_size.")
    else:
        texts = [cell for row in tensor.data for cell in (row if isinstance(row, list) else [row])]
        if not all(isinstance(cell, str) for cell in texts):
            raise InvalidRequest(f"input {name!r} must hold strings only.")
    shape = f"[{', '.join(shown(axis, 20) for axis in tensor.shape)}]"
    if tensor.shape not in ([len(texts)], [len(texts), 1]):
        raise InvalidRequest(f"input {name!r} has shape {shape} and {len(texts)} elements; it must be [n] or [n, 1].")
    return texts


def split_binary(tensors: Sequence[InputTensor], binary: bytes) -> list[bytes]:
    """The part of the binary data that each tensor declares, in their order; the last one gets what is left."""
    found: list[bytes] = []
    for tensor in tensors:
        size = tensor.parameters.get("binary_data_size")
        size = size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else 0
        found.append(binary[:size])
        binary = binary[size:]
    if binary and found:
        found[-1] += binary  # too much, which its reader refuses
    return found


def _read_bytes(name: str, data: bytes, most: int) -> list[str]:
    texts: list[str] = []
    place = 0
    while place < len(data):
        if len(texts) == most:
            raise InvalidRequest(f"the binary data of {name!r} holds more than {most} elements. Split them.")
        if place + 4 > len(data):
            raise InvalidRequest(f"the binary data of {name!r} ends inside a length.")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4
        if place + length > len(data):
            raise InvalidRequest(f"the binary data of {name!r} ends inside element {len(texts)}.")
        try:
            texts.append(data[place : place + length].decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"element {len(texts)} of {name!r} is not UTF-8.") from error
        place += length
    return texts


def as_binary(datatype: str, data: Sequence[Any]) -> bytes:
    """The raw bytes of an output tensor of datatype BYTES or FP32."""
    if datatype == "FP32":
        return np.asarray(data, dtype="<f4").tobytes()
    encoded = [str(element).encode() for element in data]
    return b"".join(struct.pack("<I", len(element)) + element for element in encoded)


def write_response(answer: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON part if binary data follows."""
    tail = b""
    tensors = []
    for tensor in answer.outputs:
        if request.wants_binary(tensor.name):
            raw = as_binary(tensor.datatype, tensor.data or [])
            tail += raw
            tensor = tensor.model_copy(update={"data": None, "parameters": {"binary_data_size": len(raw)}})
        tensors.append(tensor)
    head = answer.model_copy(update={"outputs": tensors}).model_dump_json(exclude_none=True).encode()
    binary = any(tensor.data is None for tensor in tensors)
    return head + tail, len(head) if binary else None
