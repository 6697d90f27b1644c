"""What tasks have in common: those whose true answers people can tell, and those whose answers name no class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.tasks.task import Booleans, Floats, Task
from service.tasks.tokenizer import Tokens


class Told:
    """Answers are labels, numbers or entities: logged as they are, and judged by what the data says."""

    @property
    def vector(self) -> bool:
        return False

    def logged(self: Task, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        return self.answers(probs, labels, tokens)

    def truth(self, targets: Sequence[str], answers: Sequence[str]) -> Sequence[str]:
        return targets


class Classless:
    """Answers are numbers or vectors."""

    def classes(self, labels: Sequence[str]) -> Sequence[str]:
        return ()

    def outputs_of(self, classes: Sequence[str]) -> Sequence[str]:
        return ()

    def as_labels(self, answer: str) -> str:
        return ""

    def named(self, answer: str) -> Sequence[str]:
        return ()

    def decided(self, probs: Floats) -> Booleans:
        return np.ones(probs.shape, dtype=np.bool_)
