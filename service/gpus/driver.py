"""The NVIDIA driver and the GPUs that it shows this process.

NVML is asked first, through nvidia-ml-py: it starts no CUDA in this process and knows how much memory is free.  Where
that package or library is absent, ``libcuda`` is asked itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from emboundary.service.gpus.libcuda import Cuda
from emboundary.service.gpus.selection import VARIABLE, selected

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")

# absent: no driver library; stopped: its kernel module does not answer; mismatched: the library is of another version
# than the module; hidden: CUDA_VISIBLE_DEVICES shows none; none: the driver sees no GPU; failed: anything else.
Fault = Literal["absent", "stopped", "mismatched", "hidden", "none", "failed"]


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: CUDA's number for it in this process, what ``device_id`` means.
        name: the product's name.
        memory_bytes: in all.
        free_bytes: now; None where it cannot be known without using the GPU.
        compute_capability: (major, minor) of the instructions that it knows.
        uuid: names it across processes; empty where it is not known.
    """

    index: int
    name: str
    memory_bytes: int
    free_bytes: int | None
    compute_capability: tuple[int, int]
    uuid: str = ""


@dataclass(frozen=True)
class Driver:
    """What the driver says.

    Attributes:
        version: of the driver, e.g. ``580.95.05``; None where it is not known.
        cuda_version: newest CUDA (major, minor) that it supports; None where it is not known.
        gpus: those that this process may use, in CUDA's order.
        fault: why there are none; None where there are.
        reason: the same in words; empty where there are GPUs.
    """

    version: str | None = None
    cuda_version: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    fault: Fault | None = None
    reason: str = ""


def visible() -> Driver:
    """The driver and the GPUs that this process may use; never raises."""
    pynvml = import_nvml()
    if pynvml is None:
        return _by_libcuda()
    try:
        with nvml_session(pynvml):
            return _by_nvml(pynvml)
    except pynvml.NVMLError_LibraryNotFound:
        return _by_libcuda()  # some containers are given CUDA without NVML
    except pynvml.NVMLError_DriverNotLoaded:
        return Driver(kernel_module(), fault="stopped", reason="the NVIDIA driver is installed, but not loaded")
    except pynvml.NVMLError_LibRmVersionMismatch:
        reason = "the NVIDIA driver's library is of another version than its kernel module"
        return Driver(kernel_module(), fault="mismatched", reason=reason)
    except pynvml.NVMLError as error:
        return Driver(kernel_module(), fault="failed", reason=f"the NVIDIA driver answers: {error}")


def kernel_module() -> str | None:
    """Version of the driver's module in the running kernel, which a container sees too; None where there is none."""
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", _KERNEL_MODULE.read_text())
    except OSError:
        return None
    return found.group() if found else None


def import_nvml() -> ModuleType | None:
    """The module of nvidia-ml-py; None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    module: ModuleType = pynvml
    return module


@contextmanager
def nvml_session(pynvml: Any) -> Iterator[None]:
    """NVML, started and stopped again; sessions may overlap."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _by_nvml(pynvml: Any) -> Driver:
    version = pynvml.nvmlSystemGetDriverVersion()
    cuda_version = _cuda_version(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    uuids = selected([pynvml.nvmlDeviceGetUUID(handle) for handle in handles])
    gpus: list[Gpu] = []
    for index, uuid in enumerate(uuids):
        try:
            gpus.append(_gpu(pynvml, index, uuid))
        except pynvml.NVMLError:
            if not uuid.startswith("MIG-"):
                raise
            break  # a slice that does not exist ends CUDA's list
    return _driver(version, cuda_version, tuple(gpus), len(handles))


def _gpu(pynvml: Any, index: int, uuid: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index,
        pynvml.nvmlDeviceGetName(handle),
        int(memory.total),
        int(memory.free),
        tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        uuid,
    )


def _by_libcuda() -> Driver:
    try:
        cuda = Cuda()
    except OSError:
        return Driver(kernel_module(), fault="absent", reason="no NVIDIA driver is found (libcuda.so.1)")
    cuda_version = _cuda_version(cuda.version())
    fault = cuda.start()
    if fault:
        # 100 is CUDA_ERROR_NO_DEVICE: the driver works, and has nothing to show.
        if fault[0] == 100:
            return _driver(kernel_module(), cuda_version, (), None)
        reason = f"the NVIDIA driver answers error {fault[0]}{fault[1]}"
        return Driver(kernel_module(), cuda_version, fault="failed", reason=reason)
    gpus = tuple(Gpu(i, d.name, d.memory_bytes, None, d.compute_capability) for i, d in enumerate(cuda.devices()))
    return _driver(kernel_module(), cuda_version, gpus, None)


def _driver(version: str | None, cuda: tuple[int, int] | None, gpus: tuple[Gpu, ...], count: int | None) -> Driver:
    """Where no GPU shows, the variable that can hide them is to blame unless the driver counts none itself."""
    if gpus:
        return Driver(version, cuda, gpus)
    setting = os.environ.get(VARIABLE)
    if setting is None or count == 0:
        return Driver(version, cuda, fault="none", reason="the NVIDIA driver sees no GPU")
    of = f" of {count}" if count else ""
    return Driver(version, cuda, fault="hidden", reason=f"{VARIABLE} is {setting!r} and shows no GPU{of}")


def _cuda_version(number: int) -> tuple[int, int] | None:
    """1000 major + 10 minor, as CUDA counts."""
    return (number // 1000, number % 1000 // 10) if number > 0 else None
