"""Zero-shot classification by a model of natural language inference, in the shape of Hugging Face's endpoints.

Yin et al. 2019, "Benchmarking Zero-shot Text Classification": each candidate label becomes a hypothesis, and the model
says whether the text entails it. Scores are as transformers' pipeline computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.contract.bundle import Manifest
from service.contract.inputs import TextPair
from service.errors import Contradiction
from service.http.requests import documented, most_values, parse, within
from service.http.route_table import Policy, policy
from service.http.routes.predict import respond
from service.http.state import Server
from service.tasks.classification import softmax
from service.tasks.task import Floats
from service.telemetry.context import body_of

router = APIRouter(tags=["zero-shot classification"])

_Texts = Annotated[list[str], Field(min_length=1)]
_MOST_LABELS = 1_000
_PLACE = "{}"


class ZeroShotParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    candidate_labels: Annotated[list[str], Field(min_length=1, max_length=_MOST_LABELS)]
    hypothesis_template: str = Field(
        default="This example is {}.", pattern=r"\{\}", description="{} stands for the label"
    )
    multi_label: bool = Field(default=False, strict=True, description="judge each label by itself; several may fit")


class ZeroShotRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: str | _Texts = Field(description="a text, or a list of texts")
    parameters: ZeroShotParameters
    options: dict[str, Any] | None = Field(default=None, description="of Hugging Face's endpoints; nothing here")


@router.post("/zero-shot-classification", openapi_extra=documented(ZeroShotRequest))
@router.post("/models/{name}/zero-shot-classification", openapi_extra=documented(ZeroShotRequest))
@policy(Policy(predicts=True))
async def zero_shot(request: Request, server: Server, name: str | None = None) -> Response:
    """The candidate labels of each text with their scores, the best first; one list for a single text."""
    body = parse(ZeroShotRequest, body_of(request.scope), most_values(request))
    labels, template = list(dict.fromkeys(body.parameters.candidate_labels)), body.parameters.hypothesis_template
    model = server.predictor.who_answers(name)
    entailment, contradiction = _sides(model.manifest)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    pairs = [TextPair(text, template.replace(_PLACE, label)) for text in texts for label in labels]
    answer = await server.predictor.predict(model, pairs, within(request))
    logits = answer.logits().reshape(len(texts), len(labels), -1)
    alone = body.parameters.multi_label or len(labels) == 1
    scores = _each(logits, entailment, contradiction) if alone else softmax(logits[:, :, entailment])
    rows = [_ranked(labels, row) for row in scores.tolist()]
    return respond(rows[0] if isinstance(body.inputs, str) else rows, answer)


def _sides(manifest: Manifest) -> tuple[int, int]:
    """Which of the labels is entailment and which contradiction, as transformers finds them: by how they begin.

    :raises Contradiction: if the model is not one of natural language inference.
    """
    found = [index for index, label in enumerate(manifest.labels) if label.lower().startswith("entail")]
    if not manifest.paired or not found or len(manifest.labels) < 2:
        raise Contradiction(
            f"{manifest.name!r} is no model of natural language inference, which reads pairs of texts and has a label "
            "'entailment'. Ask /predict, or name another model."
        )
    return found[0], -1 if found[0] == 0 else 0


def _each(logits: Floats, entailment: int, contradiction: int) -> Floats:
    """(texts, labels), of (texts, labels, outputs): entailment against contradiction alone."""
    sides = logits[:, :, [contradiction, entailment]]
    return np.asarray(softmax(sides.reshape(-1, 2))[:, 1].reshape(logits.shape[:2]), dtype=np.float32)


def _ranked(labels: Sequence[str], scores: Sequence[float]) -> list[dict[str, object]]:
    ranked = sorted(zip(scores, labels, strict=True), key=lambda one: -one[0])
    return [{"label": label, "score": score} for score, label in ranked]
