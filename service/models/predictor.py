"""From texts to predictions: picks the live model, answers, counts, and offers each answer to the recorder."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from service.batching.batcher import Batched
from service.contract.bundle import Manifest
from service.contract.features import encode_embedding
from service.contract.inputs import Input, parts, split
from service.contract.record import Feedback, Record, new_id, now_rfc3339
from service.errors import InvalidRequest, LogFailing, NotReady, Overloaded, UnknownModel
from service.log.recorder import Recorder
from service.models.loaded import LoadedModel, Observation, Tokenized
from service.models.rollout import Rollout
from service.tasks import Task
from service.tasks.tokenizer import AS_TRAINED, Tokens, Truncation
from service.telemetry.context import request_id
from service.telemetry.metrics import Metrics

_QUEUED, _RAN = attrgetter("queued"), attrgetter("ran")
_SHOWN = 1_000  # answers that the status page is about
_REMEMBERED = 10_000  # predictions whose label is at hand when feedback comes


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one text; ``probs`` are in the order of the manifest's labels. NaN is no confidence."""

    id: str
    label: str
    confidence: float
    probs: list[float]

    @property
    def score(self) -> float:
        """What is shown beside the answer: how sure it is, or the number itself, where it is one."""
        return (self.probs or [math.nan])[0] if math.isnan(self.confidence) else self.confidence


@dataclass(frozen=True, slots=True)
class Answer:
    """The answers to one request, with who gave them and where the time went, in seconds."""

    manifest: Manifest
    digest: str
    predictions: list[Prediction]
    queued: float
    tokenized: float
    inferred: float
    seen: Sequence[Observation]
    texts: Sequence[Input]
    task: Task

    def logits(self) -> npt.NDArray[np.float32]:
        """(units, labels), in the order of the manifest's labels."""
        return np.concatenate([one.batch.logits_of(one.row) for one in self.seen])


@dataclass(frozen=True, slots=True)
class Recent:
    """One of the last answers, for the status page."""

    label: str
    milliseconds: float


