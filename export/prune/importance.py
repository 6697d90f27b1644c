"""How much the loss depends on each head and each neuron: gradients of masks that are all one.

Kwon et al. 2022 (arXiv 2204.09656): the loss grows by about half the Fisher information of the mask's entries that
are set to zero. Its diagonal is the mean square of a unit's gradient over examples; its off-diagonal part, kept within
a layer, tells which units stand in for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from export.inference.predict import BATCH, torch_inputs, unit_logits, unit_rows
from export.prune.architecture import layers_of
from export.prune.surgery import Mask, masked
from export.tasks import training_of
from service.tasks import Task
from service.tasks.tokenizer import Tokens

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Gradients:
    """One layer's mask gradients, a row per example: ``heads`` (rows, heads) and ``neurons`` (rows, neurons)."""

    heads: Floats
    neurons: Floats


def mask_gradients(
    model: PreTrainedModel, tokens: Sequence[Tokens], targets: npt.NDArray[np.int64 | np.float32], task: Task
) -> list[Gradients]:
    """The gradients of each example's own loss, layer by layer; ``targets`` as :meth:`TrainingTask.encode`."""
    layers = layers_of(model)
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    found: list[list[list[Floats]]] = [[[], []] for _ in layers]
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        masks = [
            Mask(
                torch.ones(len(rows), layer.heads, requires_grad=True),
                torch.ones(len(rows), layer.neurons, requires_grad=True),
            )
            for layer in layers
        ]
        with masked(model, masks):
            inputs = torch_inputs(model, [tokens[row] for row in rows])
            logits = unit_logits(model(**inputs).logits, inputs["attention_mask"])
        # Summed, so that each mask row's gradient is that of its own example.
        loss = training_of(task).summed_loss(logits, torch.from_numpy(targets[unit_rows(task, tokens, rows)]))
        flat = [tensor for mask in masks for tensor in (mask.heads, mask.neurons)]
        for place, gradient in enumerate(torch.autograd.grad(loss, flat, allow_unused=True)):
            given = np.zeros((len(rows), 0), dtype=np.float32) if gradient is None else gradient.numpy()
            found[place // 2][place % 2].append(given)
    return [Gradients(np.concatenate(heads), np.concatenate(neurons)) for heads, neurons in found]


@dataclass(frozen=True)
class Removal:
    """In which order a layer's units go, the least missed first; ``loss[k]`` is what k removed ones cost together."""

    order: tuple[int, ...]
    loss: npt.NDArray[np.float64]

    def kept(self, count: int) -> tuple[int, ...]:
        return tuple(sorted(self.order[len(self.order) - count :]))


def removal(gradients: Floats, *, correlated: float = 0.25) -> Removal:
    """Greedy elimination by the Fisher information (mean over examples) of one layer's heads or neurons.

    ``correlated`` between 0 and 1 weighs the off-diagonal part: with 0 units go in the order of their own importance,
    above it a unit that stands in for one already gone becomes dearer. This does at once what the paper does in two
    steps, search by the diagonal and rearrangement within layers. On CLINC150 with MiniLM, cut to about 1.6 times the
    speed and reconstructed, a weight of 0 lost 3.3 points, 0.25 and 0.5 lost 2.2, and 0.75 lost 21.
    """
    rows, units = gradients.shape
    wide = gradients.astype(np.float64)
    fisher = wide.T @ wide / max(rows, 1)
    diagonal = fisher.diagonal().copy()
    fisher *= correlated
    marginal = diagonal.copy()  # what removing each would add to the loss, given those that are gone
    left = np.ones(units, dtype=np.bool_)
    order, loss = [], [0.0]
    for _ in range(units):
        unit = int(np.where(left, marginal, np.inf).argmin())
        order.append(unit)
        loss.append(loss[-1] + 0.5 * marginal[unit])
        left[unit] = False
        marginal += 2 * fisher[unit]
    return Removal(tuple(order), np.maximum.accumulate(np.array(loss)))
