"""How far answers are from those of another model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, log_softmax

from service.contract.bundle import Task

Logits = npt.NDArray[np.float32]


def divergence(logits: Logits, wanted: Logits, task: Task) -> float:
    """Mean Kullback-Leibler divergence, in nats, of the answers from the wanted ones; both (n, labels) logits.

    Over the labels of a row for a single-label task; the mean over labels of each label's own for a multi-label one.
    """
    given, shown = logits.astype(np.float64), wanted.astype(np.float64)
    if task == "single-label":
        log_given, log_shown = log_softmax(given, axis=1), log_softmax(shown, axis=1)
        return float((np.exp(log_shown) * (log_shown - log_given)).sum(axis=1).mean())
    both = [(sign * given, sign * shown) for sign in (1, -1)]
    return float(sum(np.exp(log_expit(q)) * (log_expit(q) - log_expit(p)) for p, q in both).mean())
