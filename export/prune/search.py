"""Which heads and neurons to keep: the least loss under a latency budget.

With the loss of a layer's units and their latency both known per count, and both adding up over layers, this is a
multiple-choice knapsack, solved by dynamic programming over the latency in steps of a thousandth of the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.prune.importance import Removal
from export.prune.surgery import Kept
from export.prune.table import LatencyTable

_STEPS = 2_000

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """One layer's units in the order in which they go."""

    heads: Removal
    neurons: Removal


def search(rankings: Sequence[Ranking], table: LatencyTable, budget_ms: float) -> list[Kept] | None:
    """The units to keep in each layer so that all layers together take at most ``budget_ms``; None if none can."""
    counts, losses, costs = [], [], []
    for ranking in rankings:
        heads = np.arange(len(ranking.heads.order) + 1)
        neurons = table.neuron_counts(len(ranking.neurons.order))
        counts += [heads, neurons]
        losses += [_kept_loss(ranking.heads, heads), _kept_loss(ranking.neurons, neurons)]
        costs += [table.attention_ms(heads), table.feed_forward_ms(neurons)]
    chosen = choose(losses, costs, budget_ms)
    if chosen is None:
        return None
    kept = [int(options[option]) for options, option in zip(counts, chosen, strict=True)]
    return [
        Kept(ranking.heads.kept(kept[2 * place]), ranking.neurons.kept(kept[2 * place + 1]))
        for place, ranking in enumerate(rankings)
    ]


def choose(losses: Sequence[Array], costs: Sequence[Array], budget: float) -> list[int] | None:
    """One option of each group, with the least summed loss among those whose summed cost is within ``budget``."""
    if budget <= 0:
        return None if sum(cost.min() for cost in costs) > budget else [int(cost.argmin()) for cost in costs]
    step = budget / _STEPS
    best = np.zeros(_STEPS + 1)  # the least loss of the groups so far with at most so many steps spent
    picks = []
    for loss, cost in zip(losses, costs, strict=True):
        steps = np.ceil(cost / step - 1e-9).astype(np.int64)
        table = np.full((len(cost), _STEPS + 1), np.inf)
        for option, spent in enumerate(steps):
            if spent <= _STEPS:
                table[option, spent:] = best[: _STEPS + 1 - spent] + loss[option]
        picks.append((table.argmin(axis=0), steps))
        best = table.min(axis=0)
    if not np.isfinite(best[-1]):
        return None
    left, chosen = _STEPS, []
    for pick, steps in reversed(picks):
        option = int(pick[left])
        chosen.append(option)
        left -= int(steps[option])
    return chosen[::-1]


def _kept_loss(removal: Removal, counts: npt.NDArray[np.int64]) -> Array:
    return removal.loss[len(removal.order) - counts]