class Predictor:
    """Holds the live model of each name; :mod:`service.models.watcher` replaces them.

    :param on_answer: called with each answer, in the context of its request.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_items: int,
        timeout: float,
        on_answer: Callable[[Answer], None] = lambda answer: None,
    ) -> None:
        self.models: dict[str, LoadedModel] = {}
        self.default: str | None = None  # who answers where a request names no model; never another one
        self.rollout = Rollout(metrics)
        self.started = False  # whether every model of the repository was loaded once
        self._metrics = metrics
        self.recorder: Recorder | None = None  # what answers are logged by, if they are
        self._max_items = max_items
        self._timeout = timeout
        self._on_answer = on_answer
        self._labels: OrderedDict[str, tuple[str, str]] = OrderedDict()  # id: model and label
        self._recent: dict[str, deque[Recent]] = {}
        self._answered: dict[str, float] = {}

    def model(self, name: str | None, version: str | None = None) -> LoadedModel:
        """The live model called ``name``; None is the default one.

        :raises NotReady: while nothing is loaded. :raises UnknownModel: if there is no such live version.
        """
        if not self.started:
            raise NotReady("models are being loaded; ask /readyz.")
        live = self.models.get(name or self.default or "")
        if live is None and name is None:
            raise NotReady(f"{self.default!r}, which answers where no model is named, is not loaded.")
        if live is None:
            raise UnknownModel(f"no model {name!r} here; served are: {', '.join(self.models) or 'none'}.")
        if version is not None and version != live.manifest.version:
            raise UnknownModel(f"version {version} of {name!r} is not live; version {live.manifest.version} is.")
        return live

    def served(self, name: str, version: str | None = None) -> LoadedModel:
        """As :meth:`model`, but a canary's version may be named."""
        canary = self.rollout.named(name, version) if version is not None else None
        return canary or self.model(name, version)

    def versions(self, name: str) -> list[str]:
        """The versions that answer: the live one, then a canary's."""
        canary = self.rollout.canaries.get(name)
        return [self.model(name).manifest.version, *([canary.model.manifest.version] if canary is not None else [])]

    def last_answered(self, name: str) -> int:
        """When this process last answered for a model, in milliseconds since 1970; 0 for never."""
        return int(1000 * self._answered.get(name, 0.0))

    def who_answers(self, name: str | None, version: str | None = None) -> LoadedModel:
        """As :meth:`model` for a request that is to be answered now: its canary has a share, and may be named."""
        live = self.model(name)
        if version is None:
            return self.rollout.choose(live, request_id.get())
        return self.rollout.named(live.manifest.name, version) or self.model(name, version)

    def recent(self, model: str) -> Iterable[Recent]:
        """The last 1,000 answers of a model, oldest first."""
        self._metrics.deferred.flush()
        return self._recent.get(model, ())

    async def predict(
        self,
        live: LoadedModel,
        texts: Sequence[Input],
        within: float | None = None,
        truncation: Truncation = AS_TRAINED,
    ) -> Answer:
        """Answer every text, or raise one of :mod:`service.errors` for all of them.

        :param within: seconds after which what still waits is dropped; at most the server's own limit.
        """
        if not texts:
            raise InvalidRequest("there is no text in the request; give at least one.")
        if len(texts) > self._max_items:
            raise InvalidRequest(f"{len(texts)} texts in one request, the limit is {self._max_items}. Split them.")
        for given in texts:
            for text in parts(given):
                check_unicode(text)
        started = time.monotonic()
        deadline = started + min(within or self._timeout, self._timeout)
        try:
            tokenized, batched = await live.answer(texts, deadline, truncation)
        except Exception as error:
            self.rollout.failed(live, error)
            raise
        latency = (time.monotonic() - started) * 1000
        predictions = [
            Prediction(new_id(), item.answer.label, item.answer.confidence, item.answer.probs) for item in batched
        ]
        self._metrics.deferred.schedule(self._book, live, texts, truncation, tokenized, batched, predictions, latency)
        answer = Answer(
            live.manifest,
            live.bundle.digest,
            predictions,
            max(map(_QUEUED, batched)),
            tokenized.seconds,
            max(map(_RAN, batched)),
            [item.answer for item in batched],
            texts,
            live.task,
        )
        self._answered[live.manifest.name] = time.time()
        self._on_answer(answer)
        return answer

    def _book(
        self,
        live: LoadedModel,
        texts: Sequence[Input],
        truncation: Truncation,
        tokenized: Tokenized,
        batched: Sequence[Batched[Observation]],
        predictions: Sequence[Prediction],
        latency_ms: float,
    ) -> None:
        """Count, remember and log what was answered, and tell the rollout."""
        model = live.manifest.name
        for text, tokens, item, prediction in zip(texts, tokenized.tokens, batched, predictions, strict=True):
            self._remember(model, prediction, latency_ms)
            self._count(live, tokens, item)
            if self.recorder is not None:
                kept = live.tokenizer.cut(text, truncation.from_left)
                record = _record(live, kept, tokens, item.answer, prediction, latency_ms)
                self.recorder.offer(model, record)
        self._metrics.tokenization_seconds.labels(model).observe(tokenized.seconds)
        self.rollout.answered(live, texts, truncation, predictions, latency_ms / 1000)

    def remembered(self, prediction_id: str) -> tuple[str, str] | None:
        """The model and label of one of the last predictions of this process."""
        self._metrics.deferred.flush()
        return self._labels.get(prediction_id)

    @property
    def log_failing(self) -> str | None:
        """Why the last records could not be written; None if they could, or there is no log."""
        return self.recorder.failing if self.recorder is not None else None

    async def feedback(self, model: str, known: str | None, prediction_id: str, label: str, source: str) -> None:
        """Keep the true label of an earlier prediction of a model; it is on the disk when this returns.

        :param known: the label that was predicted, if it is remembered.
        :raises InvalidRequest: if this server keeps no log. :raises Overloaded: if the log's queue is full.
        :raises LogFailing: if it could not be written.
        """
        if self.recorder is None:
            raise InvalidRequest("this server keeps no log, so feedback would be lost: start it with --log DIR.")
        check_unicode(label + source)
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()

        def tell(kept: bool) -> None:
            if not written.done():
                written.set_result(kept)

        def told(kept: bool) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(tell, kept)

        if not self.recorder.offer(model, Feedback(prediction_id, label, now_rfc3339(), source), told):
            raise Overloaded("the log is behind and cannot take the label now.", retry_after=1)
        if not await written:
            raise LogFailing(f"the label could not be written: {self.recorder.failing}. Send it again later.")
        live, right = self.models.get(model), "unknown"
        if known is not None and live is not None:
            right = str(bool(live.task.correct([known], [label])[0])).lower()
        self._metrics.feedback.labels(model, right).inc()

    def _count(self, live: LoadedModel, tokens: Tokens, item: Batched[Observation]) -> None:
        model, label = live.manifest.name, item.answer.label
        metrics = self._metrics
        metrics.queue_seconds.labels(model).observe(item.queued)
        if not math.isnan(item.answer.confidence):
            metrics.confidence.labels(model).observe(item.answer.confidence)
        metrics.input_tokens.labels(model).observe(len(tokens))
        # Each of several labels counts by itself: their combinations would be too many for a metric.
        for one in live.task.named(label):
            metrics.predictions.labels(model, one).inc()
        metrics.truncated.labels(model).inc(tokens.truncated)

    def _remember(self, model: str, prediction: Prediction, latency_ms: float) -> None:
        self._labels[prediction.id] = (model, prediction.label)
        if len(self._labels) > _REMEMBERED:
            self._labels.popitem(last=False)
        self._recent.setdefault(model, deque(maxlen=_SHOWN)).append(Recent(prediction.label, latency_ms))


def check_unicode(text: str) -> None:
    """:raises InvalidRequest: if a text cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"a text is not valid Unicode: lone surrogate at character {error.start}.") from error


def _record(
    live: LoadedModel, given: Input, tokens: Tokens, seen: Observation, prediction: Prediction, latency_ms: float
) -> Record:
    text, text_pair = split(given)
    return Record(
        id=prediction.id,
        ts=now_rfc3339(),
        model=live.manifest.name,
        version=live.manifest.version,
        digest=live.bundle.digest,
        text=text,
        text_pair=text_pair,
        tokens=None,
        n_tokens=len(tokens),
        truncated=tokens.truncated,
        unk_share=tokens.unk_share,
        label=prediction.label,
        confidence=prediction.confidence,
        probs=prediction.probs,
        embedding=encode_embedding(seen.batch.projected[seen.row]),
        latency_ms=latency_ms,
    )
