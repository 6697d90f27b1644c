"""Recovery: the pruned model learns from the unpruned one what it lost, within a time limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from export.hardware import has_native_bfloat16
from export.predict import torch_inputs
from export.reference import choose_rows
from service.contract.bundle import Task
from service.engine import usable_cores
from service.tokenizer import Tokens

logger = logging.getLogger(__name__)

HELD_OUT = 0.1
MOST_HELD_OUT = 1_000
TEMPERATURE = 2.0
_WARM_UP = 0.1
_LOOKS = 8  # how often the held-out rows are looked at, where the time is enough for all steps
_PACE = 10  # after so many steps it is reckoned again how many the time allows


@dataclass(frozen=True)
class Lesson:
    """How to distil: at most ``epochs`` and ``minutes``, whichever ends first."""

    minutes: float = 3.0
    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int = 32
    hidden_weight: float = 1.0


@dataclass(frozen=True)
class Recovered:
    """What recovery did. Losses are the held-out rows' divergence from the teacher, before and at the kept step."""

    steps: int
    kept_step: int
    planned_steps: int
    loss_before: float
    loss_after: float
    losses: tuple[float, ...]
    train_rows: int
    held_out_rows: int
    seconds: float
    bfloat16: bool


def recover(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokens: Sequence[Tokens],
    task: Task,
    lesson: Lesson,
    *,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
) -> Recovered:
    """Train ``student`` in place to give the teacher's logits and hidden states on ``tokens``.

    A tenth of the rows is held out; the weights that come closest to the teacher's logits on it are kept, those before
    recovery included. Where the limit allows all epochs, the same seed gives the same weights on the same machine.
    """
    started = clock()
    held = set(choose_rows(len(tokens), max(1, min(MOST_HELD_OUT, round(HELD_OUT * len(tokens)))), seed))
    judged = [tokens[row] for row in sorted(held)]
    learned = [one for row, one in enumerate(tokens) if row not in held]
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    torch.manual_seed(seed)
    half = has_native_bfloat16()  # both models are on the CPU, whatever else there is
    wanted = _logits(teacher, judged, half)
    best = before = _divergence(_logits(student, judged, half), wanted, task)
    weights = _copy(student)
    losses: list[float] = []
    kept_step = step = 0
    total = planned = lesson.epochs * -(-len(learned) // lesson.batch_size)
    optimizer = torch.optim.AdamW(student.parameters(), lr=lesson.learning_rate, weight_decay=0.01)
    logger.info("recovery: at most %d steps of %d rows, %g minutes", total, lesson.batch_size, lesson.minutes)
    deadline, first_step = started + 60 * lesson.minutes, clock()
    batches = _batches(learned, lesson.batch_size, seed)
    done = clock() >= deadline
    while not done:
        _step(student, teacher, next(batches), task, lesson, optimizer, (step + 1) / planned, half)
        step += 1
        if step % _PACE == 0:
            each = (clock() - first_step) / step
            planned = min(total, step + int(0.95 * max(0.0, deadline - clock()) / each))
        done = step >= planned or clock() >= deadline
        if done or step % max(1, total // _LOOKS) == 0:
            losses.append(_divergence(_logits(student, judged, half), wanted, task))
            if losses[-1] < best:
                best, kept_step, weights = losses[-1], step, _copy(student)
            logger.info(
                "recovery: step %d of %d, held-out loss %.4f (%.4f before), %.0f s",
                step, planned, losses[-1], before, clock() - started,
            )  # fmt: skip
    student.load_state_dict(weights)
    return Recovered(
        step, kept_step, total, before, best, tuple(losses), len(learned), len(judged), clock() - started, half
    )


def _step(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: Sequence[Tokens], task: Task, lesson: Lesson,
    optimizer: torch.optim.Optimizer, share: float, half: bool,
) -> None:  # fmt: skip
    """Learn one batch, ``share`` of all training being done after it."""
    for group in optimizer.param_groups:
        group["lr"] = lesson.learning_rate * _schedule(share)
    loss = _loss(student, teacher, batch, task, lesson, half)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()


def _loss(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: Sequence[Tokens], task: Task, lesson: Lesson, half: bool
) -> torch.Tensor:
    inputs = torch_inputs(student, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        with torch.no_grad():
            shown = teacher(**inputs, output_hidden_states=True)
        given = student(**inputs, output_hidden_states=True)
    mask = inputs["attention_mask"].unsqueeze(-1).to(torch.float32)
    distances = [
        ((one.float() - other.float()).square() * mask).sum() / (other.float().square() * mask).sum()
        for one, other in zip(given.hidden_states[1:], shown.hidden_states[1:], strict=True)
    ]
    hidden = torch.stack(distances).mean()
    return _soft_loss(given.logits.float(), shown.logits.float(), task) + lesson.hidden_weight * hidden


def _soft_loss(given: torch.Tensor, shown: torch.Tensor, task: Task) -> torch.Tensor:
    """Divergence of softened answers, times the squared temperature so that its gradients keep their size."""
    if task == "single-label":
        one, other = (functional.log_softmax(logits / TEMPERATURE, dim=-1) for logits in (given, shown))
        return functional.kl_div(one, other, reduction="batchmean", log_target=True) * TEMPERATURE**2
    target = torch.sigmoid(shown / TEMPERATURE)
    return functional.binary_cross_entropy_with_logits(given / TEMPERATURE, target) * TEMPERATURE**2


def _divergence(given: torch.Tensor, shown: torch.Tensor, task: Task) -> float:
    """Mean Kullback-Leibler divergence from the teacher's answers, unsoftened."""
    if task == "single-label":
        one, other = functional.log_softmax(given, dim=-1), functional.log_softmax(shown, dim=-1)
        return float(functional.kl_div(one, other, reduction="batchmean", log_target=True))
    target = torch.sigmoid(shown)
    own = functional.binary_cross_entropy_with_logits(shown, target)
    return float(functional.binary_cross_entropy_with_logits(given, target) - own)


def _logits(model: PreTrainedModel, tokens: Sequence[Tokens], half: bool) -> torch.Tensor:
    """(n, labels) logits in the order of ``tokens``."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    logits = torch.empty(len(tokens), model.config.num_labels)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            logits[rows] = model(**torch_inputs(model, [tokens[row] for row in rows])).logits.float()
    return logits


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


def _schedule(share: float) -> float:
    """Learning rate over training: up linearly during the first tenth, then down to nothing."""
    return min(share / _WARM_UP, (1 - share) / (1 - _WARM_UP) + 1e-3)


def _copy(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
