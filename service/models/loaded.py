"""One loaded model version: verified, warmed, proven on its golden cases, and ready to answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from service.batching.batcher import Batched, Batcher
from service.card.warnings import elsewhere
from service.contract.bundle import Bundle, VariantName, open_bundle
from service.contract.errors import BundleError
from service.contract.hardware import instruction_set
from service.contract.inputs import Input, TextPair, characters
from service.engine import Engine, EngineError, lower_priority, measure, usable_cores
from service.errors import Contradiction, DeadlinePassed, InvalidRequest, Overloaded
from service.tasks.observation import Observations, observe
from service.tasks.of_bundle import task_of, tokenizer_of
from service.tasks.tokenizer import AS_TRAINED, TextTokenizer, Tokens, Truncation
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_CHARACTERS_OF_A_TOKEN = 4  # about, in ordinary text: what the token limit of the queue means before tokenizing
_QUEUE_SECONDS = 1  # of work may wait, if no setting says how much
_QUEUE_REQUESTS = 4  # may in any case: a few clients that send many long texts at once are ordinary, on a slow core too
_SHORT = 0.05  # seconds of a batch that the event loop may stand still for
_CHARACTERS_AT_ONCE = 2_000  # take some 0.5 ms to tokenize; handing them to a thread and back takes longer than most


@dataclass(frozen=True, slots=True)
class Observation:
    """What the model says of one text, a row of what it said of its batch."""

    label: str
    confidence: float
    probs: list[float]
    batch: Observations
    row: int


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The tokens of one request's texts and the seconds that took."""

    tokens: list[Tokens]
    seconds: float


class LoadedModel:
    """A bundle with its tokenizer, engine and batcher. Made by :func:`load`.

    :param fallback: why it runs on the CPU although the GPU was to be preferred; empty if it runs where it should.
    :param low_priority: leave all work to threads of the lowest priority.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: VariantName,
        tokenizer: TextTokenizer,
        engine: Engine,
        batcher: _ModelBatcher,
        fallback: str = "",
        low_priority: bool = False,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.task = task_of(bundle.manifest)
        self.variant = variant
        self.provider = engine.provider
        self.fallback = fallback
        self.batcher = batcher
        self.tokenizer = tokenizer
        self.max_characters = tokenizer.max_characters
        self._most_characters = batcher.queue_tokens * _CHARACTERS_OF_A_TOKEN
        self._characters = self._tokenizing = 0  # waiting to be tokenized, and their requests
        self._low_priority = low_priority
        self._threads = ThreadPoolExecutor(
            1, thread_name_prefix="tokenizer", initializer=lower_priority if low_priority else None
        )
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(
        self, texts: Sequence[Input], deadline: float, truncation: Truncation = AS_TRAINED
    ) -> tuple[Tokenized, list[Batched[Observation]]]:
        """Tokenize and classify the texts of one request. Errors are those of :meth:`Batcher.submit`.

        :raises InvalidRequest: if a text is too long and may not be cut.
        :raises Contradiction: if it is a pair where single texts are read, or the reverse.
        """
        self._check_kind(texts)
        self._in_flight += 1
        self._idle.clear()
        try:
            tokenized = await self._tokenize(texts, deadline, truncation)
            if truncation.truncate is False:
                self._check_whole(tokenized.tokens)
            return tokenized, await self.batcher.submit(tokenized.tokens, deadline)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def check_room(self) -> None:
        """:raises Overloaded: if a text of the model's full length would not find room in the queue."""
        self.batcher.check_room(self.manifest.max_length)

    def _check_kind(self, texts: Sequence[Input]) -> None:
        paired = self.manifest.paired
        for index, one in enumerate(texts):
            if isinstance(one, TextPair) != paired:
                raise Contradiction(
                    f"text {index} has no second one, and {self.manifest.name!r} reads pairs of texts. Give both."
                    if paired
                    else f"text {index} is a pair, and {self.manifest.name!r} reads single texts. Send one for each."
                )

    def _check_whole(self, tokens: Sequence[Tokens]) -> None:
        for place, one in enumerate(tokens):
            if one.truncated:
                raise InvalidRequest(
                    f"text {place} has more than {self.manifest.max_length} tokens, and truncate is false. Shorten it, "
                    "or let it be cut."
                )

    async def _tokenize(self, texts: Sequence[Input], deadline: float, truncation: Truncation) -> Tokenized:
        """Tokenize a little here, and more on a thread of its own, if not too much is waiting for that."""
        if sum(map(characters, texts)) <= _CHARACTERS_AT_ONCE and not self._low_priority:
            return self._tokenize_now(texts, truncation)
        waiting = sum(characters(self.tokenizer.cut(one, truncation.from_left)) for one in texts)
        enough = self._tokenizing >= max(1, self.batcher.least_requests)
        if enough and self._characters + waiting > self._most_characters:
            raise Overloaded(f"{self._characters} characters are waiting to be tokenized.", retry_after=1)

        def tokenize() -> Tokenized:
            if time.monotonic() > deadline:
                raise DeadlinePassed("the deadline passed while the request was waiting.")
            return self._tokenize_now(texts, truncation)

        self._characters += waiting
        self._tokenizing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, tokenize)
        finally:
            self._characters -= waiting
            self._tokenizing -= 1

    def _tokenize_now(self, texts: Sequence[Input], truncation: Truncation) -> Tokenized:
        started = time.perf_counter()
        tokens = self.tokenizer(texts, truncation.from_left)
        return Tokenized(tokens, time.perf_counter() - started)

    async def retire(self) -> None:
        """Wait until every request that began here is answered, then free the engine."""
        await self._idle.wait()
        await self.batcher.close()
        self._threads.shutdown(wait=False)


