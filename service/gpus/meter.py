"""How busy a GPU is, read from the driver while something runs on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from emboundary.service.gpus.driver import import_nvml, visible

_DEFAULT_INTERVAL_S = 0.2  # the driver itself averages over a sixth of a second to a second, depending on the GPU


@dataclass(frozen=True)
class Reading:
    """One look at a GPU.

    Attributes:
        busy: share of the driver's last sampling period in which a kernel ran, 0 to 1; it says nothing of how much of
            the GPU that kernel filled.
        memory_busy: share of it in which memory was read or written, 0 to 1.
        used_bytes: memory in use, by everybody.
    """

    busy: float
    memory_busy: float
    used_bytes: int


class Meter:
    """Reads one GPU; as a context manager it also samples it in the background.

    Without nvidia-ml-py, a driver, or such a GPU every reading is None, and nothing is raised.

    Args:
        index: CUDA's number of the GPU in this process.
        interval_s: between two samples, in seconds.
    """

    def __init__(self, index: int = 0, interval_s: float = _DEFAULT_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._nvml, self._handle = _handle(index)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.samples: list[Reading] = []

    def read(self) -> Reading | None:
        """The GPU now; None where it cannot be read."""
        if self._handle is None:
            return None
        try:
            rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
            used = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._nvml.NVMLError:  # slices of a GPU (MIG) have no rates
            return None
        return Reading(rates.gpu / 100, rates.memory / 100, used)

    @property
    def mean_busy(self) -> float | None:
        """Mean of the samples' ``busy``; None without samples."""
        return sum(s.busy for s in self.samples) / len(self.samples) if self.samples else None

    @property
    def peak_bytes(self) -> int | None:
        """Most memory in use in any sample; None without samples."""
        return max((s.used_bytes for s in self.samples), default=None)

    def close(self) -> None:
        """Give the driver's handle back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._handle is not None:
            self._handle = None
            self._nvml.nvmlShutdown()

    def __enter__(self) -> Meter:
        if self._handle is not None:
            self._thread = threading.Thread(target=self._sample, name="gpu-meter", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            reading = self.read()
            if reading is not None:
                self.samples.append(reading)


def busy(index: int = 0) -> float | None:
    """Share of the driver's last sampling period in which the GPU ran a kernel, 0 to 1; None where nobody knows."""
    meter = Meter(index)
    try:
        reading = meter.read()
    finally:
        meter.close()
    return None if reading is None else reading.busy


def _handle(index: int) -> tuple[Any, Any]:
    """NVML, started, and its handle of a GPU; (NVML or None, None) where there is no such thing."""
    nvml: Any = import_nvml()
    uuids = {gpu.index: gpu.uuid for gpu in visible().gpus if gpu.uuid}
    if nvml is None or index not in uuids:
        return nvml, None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return nvml, None
    try:
        return nvml, nvml.nvmlDeviceGetHandleByUUID(uuids[index])
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        return nvml, None
