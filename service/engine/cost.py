"""What batches cost, measured at warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from service.packing import BatchCost
from service.tokenizer import Tokens

_LENGTH = 32  # of the texts that are timed, in tokens
_LARGEST = 512  # of them in a batch
_LONGEST = 0.04  # seconds; no batch need be longer, for all others would wait for it
_REPEATS = 3
_FULL = 0.97  # a batch is full when larger ones would do less than 3 % more a second


def measure(run: Callable[[Sequence[Tokens]], object], max_length: int, most: int) -> BatchCost:
    """Time batches of growing size until one takes long.

    :param most: if above 0, the budget is this, whatever was measured.
    """
    length = min(_LENGTH, max_length)
    text = Tokens([0] * length, [0] * length, truncated=False, unk_share=0.0)
    tokens: list[int] = []
    seconds: list[float] = []
    size = 1
    while size <= _LARGEST:
        batch = [text] * size
        tokens.append(size * length)
        seconds.append(min(_timed(run, batch) for _ in range(_REPEATS)))
        if seconds[-1] > _LONGEST and size > 1:
            break
        size *= 2
    return fit(tokens, seconds, most)


def fit(tokens: Sequence[int], seconds: Sequence[float], most: int = 0) -> BatchCost:
    """The line ``seconds = slope (overhead + tokens)`` with the least relative error through two or more points.

    The budget is the smallest size that does nearly as many tokens a second as the best one.
    """
    x, y = np.array(tokens, dtype=np.float64), np.array(seconds, dtype=np.float64)
    slope, constant = np.polyfit(x, y, 1, w=1 / y)
    rate = x / y
    budget = int(x[np.argmax(rate >= _FULL * rate.max())])
    overhead = max(0.0, float(constant / slope)) if slope > 0 else float(budget)
    return BatchCost(overhead, most or budget, float(rate.max()))


def _timed(run: Callable[[Sequence[Tokens]], object], batch: Sequence[Tokens]) -> float:
    started = time.perf_counter()
    run(batch)
    return time.perf_counter() - started