_ModelBatcher = Batcher[Tokens, Observation]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a model runs on and how much it may take.

    :param threads: of inference; 0 is as many as there are usable cores.
    :param batch_tokens: as in :func:`service.engine.measure`.
    :param queue_tokens: most tokens waiting or running; 0 is what is measured to be done in a second.
    :param shares_core: whether the event loop has no core to itself.
    :param cuda_graphs: as ``graphs`` of :class:`service.engine.Engine`, for a variant that runs on CUDA.
    :param low_priority: answer when nobody else wants the processor. There should be one thread of inference then.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    batch_tokens: int
    queue_tokens: int
    shares_core: bool
    cuda_graphs: bool
    low_priority: bool = False


def load(path: Path, resources: Resources, metrics: Metrics) -> LoadedModel:
    """Verify, load, warm and prove a bundle, all on a thread, which then runs its batches if they have one. Blocking.

    :raises BundleError: if a file is damaged or a golden case comes out differently.
    :raises EngineError: if the model cannot run on the device.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
    try:
        return thread.submit(_load, path, resources, metrics, thread).result()
    except BaseException:
        thread.shutdown(wait=False)
        raise


def _load(path: Path, resources: Resources, metrics: Metrics, thread: ThreadPoolExecutor) -> LoadedModel:
    bundle = open_bundle(path)
    manifest = bundle.manifest
    task = task_of(manifest)
    variant, engine, fallback = _engine(bundle, resources)
    tokenizer = tokenizer_of(bundle)
    engine.warm_up()
    _prove(bundle, variant, tokenizer, engine)
    for warning in elsewhere(manifest, instruction_set()) if variant == "cpu" else []:
        logger.warning("version %s of %s: %s", manifest.version, manifest.name, warning)

    def run(batch: Sequence[Tokens]) -> list[Observation]:
        outputs = engine.run(batch)
        seen = observe(outputs.logits, outputs.embedding, manifest.labels, task, batch)
        columns = zip(seen.labels, seen.confidence.tolist(), seen.probs.tolist(), strict=True)
        return [Observation(*one, seen, row) for row, one in enumerate(columns)]

    alone = variant == "cpu" and (resources.threads or usable_cores()) == 1
    clock = time.thread_time if alone else time.perf_counter
    cost = measure(run, manifest.max_length, resources.batch_tokens, clock)
    logger.info(
        "%s: a batch costs %.0f tokens beyond its own, holds at most %d, and %.0f are done in a second",
        manifest.name,
        cost.overhead,
        cost.budget,
        cost.per_second,
    )
    if variant == "cuda":
        engine.warm_up(cost.budget)

    def count(items: int, tokens: int, padded: int, seconds: float) -> None:
        metrics.inference_seconds.labels(manifest.name).observe(seconds)
        metrics.batch_size.labels(manifest.name).observe(items)
        metrics.batch_tokens.labels(manifest.name).observe(tokens)
        metrics.padding.labels(manifest.name).observe(1 - tokens / padded)

    longest = max(cost.budget, engine.padded_length(manifest.max_length)) / cost.per_second
    in_place = resources.shares_core and variant == "cpu" and longest <= _SHORT and not resources.low_priority
    if in_place:
        thread.shutdown(wait=False)
    elif resources.low_priority:
        lower_priority()
    batcher: _ModelBatcher = Batcher(
        run,
        padded_length=engine.padded_length,
        cost=cost,
        queue_tokens=resources.queue_tokens or max(int(_QUEUE_SECONDS * cost.per_second), manifest.max_length),
        least_requests=0 if resources.queue_tokens else _QUEUE_REQUESTS,
        thread=None if in_place else thread,
        on_batch=partial(metrics.deferred.schedule, count),
    )
    return LoadedModel(bundle, variant, tokenizer, engine, batcher, fallback, resources.low_priority)


def _engine(bundle: Bundle, resources: Resources) -> tuple[VariantName, Engine, str]:
    """The best variant that runs here, its engine, and why a better one does not; :raises EngineError: if none does."""
    manifest = bundle.manifest
    device, threads = resources.device, resources.threads or usable_cores()
    wanted: tuple[VariantName, ...] = ("cuda", "cpu") if device == "auto" else (device,)
    offered = [variant for variant in wanted if variant in manifest.variants]
    if not offered:
        raise EngineError(
            f"bundle {bundle.path} has no variant for {device}, only {', '.join(manifest.variants)}. "
            f"Export with --target {device}."
        )
    fallback = ""
    for variant in offered:
        file = bundle.file(manifest.variants[variant].file)
        try:
            graphs = resources.cuda_graphs and variant == "cuda"
            engine = Engine(
                file,
                device=variant,
                threads=threads,
                max_length=manifest.max_length,
                pad_id=manifest.pad_id,
                graphs=graphs,
            )
        except EngineError as error:
            if variant == offered[-1]:
                raise
            fallback = str(error)
            continue
        if fallback:
            logger.warning(
                "version %s of %s fell back from the GPU to %s: %s Start with --device cuda to refuse that, "
                "or with --device cpu if it is meant.",
                *(manifest.version, manifest.name, engine.provider, fallback),
            )
        return variant, engine, fallback
    raise AssertionError("some variant is offered, as was checked")


def _prove(bundle: Bundle, variant: VariantName, tokenizer: TextTokenizer, engine: Engine) -> None:
    atol = bundle.manifest.variants[variant].golden_atol
    for case in bundle.golden():
        if variant not in case.logits:
            raise BundleError(f"bundle {bundle.path} has no golden logits for {variant}. Export again.")
        expected = np.array(case.logits[variant], dtype=np.float32)
        logits = engine.run(tokenizer([case.input])).logits.ravel()
        difference = float(np.abs(logits - expected).max()) if logits.shape == expected.shape else np.inf
        if not difference <= atol:
            raise BundleError(
                f"bundle {bundle.path} fails a golden case: a logit of {case.text[:40]!r} is off by {difference:.3g}, "
                f"allowed is {atol:.3g}. Export again on a machine like this one."
            )
