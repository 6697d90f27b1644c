"""Trying one graph on the search rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel

from export.graph.quantize import Quantized
from export.inference.predict import batched_logits, checkpoint_logits, load_engine, unit_rows
from export.judge.gate import flip_rate
from export.judge.paired import compared, standard_error
from export.search.estimate import Estimate, Judge
from export.tasks import training_of
from export.tasks.training import Logits
from service.contract.bundle import Scheme
from service.contract.dataset import Dataset
from service.tasks import Task
from service.tasks.task import Booleans, Doubles
from service.tasks.tokenizer import TextTokenizer, Tokens

ANSWERS = "answers.npy"  # beside each graph: its logits of the search rows


class Trial(BaseModel):
    """A graph in ``file`` (relative to the search's folder) and how it answered the search rows; see ``Candidate``.

    ``step`` is the pruning step that its ``model`` came from, 0 for none. Of ``rows`` it has ``gained`` some and
    ``lost`` some against the checkpoint. ``estimate`` and ``error`` are those of :mod:`export.search.estimate`, in
    points.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    step: int
    model: str
    speedup: float
    scheme: Scheme
    rows: int
    gained: int | None
    lost: int | None
    accuracy: float
    difference: float
    lower_bound: float
    estimate: float
    error: float
    divergence: float
    batch_flip_rate: float
    quantized: int
    bytes: int

    @property
    def name(self) -> str:
        return f"{self.model}, {self.scheme.name}"


@dataclass(frozen=True)
class SearchRows:
    """Rows that candidates are compared on, and the checkpoint's answers to them."""

    tokens: Sequence[Tokens]
    targets: Sequence[str]
    judge: Judge
    labels: Sequence[str]
    task: Task
    pad_id: int = 0

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: TextTokenizer, rows: Dataset, labels: Sequence[str], task: Task
    ) -> SearchRows:
        tokens = tokenizer(rows.texts)
        likelihood = training_of(task).likelihood
        has = likelihood.has(rows.targets, labels) if likelihood is not None else None
        judge = Judge(checkpoint_logits(model, tokens), has, task)
        answers = task.answers(task.probabilities(judge.wanted), labels, tokens)
        return cls(tokens, task.truth(rows.targets, answers), judge, labels, task, tokenizer.pad_id)

    @property
    def baseline(self) -> float:
        return self.task.score(self._merits(self.judge.wanted))

    def of_rows(self, rows: npt.NDArray[np.intp]) -> SearchRows:
        """Some of the rows only."""
        tokens, targets = ([every[row] for row in rows] for every in (self.tokens, self.targets))
        judge = self.judge.of_units(unit_rows(self.task, self.tokens, rows))
        return replace(self, tokens=tokens, targets=targets, judge=judge)

    def halves(self, trials: Sequence[Trial], folder: Path) -> list[list[Trial]]:
        """What the trials come to on the even rows alone, and on the odd ones alone."""
        every = np.arange(len(self.tokens))
        logits = {one.file: np.load((folder / one.file).with_name(ANSWERS)) for one in trials}
        found = []
        for rows in (every[::2], every[1::2]):
            half, units = self.of_rows(rows), unit_rows(self.task, self.tokens, rows)
            found.append([one.model_copy(update=half.figures(logits[one.file][units])) for one in trials])
        return found

    def trial(self, made: Quantized, folder: Path, *, step: int, model: str, speedup: float) -> Trial:
        """Answer every row by itself, and in batches, as the gate will; float32 answers as the checkpoint does."""
        logits = batched = self.judge.wanted
        if made.scheme.method != "none":
            longest = max(map(len, self.tokens))
            engine = load_engine(made.file, device="cpu", threads=1, max_length=longest, pad_id=self.pad_id)
            logits = np.concatenate([engine.run([one]).logits for one in self.tokens])
            batched = batched_logits(engine, self.tokens)
        np.save(made.file.with_name(ANSWERS), logits)
        return Trial(
            file=made.file.relative_to(folder).as_posix(),
            step=step,
            model=model,
            speedup=speedup,
            scheme=made.scheme,
            divergence=training_of(self.task).divergence(logits, self.judge.wanted),
            batch_flip_rate=flip_rate(self.task, self._labels(logits), self._labels(batched)),
            quantized=made.matmuls,
            bytes=made.bytes,
            **self.figures(logits),
        )

    def figures(self, logits: Logits) -> dict[str, Any]:
        """How accurate a model with these answers is, as :class:`Trial` names it."""
        merits = self._merits(logits)
        paired = compared(self.task, self._merits(self.judge.wanted), merits)
        estimate = self.judge.estimate(logits, Estimate(100 * paired.difference, 100 * standard_error(paired)))
        return {
            "rows": paired.rows,
            "gained": paired.gained,
            "lost": paired.lost,
            "accuracy": self.task.score(merits),
            "difference": 100 * paired.difference,
            "lower_bound": 100 * paired.lower,
            "estimate": estimate.points,
            "error": estimate.error,
        }

    def _labels(self, logits: Logits) -> list[str]:
        return self.task.answers(self.task.probabilities(logits), self.labels, self.tokens)

    def _merits(self, logits: Logits) -> Booleans | Doubles:
        return self.task.merits(self._labels(logits), self.targets)
