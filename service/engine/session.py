"""One ONNX Runtime session for one variant of a bundle."""

from __future__ import annotations

import bisect
import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.contract.errors import PlumblineError
from service.engine.captured import Captured
from service.engine.pinned import PinnedMemory, cuda_runtime
from service.tasks.tokenizer import Tokens

logger = logging.getLogger(__name__)

Device = Literal["cpu", "cuda"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OUTPUTS = ["logits", "embedding"]
_PER_TOKEN = 3  # axes of logits that are (n, tokens, labels)

# On CPUs the fused operator is slower than the addition and the normalisation that it replaces: leaving it out made
# int8 MiniLM 9 to 14 % faster at 16 to 64 tokens.
SLOWER_FUSED: dict[Device, list[str]] = {"cpu": ["SkipLayerNormFusion"], "cuda": []}


class EngineError(PlumblineError):
    """The model cannot be loaded or run on the device that was asked for."""

    code = "engine"


@dataclass(frozen=True, slots=True)
class Outputs:
    """``logits`` (units, labels) and ``embedding`` (n, hidden), both float32, in the order of the inputs.

    A unit is an input, or one of its tokens where the graph says something of each.
    """

    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


def length_grid(max_length: int) -> tuple[int, ...]:
    """Padded lengths that are served: 8, 16, 24, 32, then steps of a quarter up to ``max_length``.

    A fixed grid keeps ONNX Runtime's memory flat (onnxruntime#9313) and lets every shape be warmed.
    """
    grid = [length for length in (8, 16, 24, 32) if length < max_length]
    while grid and (following := (grid[-1] * 5 // 4 + 7) // 8 * 8) < max_length:
        grid.append(following)
    return (*grid, max_length)


class Engine:
    """Runs padded batches. Not re-entrant by design of its callers: one thread runs it at a time.

    :param pad_id: the token that fills up shorter rows. Some models look for it, whatever the attention mask says.
    :param graphs: run each shape as a CUDA graph (:mod:`service.engine.captured`). Batches are then padded with rows,
        too, and always run on the thread that warmed up.
    On CUDA, inputs lie in page-locked memory where it can be had (``pinned``).
    :raises EngineError: if the file cannot be loaded, or ONNX Runtime fell back from the device asked for.
    """

    def __init__(
        self, model: Path, *, device: Device, threads: int, max_length: int, pad_id: int = 0, graphs: bool = False
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        try:
            if device == "cuda" and hasattr(ort, "preload_dlls"):
                with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find
                    ort.preload_dlls()
            self._session = ort.InferenceSession(
                model, options, providers=[_provider(device, graphs)], disabled_optimizers=SLOWER_FUSED[device]
            )
        except Exception as error:  # ONNX Runtime raises many types without a common base
            raise EngineError(f"{model} cannot be loaded on {device}: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if self.provider != _PROVIDERS[device]:
            raise EngineError(
                f"{model} was to run on {device} and ONNX Runtime fell back to {self.provider}. "
                "Check the driver and CUDA libraries, or set --device cpu."
            )
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._grid = length_grid(max_length)
        self._pad_id = pad_id
        self._padded_rows = padded_rows if graphs else int
        pinned = _pinned() if device == "cuda" else None
        self._zeros = pinned.zeros if pinned is not None else _zeros
        self.pinned = pinned is not None
        self._run = Captured(self._session, _OUTPUTS, device).run if graphs else partial(self._session.run, _OUTPUTS)

    def padded_length(self, tokens: int) -> int:
        """The grid length that ``tokens`` is padded to."""
        return self._grid[min(bisect.bisect_left(self._grid, tokens), len(self._grid) - 1)]

    def run(self, batch: Sequence[Tokens]) -> Outputs:
        """Run one batch, padded to the grid length of its longest text. :raises EngineError: if inference fails."""
        length = self.padded_length(max(len(tokens) for tokens in batch))
        rows = self._padded_rows(len(batch))
        inputs = self._zeros((3, rows, length))
        ids, mask, types = inputs[0], inputs[1], inputs[2]
        ids.fill(self._pad_id)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens.ids
            mask[row, : len(tokens)] = 1
            types[row, : len(tokens)] = tokens.type_ids
        mask[len(batch) :, 0] = 1  # a row without any token would be divided by zero
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        declared = {name: array for name, array in feeds.items() if name in self._inputs}
        try:
            logits, embedding = (output[: len(batch)] for output in self._run(declared))
        except Exception as error:  # as above
            raise EngineError(f"inference failed on a batch of {len(batch)} x {length} tokens: {error}") from error
        if logits.ndim == _PER_TOKEN:
            logits = logits[mask[: len(batch)].astype(np.bool_)]
        return Outputs(logits.astype(np.float32, copy=False), embedding.astype(np.float32, copy=False))

    def warm_up(self, tokens: int = 0) -> None:
        """Run every grid length once, so that no request pays for a first run.

        :param tokens: also run larger batches, up to so many padded tokens: a GPU loads other kernels for them.
        """
        for length in self._grid:
            text = Tokens([0] * length, [0] * length, truncated=False, unk_share=0.0)
            rows = 1
            self.run([text])
            while (rows + 1) * length <= tokens:
                rows = padded_rows(rows + 1)
                self.run([text] * rows)


def padded_rows(rows: int) -> int:
    """Rows of a batch of fixed shape: 1 to 8, then four steps for each doubling."""
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step


def _zeros(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.zeros(shape, dtype=np.int64)


def _pinned() -> PinnedMemory | None:
    try:
        return PinnedMemory(cuda_runtime())
    except OSError as error:
        logger.warning("inputs are copied to the GPU from ordinary memory: %s", error)
        return None


def _provider(device: Device, graphs: bool) -> str | tuple[str, dict[str, str]]:
    """ONNX Runtime's provider with its options: memory grows by what is asked for, not to twice as much."""
    if device == "cpu":
        return _PROVIDERS[device]
    options = {"arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": str(int(graphs))}
    return _PROVIDERS[device], options
