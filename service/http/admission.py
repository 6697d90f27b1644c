"""Refuses predictions that find the queue full before their bodies are read.

Under overload most requests are refused, on the core that should be answering the others: reading, checking and
tokenizing what is refused anyway would take most of it.
"""

from __future__ import annotations

from service.errors import Overloaded, RequestError
from service.http.route_table import Matched
from service.models.predictor import Predictor


class Admission:
    """Called with what each HTTP request is for, when its id is known."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def __call__(self, matched: Matched) -> None:
        """:raises Overloaded: if the request asks for a prediction, and not even one text would find room."""
        if not matched.policy.predicts:
            return
        try:
            model = self._predictor.who_answers(matched.parameters.get("name"), matched.parameters.get("version"))
        except RequestError:  # the route says so in its own way
            return
        try:
            model.check_room()
        except Overloaded as error:
            self._predictor.rollout.failed(model, error)
            raise
