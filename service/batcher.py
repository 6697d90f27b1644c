"""Batches waiting items by length.

Batching texts in order of arrival pads short ones to the longest of their batch, which on mixed traffic costs more
than not batching at all. So the waiting items are kept sorted by length, and each batch is the oldest item with its
nearest neighbours in length, as many as fit a budget of padded tokens. The oldest item is always in the next batch,
so none starves; an idle engine starts at once, so none waits for a batch to fill.

This file knows no HTTP and no model: items are anything with a length, ``run`` is any blocking function.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
import time
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import DeadlinePassed, NotReady, Overloaded

Item = TypeVar("Item", bound=Sized)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Batched(Generic[Answer]):
    """An answer with the seconds its item waited, and the seconds its batch ran."""

    answer: Answer
    queued: float
    ran: float


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    tokens: int
    number: int
    arrived: float
    future: asyncio.Future[Batched[Answer]] = field(repr=False)

    @property
    def key(self) -> tuple[int, int]:
        return self.tokens, self.number


class Batcher(Generic[Item, Answer]):
    """Collects items on the event loop and runs them in batches on one thread.

    :param run: takes a batch, returns one answer per item in the same order; called by one thread at a time.
    :param padded_length: tokens that an item of this length costs in a batch.
    :param batch_tokens: most padded tokens in a batch; a longer item runs alone.
    :param queue_tokens: most tokens waiting or running; a request beyond it is refused whole.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Answer]],
        *,
        padded_length: Callable[[int], int],
        batch_tokens: int,
        queue_tokens: int,
        on_batch: Callable[[int, int, int], None] = lambda items, tokens, padded: None,
    ) -> None:
        self._run = run
        self._padded_length = padded_length
        self._batch_tokens = batch_tokens
        self.queue_tokens = queue_tokens
        self._on_batch = on_batch
        self._by_length: list[_Waiting[Item, Answer]] = []
        self._by_age: dict[int, _Waiting[Item, Answer]] = {}
        self._numbers = itertools.count()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._tokens_per_second = 10_000.0
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
        if self.tokens and self.tokens + sum(lengths) > self.queue_tokens:
            wait = math.ceil(self.tokens / self._tokens_per_second)
            raise Overloaded(f"{self.tokens} tokens are waiting, the limit is {self.queue_tokens}.", max(1, wait))
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        group = [
            _Waiting(item, tokens, next(self._numbers), now, loop.create_future())
            for item, tokens in zip(items, lengths, strict=True)
        ]
        for waiting in group:
            self._add(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        timer = None
        if deadline < math.inf:
            timer = loop.call_later(max(0.0, deadline - now), self._expire, group)
        try:
            answers: list[Batched[Answer]] = await asyncio.gather(*(waiting.future for waiting in group))
            return answers
        except BaseException:
            for waiting in group:
                waiting.future.cancel()
                self._discard(waiting)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def on_thread(self, call: Callable[[], object]) -> None:
        """Have the thread that runs batches call something before its next batch."""
        self._thread.submit(call)

    async def close(self) -> None:
        """Refuse new items, run what is waiting, free the thread."""
        self._closed = True
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self._thread.shutdown(wait=False)

    def _add(self, waiting: _Waiting[Item, Answer]) -> None:
        bisect.insort(self._by_length, waiting, key=lambda one: one.key)
        self._by_age[waiting.number] = waiting
        self.tokens += waiting.tokens

    def _remove(self, waiting: _Waiting[Item, Answer]) -> None:
        index = bisect.bisect_left(self._by_length, waiting.key, key=lambda one: one.key)
        del self._by_length[index]
        del self._by_age[waiting.number]

    def _discard(self, waiting: _Waiting[Item, Answer]) -> None:
        """Forget an item that is still waiting and not wanted any more."""
        if waiting.number in self._by_age:
            self._remove(waiting)
            self.tokens -= waiting.tokens

    def _expire(self, group: Sequence[_Waiting[Item, Answer]]) -> None:
        for waiting in group:
            if waiting.number in self._by_age and not waiting.future.done():
                self._discard(waiting)
                waiting.future.set_exception(DeadlinePassed("the deadline passed while the request was waiting."))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            started = time.monotonic()
            try:
                answers = await loop.run_in_executor(self._thread, self._run, [waiting.item for waiting in batch])
                ran = time.monotonic() - started
                self._note(batch, ran)
                for waiting, answer in zip(batch, answers, strict=True):
                    if not waiting.future.done():
                        waiting.future.set_result(Batched(answer, started - waiting.arrived, ran))
            except Exception as error:
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
            finally:
                self.tokens -= sum(waiting.tokens for waiting in batch)
        self._worker = None

    def _note(self, batch: Sequence[_Waiting[Item, Answer]], ran: float) -> None:
        padded = len(batch) * max(waiting.tokens for waiting in batch)
        self._tokens_per_second += 0.1 * (padded / max(ran, 1e-6) - self._tokens_per_second)
        self._on_batch(len(batch), sum(len(waiting.item) for waiting in batch), padded)

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        """Take the oldest item and its neighbours in length out of the waiting set."""
        if not self._by_age:
            return []
        batch = self._around(next(iter(self._by_age.values())))
        for waiting in batch:
            self._remove(waiting)
        return batch

    def _around(self, oldest: _Waiting[Item, Answer]) -> list[_Waiting[Item, Answer]]:
        """The run of the sorted waiting set around ``oldest`` with the least padding, within the budget."""
        start = bisect.bisect_left(self._by_length, oldest.key, key=lambda one: one.key)
        end = start + 1
        longest = oldest.tokens
        while True:
            shorter = self._by_length[start - 1].tokens if start > 0 else None
            longer = self._by_length[end].tokens if end < len(self._by_length) else None
            size = end - start + 1
            if longer is not None and longer * size > self._batch_tokens:
                longer = None
            if shorter is not None and longest * size > self._batch_tokens:
                shorter = None
            if shorter is None and longer is None:
                break
            # Padding that each choice would add: a shorter item is padded itself, a longer one pads all others.
            if longer is None or (shorter is not None and longest - shorter <= (longer - longest) * (size - 1)):
                start -= 1
            else:
                end += 1
                longest = longer
        return self._by_length[start:end]
