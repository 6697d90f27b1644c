"""Which lengths to run together: pure arithmetic, no queue and no clock.

A batch of n texts padded to L tokens costs about as much as ``overhead + n L`` tokens. Padding costs as much as text
does, and filling a batch only spreads the overhead, so the best batch is the one with the least cost for each token
that its texts would have by themselves. On a CPU the overhead is a few tokens and batches come out small and even; on
a GPU it is thousands, and they come out full.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchCost:
    """What batches cost on an engine, in tokens.

    ``overhead`` is what a batch costs beyond its padded tokens, ``budget`` the most padded tokens of a batch (a longer
    item runs alone), ``per_second`` the padded tokens that are done in a second.
    """

    overhead: float
    budget: int
    per_second: float


def pack(waiting: Mapping[int, int], length: int, cost: BatchCost) -> dict[int, int]:
    """How many items of each length to run with one of ``length``.

    Starts with its own length and takes in the next shorter or longer ones while that makes a token cheaper.

    :param waiting: items waiting by padded length, all above 0; holds ``length``.
    """
    overhead, budget = cost.overhead, cost.budget
    lengths = sorted(waiting)
    shorter = longer = bisect_left(lengths, length)
    items = max(1, min(waiting[length], budget // length))
    taken = {length: items}
    longest, useful = length, items * length
    while True:
        cheapest, found = (overhead + items * longest) / useful, None
        for index in (shorter - 1, longer + 1):
            if not 0 <= index < len(lengths):
                continue
            candidate = lengths[index]
            padded = max(longest, candidate)
            more = min(waiting[candidate], budget // padded - items)
            if more <= 0:
                continue
            price = (overhead + (items + more) * padded) / (useful + more * candidate)
            if price < cheapest:
                cheapest, found = price, (index, candidate, more)
        if found is None:
            return taken
        index, candidate, more = found
        taken[candidate] = more
        shorter, longer = min(shorter, index), max(longer, index)
        longest, items, useful = max(longest, candidate), items + more, useful + more * candidate
