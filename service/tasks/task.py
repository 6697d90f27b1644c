"""What a task decides about a model's outputs, in numpy: one object for each, and nothing else asks for its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.contract.inputs import Input
from service.tasks.tokenizer import Tokens

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


class Task(Protocol):
    """How logits become answers; the same in the gate, the reference and the service.

    Logits are (units, labels): a row for each text, or for each of its tokens where the task is ``per_token``, special
    tokens included, text after text.

    An answer is a string, as it is logged, compared and sent back as feedback; so is a target, the true answer.
    ``name`` is what manifests store, ``problem_type`` what transformers calls it in a checkpoint's config.json,
    ``metric`` what its score is called, ``categorical`` whether answers are made of a fixed set of labels,
    ``several`` whether one may have several of them, or none, and ``vector`` whether they are vectors, which nobody can
    say the true ones of.
    """

    @property
    def name(self) -> str: ...

    @property
    def problem_type(self) -> str | None: ...

    @property
    def metric(self) -> str: ...

    @property
    def categorical(self) -> bool: ...

    @property
    def several(self) -> bool: ...

    @property
    def per_token(self) -> bool: ...

    @property
    def vector(self) -> bool: ...

    @property
    def trivial(self) -> str:
        """The answer that takes no model, as a sentence begins: "Always answering the most frequent label"."""
        ...

    @property
    def settings(self) -> Mapping[str, float | bool | str]:
        """What the task was told beside its name; stored in manifests."""
        ...

    def described(self, labels: Sequence[str]) -> str:
        """What such a model is, for people: "single-label text classifier for 2 labels (no, yes)"."""
        ...

    def fitted(self, targets: Sequence[str]) -> Task:
        """The task with what it takes from training targets, if it takes anything."""
        ...

    def problem(self, target: str, given: Input) -> str | None:
        """What is wrong with the target of an input, as the end of a sentence, or None."""
        ...

    def classes(self, labels: Sequence[str]) -> Sequence[str]:
        """What answers are made of, where the outputs are called ``labels``; nothing if they are numbers."""
        ...

    def outputs_of(self, classes: Sequence[str]) -> Sequence[str]:
        """What the outputs for these classes are called: the other direction of :meth:`classes`."""
        ...

    def as_labels(self, answer: str) -> str:
        """The classes in an answer, joined as labels are, whatever else it says."""
        ...

    def logged(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        """What is kept of the answer to each text in the log and the reference."""
        ...

    def truth(self, targets: Sequence[str], answers: Sequence[str]) -> Sequence[str]:
        """What rows are judged by: their targets, or where there are none the checkpoint's ``answers``."""
        ...

    def probabilities(self, logits: Floats) -> Floats:
        """(units, labels) of the (units, labels) logits; scores, where they are no probabilities."""
        ...

    def decided(self, probs: Floats) -> Booleans:
        """(units, labels), whether each label is in the answer."""
        ...

    def answers(self, probs: Floats, labels: Sequence[str], tokens: Sequence[Tokens]) -> list[str]:
        """The answer to each text."""
        ...

    def confidences(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        """(n,) probability that the answer to each text is right; NaN where none is given."""
        ...

    def by_text(self, probs: Floats, tokens: Sequence[Tokens]) -> Floats:
        """(n, labels): what is logged of each text's probabilities."""
        ...

    def named(self, answer: str) -> Sequence[str]:
        """The classes in an answer, each of which counts by itself in metrics."""
        ...

    def correct(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans:
        """(n,) whether each answer is right, or near enough."""
        ...

    def same(self, answers: Sequence[str], others: Sequence[str]) -> Booleans:
        """(n,) whether two answers are one, or so near that nobody would act otherwise."""
        ...

    def merits(self, predicted: Sequence[str], targets: Sequence[str]) -> Booleans | Doubles:
        """What the score is made of, row by row: (n,) whether it is right, or (n, k) figures whose means tell."""
        ...

    def score(self, merits: Booleans | Doubles) -> float:
        """The metric over all rows; at most 1, the more the better."""
        ...

    def trivial_score(self, targets: Sequence[str], inputs: Sequence[Input]) -> tuple[str, float]:
        """What takes no model, in words, "always answering 'yes'", and its score on these rows."""
        ...
