"""What tasks have in common whose true answers people can tell: labels, numbers, entities."""

from __future__ import annotations

from collections.abc import Sequence


class Told:
    """Their answers are logged as they are, and judged by what the data says."""

    @property
    def vector(self) -> bool:
        return False

    def as_logged(self, answer: str) -> str:
        return answer

    def truth(self, targets: Sequence[str], answers: Sequence[str]) -> Sequence[str]:
        return targets
