from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from emboundary.service.gpus import driver, libcuda
from emboundary.service.gpus.driver import Driver, Gpu, visible
from emboundary.service.gpus.meter import Meter, busy
from emboundary.service.gpus.selection import selected

GIB = 2**30
UUIDS = ["GPU-aa11", "GPU-ab22", "GPU-cc33"]


class Nvml(SimpleNamespace):
    """A stand-in for pynvml: three GPUs, started and stopped as often as NVML itself wants it."""

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818
        pass

    class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801, N818
        pass

    class NVMLError_LibRmVersionMismatch(NVMLError):  # noqa: N801, N818
        pass

    def __init__(self, count: int = 3, error: type[Exception] | None = None) -> None:
        super().__init__(sessions=0, count=count, error=error, rates=[50])

    def nvmlInit(self) -> None:  # noqa: N802
        if self.error:
            raise self.error("what NVML says")
        self.sessions += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.sessions -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 13010

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self.count)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return UUIDS[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid.startswith("MIG-no"):
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"NVIDIA {handle[4:]}"

    def nvmlDeviceGetMemoryInfo(self, _: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=80 * GIB, free=60 * GIB, used=20 * GIB)

    def nvmlDeviceGetCudaComputeCapability(self, _: str) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlDeviceGetUtilizationRates(self, _: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self.rates.pop(0) if len(self.rates) > 1 else self.rates[0], memory=25)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvml]:
    def install(**how: Any) -> Nvml:
        fake = Nvml(**how)
        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        return fake

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(driver, "kernel_module", lambda: "580.95.05")
    return install


class Cuda:
    """A stand-in for libcuda's library."""

    def __init__(self, gpus: int = 0, error: int = 0, version: int = 13000) -> None:
        self.gpus, self.error, self.number = gpus, error, version

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.error

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = self.number
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, _: int, device: Any) -> int:  # noqa: N802
        name.value = f"NVIDIA {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, total: Any, _: Any) -> int:  # noqa: N802
        total._obj.value = 16 * GIB
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _: Any) -> int:  # noqa: N802
        value._obj.value = {75: 7, 76: 5}[attribute]
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: N802
        text._obj.value = f"words of {code}".encode()
        return 0


@pytest.fixture
def without_nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cuda | None], None]:
    def install(cuda: Cuda | None) -> None:
        def load(name: str) -> Cuda:
            if cuda is None:
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")
            return cuda

        monkeypatch.setattr(libcuda.ctypes, "CDLL", load)

    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(driver, "kernel_module", lambda: None)
    return install


def test_nvml_names_driver_and_gpus(nvml: Callable[..., Nvml]) -> None:
    fake = nvml(count=1)
    gpu = Gpu(0, "NVIDIA aa11", 80 * GIB, 60 * GIB, (9, 0), "GPU-aa11")
    assert visible() == Driver("580.95.05", (13, 1), (gpu,))
    assert fake.sessions == 0


