"""What SageMaker asks of a container: ``/ping``, and ``/invocations`` in the shape of its Hugging Face images."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.context import body_of
from service.protocols import check_all_ready, documented, most_values, parse
from service.protocols.predict import PredictRequest, Scored, classify, respond, scored

router = APIRouter(tags=["SageMaker"])
health = APIRouter(tags=["operations"])  # probes ask for no key


@health.get("/ping", response_class=Response)
async def ping(request: Request) -> Response:
    """As ``/readyz``, without a body."""
    await check_all_ready(request)
    return Response()


@router.post("/invocations", response_model=list[Scored] | list[list[Scored]], openapi_extra=documented(PredictRequest))
async def invocations(request: Request) -> Response:
    """The most probable label of each text in one list; with ``top_k`` a list for each, as a pipeline gives them."""
    body = parse(PredictRequest, body_of(request.scope), most_values(request))
    answer = await classify(body, request)
    rows = scored(answer, body)
    if body.top_k is None:
        return respond([row[0] for row in rows], answer)
    return respond(rows[0] if isinstance(body.inputs, str) else rows, answer)
