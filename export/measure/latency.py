"""Latency of several models side by side on the same texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from scipy.stats import binom
from transformers import PreTrainedModel

from export.inference.predict import torch_inputs
from service.contract.bundle import Latency
from service.engine import SLOWER_FUSED, Engine
from service.tasks.tokenizer import Tokens

SECONDS = 3.0
_TEXTS = 200
_TURN = 20

Run = Callable[[Tokens], object]


@dataclass(frozen=True)
class Timed:
    """What one model took, in milliseconds: median with its 95 % confidence interval, and 95th percentile."""

    p50: float
    p50_range: tuple[float, float]
    p95: float

    def latency(self, name: str, size: int, hardware: str, tokens: int) -> Latency:
        """For a manifest; one text on one thread of ``hardware``, ``tokens`` at the median."""
        return Latency(
            name=name,
            p50_ms=self.p50,
            p95_ms=self.p95,
            p50_range_ms=self.p50_range,
            hardware=hardware,
            threads=1,
            batch=1,
            tokens=tokens,
            bytes=size,
        )


def torch_run(model: PreTrainedModel) -> Run:
    """The checkpoint in PyTorch on one text."""

    def run(tokens: Tokens) -> object:
        with torch.no_grad():
            return model(**torch_inputs(model, [tokens]))

    return run


def graph_run(graph: Path, *, as_served: bool = True) -> Run:
    """A graph on one text, not padded, on one thread of the CPU.

    ``as_served`` with the optimisations of our engine; otherwise with ONNX Runtime's defaults, as others would run it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    disabled = SLOWER_FUSED["cpu"] if as_served else []
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    declared = {node.name for node in session.get_inputs()}

    def run(tokens: Tokens) -> object:
        rows = {"input_ids": tokens.ids, "attention_mask": [1] * len(tokens), "token_type_ids": tokens.type_ids}
        feeds = {name: np.array([row], dtype=np.int64) for name, row in rows.items() if name in declared}
        return session.run(None, feeds)

    return run


def engine_run(engine: Engine) -> Run:
    """An exported graph on one text, through the serving engine."""
    return lambda tokens: engine.run([tokens])


def time_in_turns(
    runs: Mapping[str, Run],
    tokens: Sequence[Tokens],
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Run each on up to 200 texts, PyTorch on one thread; about ``seconds`` each, at least 200 runs.

    They take turns of 20 texts: often, so that a busy moment of the machine hits them alike; not more often, because
    each would find the caches full of the others' weights, as no server does.
    """
    spread = spread_out(tokens)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for run in runs.values():
            for one in spread[:5]:
                run(one)
        deadline = clock() + seconds * len(runs)
        turns = 0
        while turns == 0 or (turns * len(spread) < _TEXTS and clock() < deadline):
            turns += 1
            for start in range(0, len(spread), _TURN):
                for name, run in runs.items():
                    for one in spread[start : start + _TURN]:
                        started = clock()
                        run(one)
                        taken[name].append(1000 * (clock() - started))
    finally:
        torch.set_num_threads(threads)
    return {name: _timed(np.array(values)) for name, values in taken.items()}


def spread_out(tokens: Sequence[Tokens]) -> list[Tokens]:
    """Up to 200 of the texts, evenly over their order."""
    return [tokens[int(index)] for index in np.linspace(0, len(tokens) - 1, min(_TEXTS, len(tokens)))]


def _timed(taken: npt.NDArray[np.float64]) -> Timed:
    """The interval is that of order statistics: how many of n runs may fall below the median is binomial."""
    ordered, count = np.sort(taken), len(taken)
    low, high = binom.interval(0.95, count, 0.5)
    ends = float(ordered[max(0, int(low) - 1)]), float(ordered[min(count - 1, int(high))])
    return Timed(float(np.percentile(taken, 50)), ends, float(np.percentile(taken, 95)))
