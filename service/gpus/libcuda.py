"""The driver's own library, called directly: what can be known of GPUs where nvidia-ml-py is not installed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LIBRARY = "libcuda.so.1"
# CUdevice_attribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and ..._MINOR.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class CudaDevice:
    """What libcuda says of one GPU.

    Attributes:
        memory_bytes: in all; how much of it is free only a process that uses the GPU is told.
    """

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]


class Cuda:
    """libcuda, not started yet.

    Raises:
        OSError: it is not there.
    """

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(_LIBRARY)

    def version(self) -> int:
        """Newest CUDA that the driver supports, 1000 major + 10 minor; 0 where it does not say."""
        number = ctypes.c_int()
        return 0 if self._library.cuDriverGetVersion(ctypes.byref(number)) else number.value

    def start(self) -> tuple[int, str] | None:
        """Start CUDA in this process; the error's number and its words, or None where it went well."""
        code = int(self._library.cuInit(0))
        if not code:
            return None
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(code, ctypes.byref(text))
        return code, f" ({text.value.decode(errors='replace')})" if text.value else ""

    def devices(self) -> Iterator[CudaDevice]:
        """The GPUs that this process sees, in CUDA's order."""
        count = ctypes.c_int()
        if self._library.cuDeviceGetCount(ctypes.byref(count)):
            return
        for index in range(count.value):
            device = ctypes.c_int()
            if self._library.cuDeviceGet(ctypes.byref(device), index):
                continue
            name, total = ctypes.create_string_buffer(256), ctypes.c_size_t()
            self._library.cuDeviceGetName(name, len(name), device)
            self._library.cuDeviceTotalMem_v2(ctypes.byref(total), device)
            capability = self._attribute(_MAJOR, device), self._attribute(_MINOR, device)
            yield CudaDevice(name.value.decode(errors="replace"), total.value, capability)

    def _attribute(self, attribute: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        return value.value
