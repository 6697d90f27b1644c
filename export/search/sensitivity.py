"""Which multiplications suffer most from int8, each alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from export.graph.quantize import multiplications, quantize_only
from export.inference.predict import load_engine
from export.tasks import training_of
from service.contract.bundle import Scheme
from service.engine import Engine
from service.tasks import Task
from service.tasks.tokenizer import Tokens

logger = logging.getLogger(__name__)

ROWS = 64
_SHARES = (0.5, 0.8)


def sensitivity(
    raw: Path,
    tokens: Sequence[Tokens],
    task: Task,
    work: Path,
    *,
    pad_id: int,
    target: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """The divergence of the answers on ``tokens`` that each multiplication causes when it alone is in int8.

    Largest first; nothing if the first one shows that all would take longer than ``seconds``. ``work`` is scratch.
    """
    longest = max(map(len, tokens))
    model, alone = onnx.load(raw), work / "one.onnx"
    wanted = _logits(load_engine(raw, device="cpu", threads=1, max_length=longest, pad_id=pad_id), tokens)
    found: dict[str, float] = {}
    nodes, started = multiplications(model), clock()
    for node in nodes:
        if len(found) == 1 and (clock() - started) * len(nodes) > seconds:
            logger.info("sensitivity: not measured, %d multiplications would take too long", len(nodes))
            return {}
        quantize_only(model, node, alone, target=target)
        engine = load_engine(alone, device="cpu", threads=1, max_length=longest, pad_id=pad_id)
        given = _logits(engine, tokens)
        found[node] = training_of(task).divergence(given, wanted)
    alone.unlink()
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def mixed_schemes(divergences: Mapping[str, float]) -> list[Scheme]:
    """Schemes that leave the fewest nodes in float which cause half, and four fifths, of all divergence."""
    names = list(divergences)
    if not names:
        return []
    summed = np.cumsum(list(divergences.values()))
    counts = sorted({int(np.searchsorted(summed, share * summed[-1])) + 1 for share in _SHARES})
    return [Scheme(method="dynamic", float_nodes=tuple(names[:count])) for count in counts if count < len(names)]


def _logits(engine: Engine, tokens: Sequence[Tokens]) -> np.ndarray:
    return np.concatenate([engine.run([one]).logits for one in tokens])
