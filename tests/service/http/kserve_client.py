"""KServe's client against a server, run by an interpreter that has ``kserve``; prints what it got as JSON.

Its requirements exclude ours (cloudevents, pandas, protobuf), so it cannot be installed beside the service.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request(texts: list[str], *, binary: bool) -> InferRequest:
    tensor = InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([one.encode() for one in texts], dtype=np.object_), binary_data=binary)
    outputs = [RequestedOutput(name, parameters={"binary_data": binary}) for name in ("label", "probabilities")]
    return InferRequest("reviews", [tensor], request_id="mine", request_outputs=outputs)


async def main(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    got: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "reviews"),
        "other": await client.is_model_ready(url, "nothing"),
    }
    texts = ["a great film", "awful 😀", ""]
    for name, binary in (("json", False), ("binary", True)):
        answer = await client.infer(url, request(texts, binary=binary), model_name="reviews")
        outputs = {one.name: one.as_numpy() for one in answer.outputs}
        got[name] = {
            "model": answer.model_name,
            "id": answer.id,
            "labels": [one.decode() if isinstance(one, bytes) else str(one) for one in outputs["label"]],
            "probabilities": outputs["probabilities"].tolist(),
        }
    plain = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["great"]}]}
    got["plain"] = (await client.infer(url, plain, model_name="reviews")).outputs[0].data
    try:
        await client.infer(url, {"inputs": []}, model_name="reviews")
    except Exception as error:  # of httpx
        got["error"] = str(error)
    await client.close()
    return got


print(json.dumps(asyncio.run(main(sys.argv[1]))))
