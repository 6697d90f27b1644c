"""What SageMaker asks of a container: ``/ping``, and ``/invocations`` in the shape of its Hugging Face images."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.http.requests import documented, most_values, parse
from service.http.route_table import PROBE, Policy, policy
from service.http.routes.predict import One, PredictRequest, Several, classify, respond, shown_answers
from service.http.state import Server
from service.telemetry.context import body_of

router = APIRouter(tags=["SageMaker"])


@router.get("/ping", response_class=Response, tags=["operations"])
@policy(PROBE)
async def ping(server: Server) -> Response:
    """As ``/readyz``, without a body."""
    await server.check_ready()
    return Response()


@router.post("/invocations", response_model=One | Several, openapi_extra=documented(PredictRequest))
@policy(Policy(predicts=True))
async def invocations(request: Request) -> Response:
    """The most probable label of each text in one list; with ``top_k`` a list for each, as a pipeline gives them."""
    body = parse(PredictRequest, body_of(request.scope), most_values(request))
    answer = await classify(body, request)
    rows = shown_answers(answer, body)
    if body.top_k is None and not answer.task.per_token:
        return respond([row[0] for row in rows], answer)
    return respond(rows[0] if body.alone(paired=answer.manifest.paired) else rows, answer)
