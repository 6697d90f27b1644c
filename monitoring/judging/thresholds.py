"""What settings say of a decision; apart from :mod:`monitoring.signals`, because settings need no statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.01  # family-wise: the chance that a window without drift shows any significant signal
TOLERANCE = 0.05
_SIGNALS = 12


@dataclass(frozen=True)
class Thresholds:
    """``effect_scale`` multiplies the least effects of every signal but the accuracy's, which is ``tolerance``.

    ``tolerance`` is the share of answers by which accuracy may fall.
    """

    alpha: float = ALPHA
    effect_scale: float = 1.0
    tolerance: float = TOLERANCE

    @property
    def permutations(self) -> int:
        """Permutations after which the smallest possible p-value passes Holm's first step over twelve signals."""
        return math.ceil(_SIGNALS / self.alpha) - 1
