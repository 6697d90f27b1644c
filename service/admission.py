"""Refuses predictions that find the queue full before their bodies are read.

Under overload most requests are refused, on the core that should be answering the others: reading, checking and
tokenizing what is refused anyway would take most of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import Scope

from service.context import routed
from service.errors import Overloaded, RequestError
from service.predictor import Predictor

# Routes of predictions by the default model.
DEFAULT = frozenset(["/predict", "/", "/invocations"])
# Paths that name a model, and their routes.
_NAMED = (
    (re.compile(r"/v2/models/([^/]+)/infer"), "/v2/models/{name}/infer"),
    (re.compile(r"/v2/models/([^/]+)/versions/([^/]+)/infer"), "/v2/models/{name}/versions/{version}/infer"),
    (re.compile(r"/models/([^/]+)/predict"), "/models/{name}/predict"),
    (re.compile(r"/v1/models/([^/]+):predict"), "/v1/models/{name}:predict"),
)


class Admission:
    """Called with the scope of each HTTP request, when the id of the request is known."""

    def __init__(self, predictor: Callable[[], Predictor]) -> None:
        self._predictor = predictor

    def __call__(self, scope: Scope) -> None:
        """:raises Overloaded: if the request asks for a prediction, and not even one text would find room."""
        if scope["method"] != "POST":
            return
        asked = _asked(scope["path"])
        if asked is None:
            return
        route, model_and_version = asked
        predictor = self._predictor()
        try:
            model = predictor.who_answers(*model_and_version)
        except RequestError:  # the route says so in its own way
            return
        try:
            model.check_room()
        except Overloaded as error:
            predictor.rollout.failed(model, error)
            routed(scope, route)
            scope["path_params"] = {"name": model.manifest.name}
            raise


def _asked(path: str) -> tuple[str, tuple[str | None, ...]] | None:
    """The route of a prediction, with the model and the version that its path names; None for other requests."""
    if path in DEFAULT:
        return path, (None,)
    for pattern, route in _NAMED:
        if found := pattern.fullmatch(path):
            return route, found.groups()
    return None