def test_only_the_gpus_that_cuda_shows_count_and_in_its_order(
    nvml: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert [(gpu.index, gpu.name) for gpu in visible().gpus] == [(0, "NVIDIA cc33"), (1, "NVIDIA aa11")]


def test_a_slice_that_does_not_exist_ends_the_list(nvml: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,MIG-none,0")
    assert [gpu.name for gpu in visible().gpus] == ["NVIDIA ab22"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0,1,2", UUIDS),
        ("1", ["GPU-ab22"]),
        ("", []),
        ("-1", []),
        ("1,7,0", ["GPU-ab22"]),
        ("0,0", []),
        ("GPU-ab", ["GPU-ab22"]),
        ("GPU-a", []),
        ("MIG-77, 1", ["MIG-77", "GPU-ab22"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(value: str, found: list[str]) -> None:
    assert selected(UUIDS, value) == found


def test_without_the_variable_all_gpus_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert selected(UUIDS) == UUIDS


def test_hidden_gpus_are_told_from_absent_ones(nvml: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (visible().fault, visible().reason) == ("hidden", "CUDA_VISIBLE_DEVICES is '' and shows no GPU of 3")
    nvml(count=0)
    assert (visible().fault, visible().reason) == ("none", "the NVIDIA driver sees no GPU")


@pytest.mark.parametrize(
    ("error", "fault", "reason"),
    [
        ("NVMLError_DriverNotLoaded", "stopped", "the NVIDIA driver is installed, but not loaded"),
        ("NVMLError_LibRmVersionMismatch", "mismatched", "the NVIDIA driver's library is of another version than its"),
        ("NVMLError", "failed", "the NVIDIA driver answers: what NVML says"),
    ],
)
def test_a_driver_that_does_not_answer_is_described(
    nvml: Callable[..., Nvml], error: str, fault: str, reason: str
) -> None:
    nvml(error=getattr(Nvml, error))
    found = visible()
    assert (found.fault, found.version, found.gpus) == (fault, "580.95.05", ())
    assert found.reason.startswith(reason)


def test_without_nvml_the_driver_itself_is_asked(without_nvml: Callable[[Cuda | None], None]) -> None:
    without_nvml(Cuda(gpus=2))
    found = visible()
    assert found.cuda_version == (13, 0)
    assert found.gpus == (
        Gpu(0, "NVIDIA 0", 16 * GIB, None, (7, 5)),
        Gpu(1, "NVIDIA 1", 16 * GIB, None, (7, 5)),
    )


def test_a_container_with_cuda_and_no_nvml_is_asked_so_too(
    nvml: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml(error=Nvml.NVMLError_LibraryNotFound)
    monkeypatch.setattr(libcuda.ctypes, "CDLL", lambda _: Cuda(gpus=1))
    assert [gpu.name for gpu in visible().gpus] == ["NVIDIA 0"]


@pytest.mark.parametrize(
    ("cuda", "variable", "fault", "reason"),
    [
        (None, None, "absent", "no NVIDIA driver is found (libcuda.so.1)"),
        (Cuda(error=100), None, "none", "the NVIDIA driver sees no GPU"),
        (Cuda(error=100), "3", "hidden", "CUDA_VISIBLE_DEVICES is '3' and shows no GPU"),
        (Cuda(error=803), None, "failed", "the NVIDIA driver answers error 803 (words of 803)"),
    ],
)
def test_no_gpu_has_its_reason(
    without_nvml: Callable[[Cuda | None], None],
    monkeypatch: pytest.MonkeyPatch,
    cuda: Cuda | None,
    variable: str | None,
    fault: str,
    reason: str,
) -> None:
    without_nvml(cuda)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert (visible().fault, visible().reason) == (fault, reason)


def test_the_modules_version_is_read_from_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    path = tmp_path / "version"
    monkeypatch.setattr(driver, "_KERNEL_MODULE", path)
    assert driver.kernel_module() is None
    path.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version: 12\n"
    )
    assert driver.kernel_module() == "580.95.05"


def test_a_meter_samples_until_it_is_left(nvml: Callable[..., Nvml]) -> None:
    fake = nvml()
    fake.rates = [100, 50, 0]
    with Meter(1, interval_s=0.001) as meter:
        while len(meter.samples) < 3:
            pass
    taken = len(meter.samples)
    assert [reading.busy for reading in meter.samples[:3]] == [1.0, 0.5, 0.0]
    assert meter.mean_busy == pytest.approx(1.5 / taken)
    assert (meter.peak_bytes, meter.samples[0].memory_busy) == (20 * GIB, 0.25)
    assert fake.sessions == 0


def test_the_load_of_a_gpu_is_a_share(nvml: Callable[..., Nvml]) -> None:
    fake = nvml()
    assert busy(2) == 0.5
    assert fake.sessions == 0


def test_where_nothing_can_be_read_there_is_no_load(
    nvml: Callable[..., Nvml], without_nvml: Callable[[Cuda | None], None]
) -> None:
    without_nvml(None)
    assert busy() is None
    nvml(count=1)
    assert busy(1) is None
    with Meter(1) as meter:
        assert meter.read() is None
    assert (meter.mean_busy, meter.peak_bytes) == (None, None)


def test_the_real_loader_is_asked_without_harm() -> None:
    assert isinstance(visible(), Driver)
