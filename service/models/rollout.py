"""Candidates beside the live version: a canary answers a share of the requests, a shadow sees copies and never answers.

Which requests a canary answers depends on the request's id only, so a client that sends the same ``x-request-id`` meets
the same version on every server. A shadow works with what the live version leaves: on threads of the lowest priority,
on a bounded number of texts; what does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from service.contract.errors import PlumblineError
from service.contract.inputs import Input
from service.contract.sampling import share_of
from service.models.loaded import LoadedModel
from service.tasks.tokenizer import Truncation
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.models.predictor import Prediction

logger = logging.getLogger(__name__)

Role = Literal["canary", "shadow"]
ROLES: tuple[Role, ...] = get_args(Role)
_MOST_TEXTS = 64  # that wait for a shadow; a request with more is compared if none waits


@dataclass(frozen=True)
class Canary:
    model: LoadedModel
    weight: float


class Rollout:
    """The candidates of every model; ``service.models.candidates`` puts them here and takes them away."""

    def __init__(self, metrics: Metrics) -> None:
        self.canaries: dict[str, Canary] = {}
        self.shadows: dict[str, Shadow] = {}
        self._metrics = metrics

    def choose(self, live: LoadedModel, request_id: str) -> LoadedModel:
        """Who answers a request that asked for no version."""
        canary = self.canaries.get(live.manifest.name)
        return canary.model if canary is not None and share_of(request_id) < canary.weight else live

    def named(self, model: str, version: str) -> LoadedModel | None:
        """The canary, if it is this version. A shadow answers nobody."""
        canary = self.canaries.get(model)
        return canary.model if canary is not None and canary.model.manifest.version == version else None

    def answered(
        self,
        by: LoadedModel,
        texts: Sequence[Input],
        truncation: Truncation,
        predictions: Sequence[Prediction],
        seconds: float,
    ) -> None:
        """Take note of an answer, and show its texts to the shadow, to be read in the same way."""
        name = by.manifest.name
        canary, shadow = self.canaries.get(name), self.shadows.get(name)
        if canary is not None:
            self._metrics.version_seconds.labels(name, by.manifest.version).observe(seconds)
        if shadow is not None and (canary is None or by is not canary.model):
            shadow.offer(texts, truncation, [prediction.label for prediction in predictions])

    def failed(self, by: LoadedModel, error: BaseException) -> None:
        """Take note of a request that a version did not answer."""
        name = by.manifest.name
        if name in self.canaries and isinstance(error, Exception):
            code = error.code if isinstance(error, PlumblineError) else "internal"
            self._metrics.version_errors.labels(name, by.manifest.version, code).inc()


class Shadow:
    """Compares a candidate's labels with those that were answered."""

    def __init__(self, model: LoadedModel, metrics: Metrics) -> None:
        self.model = model
        self._metrics = metrics
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, texts: Sequence[Input], truncation: Truncation, labels: Sequence[str]) -> None:
        """Compare later, or drop if too much waits. Never waits, never raises."""
        if self._waiting and self._waiting + len(texts) > _MOST_TEXTS:
            self._count("dropped", len(texts))
            return
        self._waiting += len(texts)
        task = asyncio.create_task(self._compare(texts, truncation, labels))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, texts: Sequence[Input], truncation: Truncation, labels: Sequence[str]) -> None:
        started = time.monotonic()
        try:
            _, batched = await self.model.answer(texts, math.inf, truncation)
        except Exception as error:  # a candidate's fault is news about the candidate, not about the service
            logger.warning("the shadow, version %s, failed: %s", self.model.manifest.version, error)
            self._count("failed", len(texts))
            return
        finally:
            self._waiting -= len(texts)
        manifest = self.model.manifest
        self._metrics.shadow_seconds.labels(manifest.name, manifest.version).observe(time.monotonic() - started)
        if self.model.task.vector:  # nothing is remembered that vectors could be compared with
            self._count("answered", len(labels))
            return
        agreed = int(self.model.task.same([item.answer.label for item in batched], labels).sum())
        self._count("agreed", agreed)
        self._count("differed", len(labels) - agreed)

    def _count(self, outcome: str, inputs: int) -> None:
        manifest = self.model.manifest
        self._metrics.shadow_inputs.labels(manifest.name, manifest.version, outcome).inc(inputs)
