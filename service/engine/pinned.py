"""Host memory that a GPU reads and writes by itself: pages that cannot be swapped out are copied at the bus's rate.

The memory belongs to numpy; CUDA is asked to lock its pages (``cudaHostRegister``).  Where it declines, the memory is
as good as any other, and copies take longer.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class Staging:
    """One reusable buffer; it grows, and never shrinks.

    Args:
        pinned: whether pages are locked: for a GPU.

    Attributes:
        locked: whether they are.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._bytes: Bytes = np.empty(0, np.uint8)
        self.locked = False

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array in the buffer, which is the buffer's one user until the next call."""
        needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if needed > self._bytes.size:
            self._bytes = np.empty(needed, np.uint8)
            self.locked = self._pinned and _lock(self._bytes)
        return self._bytes[:needed].view(dtype).reshape(shape)


def _lock(array: Bytes) -> bool:
    runtime = _cuda_runtime()
    address, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
    if runtime is None or runtime.cudaHostRegister(address, size, ctypes.c_uint(0)):
        return False
    weakref.finalize(array, runtime.cudaHostUnregister, address)
    return True


@lru_cache(maxsize=1)
def _cuda_runtime() -> Any:
    """The CUDA runtime that ONNX Runtime has loaded; None where there is none."""
    for name in ("libcudart.so.13", "libcudart.so.12"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
