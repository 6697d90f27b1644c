"""Latency of the checkpoint and the exported graphs, side by side on the same texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from export.predict import torch_inputs
from service.contract.bundle import Latency
from service.engine import Engine
from service.tokenizer import Tokens

SECONDS = 3.0
_TEXTS = 200

Run = Callable[[Tokens], object]


def torch_run(model: PreTrainedModel) -> Run:
    """The checkpoint in PyTorch on one text."""

    def run(tokens: Tokens) -> object:
        with torch.no_grad():
            return model(**torch_inputs(model, [tokens]))

    return run


def engine_run(engine: Engine) -> Run:
    """An exported graph on one text, through the serving engine."""
    return lambda tokens: engine.run([tokens])


def measure(
    runs: Mapping[str, tuple[Run, int]],
    tokens: Sequence[Tokens],
    *,
    hardware: str,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Latency, ...]:
    """p50 and p95 in milliseconds at batch 1 on one thread; ``runs`` maps a name to (what to run, bytes on disk).

    All candidates take turns on each text, so that a busy moment of the machine hits them alike.
    """
    spread = [tokens[int(index)] for index in np.linspace(0, len(tokens) - 1, min(_TEXTS, len(tokens)))]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for run, _ in runs.values():
            for one in spread[:5]:
                run(one)
        deadline = clock() + seconds
        for one in spread:
            for name, (run, _) in runs.items():
                started = clock()
                run(one)
                taken[name].append(1000 * (clock() - started))
            if clock() > deadline:
                break
    finally:
        torch.set_num_threads(threads)
    middle = int(np.median([len(one) for one in spread]))
    return tuple(
        Latency(
            name=name,
            p50_ms=float(np.percentile(taken[name], 50)),
            p95_ms=float(np.percentile(taken[name], 95)),
            hardware=hardware,
            threads=1,
            batch=1,
            tokens=middle,
            bytes=size,
        )
        for name, (_, size) in runs.items()
    )
