"""Host memory that a GPU reads by itself.

Copies to a device from ordinary memory go through a buffer of the driver, because pages may move while a GPU reads
them. Those of registered memory may not, and every copy from it takes the direct way without being told (CUDA Runtime
API, Memory Management, ``cudaHostRegister``).
"""

from __future__ import annotations

import ctypes
import mmap
import weakref

import numpy as np
import numpy.typing as npt

_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")  # found by these names once ONNX Runtime has loaded one
_BYTES = 4 << 20  # 170,000 tokens in a batch; page-locked memory is taken from everyone


class PinnedMemory:
    """Memory for the inputs of one batch at a time. :raises OSError: if it cannot be registered with CUDA."""

    def __init__(self, runtime: ctypes.CDLL, size: int = _BYTES) -> None:
        memory = mmap.mmap(-1, size)  # begins with a page
        self._values = np.frombuffer(memory, dtype=np.int64)
        address = ctypes.c_void_p(self._values.ctypes.data)
        if code := runtime.cudaHostRegister(address, ctypes.c_size_t(size), ctypes.c_uint(0)):
            raise OSError(f"cudaHostRegister failed with CUDA's error {code}")
        weakref.finalize(self, _release, runtime, address, self._values)

    def zeros(self, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Zeros of this shape, until the next call; what is too large lies in ordinary memory."""
        size = int(np.prod(shape))
        if size > len(self._values):
            return np.zeros(shape, dtype=np.int64)
        values = self._values[:size].reshape(shape)
        values.fill(0)
        return values


def cuda_runtime() -> ctypes.CDLL:
    """The CUDA runtime of this process. :raises OSError: if there is none."""
    for name in _RUNTIMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"none of {', '.join(_RUNTIMES)} is loaded or installed")


def _release(runtime: ctypes.CDLL, address: ctypes.c_void_p, values: npt.NDArray[np.int64]) -> None:
    """``values`` keep the memory until here."""
    runtime.cudaHostUnregister(address)
