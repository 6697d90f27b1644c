"""The wire protocols: one small router each, with no logic beyond translating to and from the predictor."""

from service.http.routes import (
    embed,
    feedback,
    interface,
    kserve,
    oip,
    predict,
    probes,
    repository,
    rerank,
    sagemaker,
    status,
    tei,
    zero_shot,
)

# Routes are tried in this order, so the busy ones stand first.
ROUTERS = (
    *(predict.router, oip.router, feedback.router, kserve.router, tei.router, sagemaker.router),
    *(embed.router, rerank.router, zero_shot.router),
    *(probes.router, status.router, interface.router, repository.router),
)

__all__ = ["ROUTERS"]
