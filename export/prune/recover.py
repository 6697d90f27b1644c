"""Recovery: the pruned model learns from the unpruned one what it lost, within a time limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from export.hardware import has_native_bfloat16
from export.inference.predict import by_row, in_order, torch_inputs, unit_logits
from export.inference.reference import choose_rows
from export.tasks import training_of
from export.tasks.training import Logits
from service.engine import usable_cores
from service.tasks import Task
from service.tasks.tokenizer import Tokens

logger = logging.getLogger(__name__)

HELD_OUT = 0.1
MOST_HELD_OUT = 500
_LOOKS = 4  # how often the held-out rows are looked at, beside a first time after half of the first part
_SLOWER = 0.25
_PACE = 10  # the steps by which it is reckoned how many the time allows
_WARM_UP = 20  # not fewer than those, because the learning rate must not depend on what is reckoned later
_OVERTIME = 1.5  # a machine that became slower may take this much longer than was reckoned


@dataclass(frozen=True)
class RecoveryPlan:
    """How to distil: at most ``epochs`` and ``minutes``, whichever ends first; or exactly what ``again`` says."""

    minutes: float = 3.0
    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    hidden_weight: float = 100.0
    again: tuple[int, int] | None = None


@dataclass(frozen=True)
class Recovered:
    """What recovery did: ``steps`` of a schedule for ``planned_steps``, of which the weights at ``kept_step`` are kept.

    Losses are the held-out rows' divergence from the teacher, before and at the kept step.
    """

    steps: int
    planned_steps: int
    kept_step: int
    loss_before: float
    loss_after: float
    losses: tuple[float, ...]
    train_rows: int
    held_out_rows: int
    seconds: float
    device: str


def recover(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokens: Sequence[Tokens],
    task: Task,
    recovery: RecoveryPlan,
    *,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
) -> Recovered:
    """Train ``student`` in place to give the teacher's logits and hidden states; on a GPU if there is one.

    A tenth of the rows is held out; the weights that come closest to the teacher's logits on it are kept, those before
    recovery included. Whenever a look at them finds the student further away than before, it goes on from the best
    weights with a quarter of the learning rate: the rate that brings a deeply cut model back drives one away that has
    lost little. The embeddings, which pruning leaves alone, are not trained: they are half of the parameters, and on
    SST-2 the student came closer without. The same steps, planned and done, give the same weights on the same
    processor.
    """
    started = clock()
    held = set(choose_rows(len(tokens), max(1, min(MOST_HELD_OUT, round(HELD_OUT * len(tokens)))), seed))
    judged = [tokens[row] for row in sorted(held)]
    learned = [one for row, one in enumerate(tokens) if row not in held]
    torch.manual_seed(seed)
    embeddings = cast(nn.Module, student.base_model.embeddings)
    with _on_best_device(student, teacher) as device, _frozen(embeddings):
        pair = _Pair(student, teacher, task, device)
        wanted = pair.logits(teacher, judged)
        best = before = training_of(task).divergence(pair.logits(student, judged), wanted)
        weights, kept_step, losses = _copy(student), 0, [before]
        batches = _batches(learned, recovery.batch_size, seed)
        schedule = _Schedule(recovery, -(-len(learned) // recovery.batch_size), started, clock)
        peak = recovery.learning_rate
        learning = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=peak, weight_decay=0.01)
        for step in schedule:
            for group in optimizer.param_groups:
                group["lr"] = peak * schedule.rate(step)
            loss = pair.loss(next(batches), recovery.hidden_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            if schedule.is_look(step):
                losses.append(training_of(task).divergence(pair.logits(student, judged), wanted))
                if losses[-1] < best:
                    best, kept_step, weights = losses[-1], step, _copy(student)
                else:
                    student.load_state_dict(weights)
                    peak *= _SLOWER
                    optimizer = torch.optim.AdamW(learning, lr=peak, weight_decay=0.01)
                logger.info(
                    "recovery: step %d of %d, held-out loss %.4f (%.4f before), %.0f s",
                    step,
                    schedule.planned,
                    losses[-1],
                    before,
                    clock() - started,
                )
        student.load_state_dict(weights)
    return Recovered(
        steps=schedule.done,
        planned_steps=schedule.planned,
        kept_step=kept_step,
        loss_before=before,
        loss_after=best,
        losses=tuple(losses),
        train_rows=len(learned),
        held_out_rows=len(judged),
        seconds=clock() - started,
        device=device,
    )


class _Schedule:
    """The steps of a lesson, from 1: how many, at which learning rate, and when the held-out rows are looked at.

    How many the time allows is decided once, after the first few, so that two numbers are enough to do it all again.
    """

    def __init__(self, recovery: RecoveryPlan, epoch: int, started: float, clock: Callable[[], float]) -> None:
        self._recovery_plan, self._clock, self._started = recovery, clock, started
        self._total = recovery.epochs * epoch
        self.planned, self._last = recovery.again or (self._total, self._total)
        self.done = 0

    def __iter__(self) -> Iterator[int]:
        limit = 60 * self._recovery_plan.minutes
        first = self._clock()
        timed = self._recovery_plan.again is None
        while self.done < self._last:
            if timed and (self._clock() - self._started) > limit * (1 if self.done < _PACE else _OVERTIME):
                break
            self.done += 1
            yield self.done
            if timed and self.done == _PACE:
                now = self._clock()
                left = max(0.0, self._started + limit - now)
                more = max(1, int(0.95 * left * _PACE / max(now - first, 1e-9)))
                self.planned = self._last = min(self._total, _PACE + more)

    def rate(self, step: int) -> float:
        """Share of the peak rate: up linearly at first, then down to nothing."""
        if step <= _WARM_UP:
            return step / _WARM_UP
        return (self.planned - step) / max(1, self.planned - _WARM_UP) + 1e-3

    def is_look(self, step: int) -> bool:
        if step <= _PACE:
            return step == self.planned
        part = max(1, self.planned // _LOOKS)
        return step in (self.planned, part // 2) or step % part == 0


@dataclass(frozen=True)
class _Pair:
    student: PreTrainedModel
    teacher: PreTrainedModel
    task: Task
    device: str

    def loss(self, batch: Sequence[Tokens], hidden_weight: float) -> torch.Tensor:
        inputs = self._inputs(batch)
        with self._half():
            with torch.no_grad():
                shown = self.teacher(**inputs, output_hidden_states=True)
            given = self.student(**inputs, output_hidden_states=True)
        mask = inputs["attention_mask"].unsqueeze(-1).to(torch.float32)
        distances = [
            ((one.float() - other.float()).square() * mask).sum() / (other.float().square() * mask).sum()
            for one, other in zip(given.hidden_states[1:], shown.hidden_states[1:], strict=True)
        ]
        hidden = torch.stack(distances).mean()
        own, wanted = (unit_logits(one.logits.float(), inputs["attention_mask"]) for one in (given, shown))
        return training_of(self.task).softened_loss(own, wanted) + hidden_weight * hidden

    def logits(self, model: PreTrainedModel, tokens: Sequence[Tokens]) -> Logits:
        """(units, labels) logits in the order of ``tokens``."""
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        found: dict[int, Logits] = {}
        with torch.no_grad(), self._half():
            for start in range(0, len(order), 64):
                rows = order[start : start + 64]
                inputs = self._inputs([tokens[row] for row in rows])
                found |= zip(rows, by_row(model(**inputs).logits, inputs["attention_mask"]), strict=True)
        return in_order(found)

    def _inputs(self, batch: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.device) for name, tensor in torch_inputs(self.student, batch).items()}

    def _half(self) -> torch.autocast:
        enabled = torch.cuda.is_bf16_supported() if self.device == "cuda" else has_native_bfloat16()
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def _on_best_device(*models: nn.Module) -> Iterator[str]:
    """Move the models to the GPU, if PyTorch has one, and back."""
    if not torch.cuda.is_available():
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
        yield "cpu"
        return
    try:
        for model in models:
            model.to(device="cuda")
        yield "cuda"
    finally:
        for model in models:
            model.to(device="cpu")


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Leave a module's parameters out of training."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _batches(tokens: Sequence[Tokens], size: int, seed: int) -> Iterator[list[Tokens]]:
    """Endless batches of rows of like length: shuffled, sorted within blocks of 16 batches, and shuffled again."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(tokens))
        blocks = [order[start : start + 16 * size] for start in range(0, len(order), 16 * size)]
        batches = []
        for block in blocks:
            rows = sorted(block, key=lambda row: len(tokens[row]))
            batches += [rows[start : start + size] for start in range(0, len(rows), size)]
        for place in rng.permutation(len(batches)):
            yield [tokens[row] for row in batches[place]]


def _copy(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
