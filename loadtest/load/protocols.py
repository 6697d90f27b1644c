"""What is asked, protocol by protocol: each is one object in ``PROTOCOLS``.

A protocol makes the bytes of requests once, before anything is sent, so that the generator only sends bytes. One more
is a class with ``name``, ``meaning``, ``path`` and ``request``, and its line in the list.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol as Interface
from urllib.parse import quote

import orjson

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Request:
    """The body of a POST, with the headers that it needs."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON))


@dataclass(frozen=True)
class Asked:
    """What must be known of the server: the model's name and that of its input; for protocols that name them."""

    model: str = ""
    input: str = "text"


class Protocol(Interface):
    name: str
    meaning: str
    names_model: bool  # whether the path holds the model's name, so that it must be known

    def path(self, asked: Asked) -> str: ...

    def request(self, texts: Sequence[str], asked: Asked) -> Request: ...


class Predict:
    name, meaning, names_model = "predict", 'POST /predict {"inputs": …}', False

    def path(self, asked: Asked) -> str:
        return f"/models/{quote(asked.model, safe='')}/predict" if asked.model else "/predict"

    def request(self, texts: Sequence[str], asked: Asked) -> Request:
        return Request(orjson.dumps({"inputs": texts[0] if len(texts) == 1 else list(texts)}))


class Tei:
    """As clients of Text Embeddings Inference ask: a batch is a list of lists."""

    name, meaning, names_model = "tei", "POST /predict in the shape of Text Embeddings Inference", False

    def path(self, asked: Asked) -> str:
        return "/predict"

    def request(self, texts: Sequence[str], asked: Asked) -> Request:
        inputs = texts[0] if len(texts) == 1 else [[text] for text in texts]
        return Request(orjson.dumps({"inputs": inputs, "truncate": True, "raw_scores": False}))


class _Infer:
    names_model = True

    def path(self, asked: Asked) -> str:
        return f"/v2/models/{quote(asked.model, safe='')}/infer"


class OipJson(_Infer):
    name, meaning = "oip", "Open Inference Protocol, POST /v2/models/NAME/infer, tensors as JSON"

    def request(self, texts: Sequence[str], asked: Asked) -> Request:
        tensor = {"name": asked.input, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
        return Request(orjson.dumps({"inputs": [tensor]}))


class OipBinary(_Infer):
    name, meaning = "oip-binary", "the same with Triton's binary tensors, as tritonclient asks"

    def request(self, texts: Sequence[str], asked: Asked) -> Request:
        encoded = [text.encode() for text in texts]
        data = b"".join(struct.pack("<I", len(one)) + one for one in encoded)
        tensor = {
            "name": asked.input,
            "shape": [len(texts)],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(data)},
        }
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
        return Request(head + data, headers)


class Embed:
    name, meaning, names_model = "embed", "POST /embed of Text Embeddings Inference", False

    def path(self, asked: Asked) -> str:
        return f"/models/{quote(asked.model, safe='')}/embed" if asked.model else "/embed"

    def request(self, texts: Sequence[str], asked: Asked) -> Request:
        return Request(orjson.dumps({"inputs": texts[0] if len(texts) == 1 else list(texts)}))


class OpenAI:
    name, meaning, names_model = "openai", "POST /v1/embeddings as OpenAI's clients do, vectors in base64", False

    def path(self, asked: Asked) -> str:
        return "/v1/embeddings"

    def request(self, texts: Sequence[str], asked: Asked) -> Request:
        body = {"input": list(texts), "encoding_format": "base64"} | ({"model": asked.model} if asked.model else {})
        return Request(orjson.dumps(body))


PROTOCOLS: tuple[Protocol, ...] = (Predict(), Tei(), OipJson(), OipBinary(), Embed(), OpenAI())
BY_NAME: dict[str, Protocol] = {one.name: one for one in PROTOCOLS}
