"""Memory for a GPU's inputs, as far as it works without one: CUDA's two functions are stood in for."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from service.engine import Engine
from service.engine import pinned as module
from service.engine import session as sessions
from service.engine.pinned import PinnedMemory
from service.tasks.tokenizer import Tokens

PAGE = 4096


class Runtime:
    """Notes what is registered, as the CUDA runtime does."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.registered: dict[int, int] = {}

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int:
        if not self.code:
            self.registered[address.value] = size.value
        return self.code

    def cudaHostUnregister(self, address: Any) -> int:
        del self.registered[address.value]
        return 0


def test_whole_pages_are_registered_until_the_memory_is_let_go() -> None:
    runtime = Runtime()
    memory = PinnedMemory(runtime, 4 * PAGE)  # type: ignore[arg-type]
    ((address, size),) = runtime.registered.items()
    assert (address % PAGE, size) == (0, 4 * PAGE)
    values = memory.zeros((3, 2, 8))
    assert address <= values.ctypes.data < address + size
    del memory, values
    gc.collect()
    assert runtime.registered == {}


def test_values_are_zero_again_for_the_next_batch() -> None:
    memory = PinnedMemory(Runtime(), PAGE)  # type: ignore[arg-type]
    memory.zeros((3, 2, 8)).fill(7)
    ids, mask, types = memory.zeros((3, 4, 8))
    assert not ids.any()
    assert not mask.any()
    assert not types.any()
    assert all(array.flags.c_contiguous for array in (ids, mask, types))


def test_what_does_not_fit_lies_elsewhere() -> None:
    runtime = Runtime()
    memory = PinnedMemory(runtime, PAGE)  # type: ignore[arg-type]
    ((address, size),) = runtime.registered.items()
    values = memory.zeros((3, 32, 512))
    assert values.shape == (3, 32, 512)
    assert not values.any()
    assert not address <= values.ctypes.data < address + size


def test_memory_that_cannot_be_registered_is_an_error() -> None:
    with pytest.raises(OSError, match="failed with CUDA's error 35"):
        PinnedMemory(Runtime(code=35), PAGE)  # type: ignore[arg-type]


def test_where_there_is_no_runtime_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RUNTIMES", ("libcudart.so.none",))
    assert sessions._pinned() is None
    assert "ordinary memory: none of libcudart.so.none is loaded" in caplog.text


def test_an_engine_answers_the_same_from_such_memory(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session on the CPU stands in for the GPU's; the memory and the way to it are those of CUDA."""
    runtime = Runtime()
    monkeypatch.setattr(sessions, "cuda_runtime", lambda: runtime)
    monkeypatch.setitem(sessions._PROVIDERS, "cuda", "CPUExecutionProvider")
    monkeypatch.setattr(sessions, "_provider", lambda device, graphs: "CPUExecutionProvider")
    monkeypatch.delattr(ort, "preload_dlls", raising=False)
    file = repo / "reviews" / "1" / "model.int8.onnx"
    plain, engine = (Engine(file, device=device, threads=1, max_length=16) for device in ("cpu", "cuda"))
    assert (plain.pinned, engine.pinned) == (False, True)
    batches = [[Tokens(list(range(1, size)), [0] * (size - 1), False, 0.0)] * rows for size, rows in ((9, 3), (4, 1))]
    for batch in batches:
        np.testing.assert_array_equal(engine.run(batch).logits, plain.run(batch).logits)
    del engine
    gc.collect()
    assert runtime.registered == {}
