"""What a decision is made by; see :mod:`monitoring.decision`. Apart from it, because settings need no statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.01  # family-wise: the chance that a window without drift shows any significant signal
NOTICE_EFFECT = {
    "label": 0.05,  # excess total variation: one answer in twenty is another one
    "confidence": 0.10,  # Kolmogorov-Smirnov distance: a tenth of the rows lie elsewhere
    "n_tokens": 0.15,
    "n_words": 0.15,
    "unk_share": 0.10,
    "embedding": 0.15,  # 2 AUC - 1: a pair of old and new row is told apart in 57.5 % of cases
    "tokens": 0.15,
    "constant": 0.20,  # of all rows: the same input again, or no value where there was one
}
ALERT_EFFECT = {
    "label": 0.05,  # outputs: any drift is an alert
    "confidence": 0.10,
    "n_tokens": 0.40,
    "n_words": 0.40,
    "unk_share": 0.30,
    "embedding": 0.50,  # 2 AUC - 1: three pairs in four are told apart
    "tokens": 0.50,
    "constant": 0.50,
}


@dataclass(frozen=True)
class Thresholds:
    """What a decision is made by; ``effect_scale`` multiplies every effect threshold."""

    alpha: float = ALPHA
    effect_scale: float = 1.0

    def notice(self, signal: str) -> float:
        return NOTICE_EFFECT[signal] * self.effect_scale

    def alert(self, signal: str) -> float:
        return ALERT_EFFECT[signal] * self.effect_scale

    def permutations(self, signals: int = 6) -> int:
        """Permutations after which the smallest possible p-value passes Holm's first step with room to spare."""
        return math.ceil(2 * signals / self.alpha) - 1
