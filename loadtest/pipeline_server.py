"""The server that most people write first: FastAPI around a transformers pipeline. A peer to compare with.

python -m loadtest.pipeline_server CHECKPOINT PORT
"""

from __future__ import annotations

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class PredictRequest(BaseModel):
    inputs: str


def main(checkpoint: str, port: int) -> None:
    torch.set_num_threads(1)
    classify = pipeline("text-classification", model=checkpoint, device="cpu", truncation=True)
    classify("a first run")
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    def predict(request: PredictRequest) -> list[dict[str, object]]:
        return list(classify(request.inputs))

    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
