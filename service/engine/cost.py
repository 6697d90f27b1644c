"""What batches cost, measured at warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from service.batching.packing import BatchCost
from service.tasks.tokenizer import Tokens

_LENGTH = 32  # of the texts that are timed, in tokens
_LARGEST = 512  # of them in a batch
_LONGEST = 0.04  # seconds of a batch, for all others wait for it
_REPEATS = 16  # of the smallest batch; larger ones take longer and vary less
_LEAST_OVERHEAD = 4.0  # tokens: handing a batch over and back is not in the times, and a busy machine hides the rest


def measure(
    run: Callable[[Sequence[Tokens]], object],
    max_length: int,
    most: int,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchCost:
    """Time batches of growing size until one takes too long; the largest before it is the budget.

    :param most: if above 0, the budget is this, whatever was measured.
    :param clock: in seconds. Where this thread does all the work, ``time.thread_time`` leaves out what others take of
        its core meanwhile, such as the version that is to be replaced.
    """
    length = min(_LENGTH, max_length)
    text = Tokens([0] * length, [0] * length, truncated=False, unk_share=0.0)
    tokens: list[int] = []
    seconds: list[float] = []
    size = 1
    while size <= _LARGEST:
        batch = [text] * size
        took = min(_timed(run, batch, clock) for _ in range(max(3, _REPEATS // size)))
        if took > _LONGEST and len(tokens) > 1:
            break
        tokens.append(size * length)
        seconds.append(took)
        size *= 2
    cost = fit(tokens, seconds)
    return replace(cost, budget=most) if most else cost


def fit(tokens: Sequence[int], seconds: Sequence[float]) -> BatchCost:
    """The line ``seconds = slope (overhead + tokens)`` with the least relative error through two or more points."""
    x, y = np.array(tokens, dtype=np.float64), np.array(seconds, dtype=np.float64)
    slope, constant = np.polyfit(x, y, 1, w=1 / y)
    overhead = float(constant / slope) if slope > 0 else float(x[-1])
    return BatchCost(max(_LEAST_OVERHEAD, overhead), int(x[-1]), float((x / y).max()))


def _timed(run: Callable[[Sequence[Tokens]], object], batch: Sequence[Tokens], clock: Callable[[], float]) -> float:
    started = clock()
    run(batch)
    return clock() - started
