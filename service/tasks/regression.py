"""Regression: a number for each text or pair, as a cross-encoder's score of how well two texts go together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.contract.inputs import Input
from service.tasks.classification import sigmoid
from service.tasks.task import Booleans, Doubles, Floats
from service.tasks.tokenizer import Tokens
from service.tasks.told import Classless, Told

_NEAR = 0.5  # of the spread: an answer that is off by no more is right
_ALIKE = 0.25  # of the spread: answers that differ by no more are one; in 2 % of rows that is 0.1 points of R2


def number(answer: str) -> float:
    """The number that an answer or a target is; NaN if it is none."""
    try:
        return float(answer)
    except ValueError:
        return math.nan


def numbers(answers: Sequence[str]) -> Doubles:
    """(n,) of them."""
    return np.array([number(one) for one in answers], dtype=np.float64)


@dataclass(frozen=True)
class Regression(Classless, Told):
    """The one logit is the answer, or its sigmoid (``squashed``), as many cross-encoders are trained.

    The score is 1 minus the mean squared error as a share of the targets' variance: R2, or the coefficient of
    determination, which is 0 for always answering the mean. Where right or wrong is asked for, an answer is right if it
    is off by at most half of ``spread``, the standard deviation of the training targets.
    """

    squashed: bool = False
    spread: float = 1.0
    name: str = "regression"
    metric: str = "R2"
    categorical: bool = False
    several: bool = False
    per_token: bool = False
    trivial: str = "Always answering the mean"

    @property
    def problem_type(self) -> str | None:
        return None if self.squashed else "regression"  # transformers' pipelines take the sigmoid of one that has none

    @property
    def settings(self) -> Mapping[str, float | bool | str]:
        return {"squashed": self.squashed, "spread": self.spread}

    def described(self, labels: Sequence[str]) -> str:
        return f"regression model of one number ({', '.join(labels)})"

    def fitted(self, targets: Sequence[str]) -> Regression:
        spread = float(numbers(targets).std())
        return replace(self, spread=spread if math.isfinite(spread) and spread > 0 else 1.0)

    def problem(self, target: str, given: Input) -> str | None:
        return None if math.isfinite(number(target)) else f"has {target[:40]!r}, and regression wants a finite number"

    def by_text(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        return probs

    def probabilities(self, logits: Floats) -> Floats:
        return sigmoid(logits) if self.squashed else logits

    def answers(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        return [f"{value:.6g}" for value in probs[:, 0].tolist()]

    def confidences(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        return np.full(len(probs), np.nan, dtype=np.float32)

    def correct(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans:
        return np.asarray(np.abs(numbers(predicted) - numbers(targets)) <= _NEAR * self.spread)

    def same(self, answers: Sequence[str], others: Sequence[str]) -> Booleans:
        return np.asarray(np.abs(numbers(answers) - numbers(others)) <= _ALIKE * self.spread)

    def merits(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans | Doubles:
        """(n, 1) squared errors, as shares of the targets' variance."""
        wanted = numbers(targets)
        variance = float(wanted.var()) or 1.0
        return np.asarray(np.square(numbers(predicted) - wanted) / variance)[:, None]

    def score(self, merits: Booleans | Doubles) -> float:
        return 1.0 - float(merits.mean())

    def trivial_score(self, targets: Sequence[str], inputs: Sequence[Input]) -> tuple[str, float]:
        return f"always answering {numbers(targets).mean():.6g}", 0.0
