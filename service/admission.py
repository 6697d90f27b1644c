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

_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")


class Admission:
    """Called with the scope of each HTTP request, when the id of the request is known.

    :param default: the model of requests whose path names none; None if there is only one.
    """

    def __init__(self, predictor: Callable[[], Predictor], default: str | None) -> None:
        self._predictor = predictor
        self._default = default

    def __call__(self, scope: Scope) -> None:
        """:raises Overloaded: if the request asks for a prediction, and not even one text would find room."""
        if scope["method"] != "POST":
            return
        path: str = scope["path"]
        name, version = self._default, None
        if path in ("/predict", "/"):
            route = path
        elif found := _INFER.fullmatch(path):
            name, version = found.groups()
            route = "/v2/models/{name}/infer" if version is None else "/v2/models/{name}/versions/{version}/infer"
        else:
            return
        predictor = self._predictor()
        try:
            model = predictor.who_answers(name, version)
        except RequestError:  # the route says so in its own way
            return
        try:
            model.check_room()
        except Overloaded as error:
            predictor.rollout.failed(model, error)
            routed(scope, route)
            scope["path_params"] = {"name": model.manifest.name}
            raise
