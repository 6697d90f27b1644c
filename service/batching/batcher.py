"""Batches waiting items by length.

Batching texts in order of arrival pads short ones to the longest of their batch, which on mixed traffic costs more
than not batching at all. So waiting items are kept by length, and each batch is the oldest item with those around it
in length that are worth their padding (:mod:`service.batching.packing`). The oldest item is always in the next batch,
so none starves; an idle engine starts at once, so none waits for a batch to fill.

A batch that fails is run again one by one, so that what is wrong with one item hurts no other.

This file knows no HTTP and no model: items are anything with a length, ``run`` is any blocking function.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.batching.packing import BatchCost, pack
from service.errors import DeadlinePassed, NotReady, Overloaded

Item = TypeVar("Item", bound=Sized)
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)

_TURNS = 5  # of the event loop: answers go out, what they bring is read, parsed, tokenized, and submitted


@dataclass(frozen=True, slots=True)
class Batched(Generic[Answer]):
    """An answer with the seconds its item waited, and the seconds its batch ran."""

    answer: Answer
    queued: float
    ran: float


@dataclass(slots=True, eq=False)
class _Group(Generic[Answer]):
    """The items of one request: a future for all of them, the answers so far, and how many are missing."""

    future: asyncio.Future[list[Batched[Answer]]] = field(repr=False)
    answers: list[Batched[Answer]]
    missing: int


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    tokens: int
    number: int
    arrived: float
    group: _Group[Answer] = field(repr=False)
    index: int


@dataclass(frozen=True, slots=True)
class _Run(Generic[Item, Answer]):
    """What one call of ``run`` came to, when it began, and the seconds it took."""

    batch: Sequence[_Waiting[Item, Answer]]
    outcome: Sequence[Answer] | Exception
    started: float
    seconds: float


class Batcher(Generic[Item, Answer]):
    """Collects items on the event loop and runs them in batches, one at a time.

    :param run: takes a batch, returns one answer per item in the same order.
    :param padded_length: tokens that an item of this length costs in a batch.
    :param queue_tokens: most tokens waiting or running; a request beyond it is refused whole.
    :param least_requests: requests that may be in the queue however many tokens they have.
    :param thread: what calls ``run``, with one worker; the batcher shuts it down. Without it the event loop calls
        ``run`` itself, and between two batches answers the first and takes in what comes in return. That is faster
        where there is one core for both, and right if a batch takes milliseconds: nothing else is answered meanwhile.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Answer]],
        *,
        padded_length: Callable[[int], int],
        cost: BatchCost,
        queue_tokens: int,
        least_requests: int = 0,
        thread: ThreadPoolExecutor | None = None,
        on_batch: Callable[[int, int, int, float], None] = lambda items, tokens, padded, seconds: None,
    ) -> None:
        self._run = run
        self._padded_length = padded_length
        self.cost = cost
        self._tokens_per_second = cost.per_second
        self.queue_tokens = queue_tokens
        self.least_requests = least_requests
        self._requests = 0  # waiting or running
        self._turns = 0 if thread is not None else _TURNS
        self._on_batch = on_batch
        self._by_age: dict[int, _Waiting[Item, Answer]] = {}
        self._by_length: dict[int, dict[int, _Waiting[Item, Answer]]] = {}
        self._numbers = itertools.count()
        self._thread = thread
        self._busy = False  # a batch runs, or is about to be chosen
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.tokens = 0  # waiting or running

    async def submit(self, items: Sequence[Item], deadline: float = math.inf) -> list[Batched[Answer]]:
        """Answers in the order of ``items``; all are admitted or none.

        :param deadline: on the clock of ``time.monotonic``; items still waiting then are dropped.
        :raises Overloaded: if the items do not fit the queue.
        :raises DeadlinePassed: if the deadline passed before an item was run.
        :raises NotReady: if the batcher was closed.
        """
        if self._closed:
            raise NotReady("this model version has been replaced; send the request again.")
        lengths = [self._padded_length(len(item)) for item in items]
        self.check_room(sum(lengths))
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        group: _Group[Answer] = _Group(loop.create_future(), [None] * len(items), len(items))  # type: ignore[list-item]
        members = [
            _Waiting(item, tokens, next(self._numbers), now, group, index)
            for index, (item, tokens) in enumerate(zip(items, lengths, strict=True))
        ]
        for waiting in members:
            self._add(waiting)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            if self._thread is None:
                self._dispatch(loop)  # a turn of the loop less for who comes alone
            else:
                loop.call_soon(self._dispatch, loop)  # after what else has arrived by now
        self._requests += 1
        timer = None
        if deadline < math.inf and not group.future.done():
            timer = loop.call_later(max(0.0, deadline - now), self._expire, members)
        try:
            return await group.future
        except BaseException:
            for waiting in members:
                self._discard(waiting)
            raise
        finally:
            self._requests -= 1
            if timer is not None:
                timer.cancel()

    def check_room(self, tokens: int) -> None:
        """:raises Overloaded: if so many tokens would not fit the queue now; an idle queue takes any."""
        if self._requests < self.least_requests:
            return
        if self.tokens and self.tokens + tokens > self.queue_tokens:
            wait = math.ceil(self.tokens / self._tokens_per_second)
            raise Overloaded(f"{self.tokens} tokens are waiting, the limit is {self.queue_tokens}.", max(1, wait))

    async def close(self) -> None:
        """Refuse new items, run what is waiting, free the thread."""
        self._closed = True
        await self._idle.wait()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _add(self, waiting: _Waiting[Item, Answer]) -> None:
        self._by_age[waiting.number] = waiting
        self._by_length.setdefault(waiting.tokens, {})[waiting.number] = waiting
        self.tokens += waiting.tokens

    def _remove(self, waiting: _Waiting[Item, Answer]) -> None:
        del self._by_age[waiting.number]
        alike = self._by_length[waiting.tokens]
        del alike[waiting.number]
        if not alike:
            del self._by_length[waiting.tokens]

    def _discard(self, waiting: _Waiting[Item, Answer]) -> None:
        """Forget an item that is still waiting and not wanted any more."""
        if waiting.number in self._by_age:
            self._remove(waiting)
            self.tokens -= waiting.tokens

    def _expire(self, members: Sequence[_Waiting[Item, Answer]]) -> None:
        late = [waiting for waiting in members if waiting.number in self._by_age]
        for waiting in late:
            self._discard(waiting)
        future = members[0].group.future
        if late and not future.done():
            future.set_exception(DeadlinePassed("the deadline passed while the request was waiting."))

    def _dispatch_after(self, turns: int, loop: asyncio.AbstractEventLoop) -> None:
        """Start the next batch when the event loop has turned so often."""
        if turns:
            loop.call_soon(self._dispatch_after, turns - 1, loop)
        else:
            self._dispatch(loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the next batch, if anything is waiting."""
        batch = self._next_batch()
        if not batch:
            self._busy = False
            self._idle.set()
        elif self._thread is not None:
            self._thread.submit(self._work, batch, loop)
        else:
            self._finish(self._runs(batch), loop)

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        """Take the oldest item, and what is worth running with it, out of the waiting ones."""
        if not self._by_age:
            return []
        oldest = next(iter(self._by_age.values()))
        if len(self._by_age) == 1:
            self._remove(oldest)
            return [oldest]
        counts = {length: len(alike) for length, alike in self._by_length.items()}
        taken = pack(counts, oldest.tokens, self.cost)
        batch = [
            waiting
            for length, count in taken.items()
            for waiting in itertools.islice(self._by_length[length].values(), count)
        ]
        for waiting in batch:
            self._remove(waiting)
        return batch

    def _work(self, batch: Sequence[_Waiting[Item, Answer]], loop: asyncio.AbstractEventLoop) -> None:
        """On the thread."""
        loop.call_soon_threadsafe(self._finish, self._runs(batch), loop)

    def _runs(self, batch: Sequence[_Waiting[Item, Answer]]) -> list[_Run[Item, Answer]]:
        """Run a batch, and if that fails each of its items by itself."""
        together = self._timed(batch)
        if len(batch) == 1 or not isinstance(together.outcome, Exception):
            return [together]
        logger.warning("a batch of %d failed and is run again one by one: %s", len(batch), together.outcome)
        return [self._timed([waiting]) for waiting in batch]

    def _timed(self, batch: Sequence[_Waiting[Item, Answer]]) -> _Run[Item, Answer]:
        started = time.monotonic()
        outcome: Sequence[Answer] | Exception
        try:
            outcome = self._run([waiting.item for waiting in batch])
            if len(outcome) != len(batch):
                raise ValueError(f"{len(outcome)} answers came for {len(batch)} items")
        except Exception as error:
            outcome = error
        return _Run(batch, outcome, started, time.monotonic() - started)

    def _finish(self, runs: Sequence[_Run[Item, Answer]], loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop: let the engine go on, answer, and then count."""
        self.tokens -= sum(waiting.tokens for run in runs for waiting in run.batch)
        self._dispatch_after(self._turns, loop)
        for run in runs:
            if isinstance(run.outcome, Exception):
                _fail(run.batch, run.outcome)
            else:
                self._answer(run, run.outcome)

    def _answer(self, run: _Run[Item, Answer], answers: Sequence[Answer]) -> None:
        useful = 0
        for waiting, answer in zip(run.batch, answers, strict=True):
            useful += len(waiting.item)
            group = waiting.group
            group.answers[waiting.index] = Batched(answer, run.started - waiting.arrived, run.seconds)
            group.missing -= 1
            if not group.missing and not group.future.done():
                group.future.set_result(group.answers)
        padded = len(run.batch) * max(waiting.tokens for waiting in run.batch)
        self._tokens_per_second += 0.1 * (padded / max(run.seconds, 1e-6) - self._tokens_per_second)
        self._on_batch(len(run.batch), useful, padded, run.seconds)


def _fail(batch: Sequence[_Waiting[Item, Answer]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.group.future.done():
            waiting.group.future.set_exception(error)
