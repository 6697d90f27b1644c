"""Refuses predictions that find the queue full before their bodies are read.

Under overload most requests are refused, on the core that should be answering the others: reading, checking and
tokenizing what is refused anyway would take most of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.types import Scope

from service.errors import Overloaded
from service.predictor import Predictor

REFUSED_ROUTE = "plumbline.route"  # in the scope, for the metrics: no router has seen the request yet

_INFER = re.compile(r"/v2/models/([^/]+)(/versions/[^/]+)?/infer")


class Admission:
    """Called with the scope of each HTTP request.

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
        if path in ("/predict", "/"):
            route, name = path, self._default
        elif found := _INFER.fullmatch(path):
            route, name = "/v2/models/{name}/infer", found[1]
            if found[2]:
                route = "/v2/models/{name}/versions/{version}/infer"
        else:
            return
        models = self._predictor().models
        live = models.get(name) if name is not None else next(iter(models.values()), None)
        if live is None:
            return
        try:
            live.check_room()
        except Overloaded:
            scope[REFUSED_ROUTE] = route
            scope["path_params"] = {"name": live.manifest.name}
            raise
