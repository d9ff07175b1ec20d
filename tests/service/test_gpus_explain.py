"""The errors with names are ONNX Runtime 1.31.0's own, recorded without a GPU: drivers that know none or are too old,
no cuDNN, a misspelt option.  Those that only a GPU can raise are CUDA's error strings."""

from __future__ import annotations

from typing import Any

import pytest

from emboundary.service.gpus import explain
from emboundary.service.gpus.driver import Driver, Fault, Gpu
from emboundary.service.gpus.explain import broken_link, why_no_cuda
from emboundary.service.gpus.failures import essence, known_failure
from emboundary.service.gpus.missing import Missing
from emboundary.service.gpus.runtime import CUDA_PROVIDER, TENSORRT_PROVIDER, Runtime

GIB = 2**30
_WRAPPED = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, "
    "const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, "
    "void, common::Status> = void] {} ; GPU=-1 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(info_.device_id); \n\n"
)
NO_DEVICE = _WRAPPED.format("CUDA failure 100: no CUDA-capable device is detected")
OLD_DRIVER = _WRAPPED.format("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version")
MIXED_DRIVER = _WRAPPED.format("CUDA failure 803: system has unsupported display driver / cuda driver combination")
NO_CUDNN = (
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Non-zero status code returned while running Conv node. "
    "Name:'node_conv2d' Status Message: /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_kernel.h:296 static "
    "cudnnContext* onnxruntime::cuda::CudaKernel::RequireCudnnHandle(cudnnHandle_t) [ONNXRuntimeError] : 9 : "
    "NOT_IMPLEMENTED : cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for libcudnn.so: "
    "libcudnn.so: cannot open shared object file: No such file or directory\n"
)
UNKNOWN_OPTION = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
    "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const "
    "onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:182 Parse Unknown "
    'provider option: "nonsense_option".\n'
)

GPU_BUILD = Runtime({"onnxruntime-gpu": "1.31.0"}, (TENSORRT_PROVIDER, CUDA_PROVIDER, "CPUExecutionProvider"), (13, 0))
H100 = Gpu(0, "NVIDIA H100", 80 * GIB, 3 * GIB, (9, 0), "GPU-1")
WORKING = Driver("580.95.05", (13, 0), (H100,))


def without(fault: Fault, reason: str = "what the driver says", **more: Any) -> Driver:
    return Driver(fault=fault, reason=reason, **more)


@pytest.fixture(autouse=True)
def on_bare_metal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No container, and libraries that load, whatever this machine is."""
    monkeypatch.setattr(explain, "in_container", lambda: False)
    monkeypatch.setattr(explain, "missing", lambda *_: None)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in place, as far as can be seen without running anything."""
    monkeypatch.setattr(explain, "installed", lambda: GPU_BUILD)
    monkeypatch.setattr(explain, "visible", lambda: WORKING)


@pytest.mark.parametrize(
    ("build", "what", "remedy"),
    [
        (Runtime({}, error=ImportError("no")), "ONNX Runtime is not installed", "pip install 'emboundary[gpu]'"),
        (
            Runtime({"onnxruntime": "1.31.1"}, ("CPUExecutionProvider",)),
            "onnxruntime 1.31.1 is a build without CUDA",
            "to use a GPU, pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'emboundary[gpu]'",
        ),
        (
            Runtime({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.0"}, (CUDA_PROVIDER,)),
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'emboundary[gpu]'",
        ),
        (
            Runtime({"onnxruntime-gpu": "1.31.0"}, error=ImportError("libfoo.so: cannot open shared object file")),
            "ONNX Runtime does not import (libfoo.so: cannot open shared object file)",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'emboundary[gpu]'",
        ),
    ],
)
def test_the_wheel_comes_first(build: Runtime, what: str, remedy: str) -> None:
    assert broken_link(build, without("absent")) == Missing("runtime", what, remedy)


@pytest.mark.parametrize(
    ("driver", "link", "what", "remedy"),
    [
        (
            without("absent"),
            "driver",
            "what the driver says",
            "install the NVIDIA driver; nvidia-smi then lists the GPUs",
        ),
        (
            without("stopped"),
            "driver",
            "what the driver says",
            "sudo modprobe nvidia; nvidia-smi tells why it does not",
        ),
        (without("mismatched"), "driver", "what the driver says", "reboot, or load the new kernel module"),
        (without("hidden"), "gpu", "what the driver says", "unset CUDA_VISIBLE_DEVICES, or name GPUs"),
        (without("none"), "gpu", "what the driver says", "check the card with `lspci"),
        (without("failed"), "driver", "what the driver says", "run nvidia-smi"),
        (
            without("none", version="550.54.15", cuda_version=(12, 4)),
            "driver",
            "NVIDIA driver 550.54.15 supports CUDA 12.4, and this ONNX Runtime needs CUDA 13",
            "install a newer NVIDIA driver: 580.65.06 or newer",
        ),
        (
            Driver("580.95.05", (13, 0), (Gpu(0, "Tesla V100", 16 * GIB, None, (7, 0)),)),
            "gpu",
            "Tesla V100 has compute capability 7.0, and CUDA 13 supports 7.5 and newer",
            "use a newer GPU, or an onnxruntime-gpu that was built for CUDA 12",
        ),
    ],
)
def test_then_the_driver_and_a_gpu(driver: Driver, link: str, what: str, remedy: str) -> None:
    found = broken_link(GPU_BUILD, driver)
    assert found is not None
    assert (found.link, found.what) == (link, what)
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize("fault", ["absent", "none"])
def test_a_container_without_gpus_says_how_to_give_it_some(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setattr(explain, "in_container", lambda: True)
    monkeypatch.setattr(explain, "kernel_module", lambda: None)
    found = broken_link(GPU_BUILD, without(fault))
    assert found is not None
    assert found.what == "this container was given no GPU: what the driver says"
    assert found.remedy.startswith("give it some: `docker run --gpus all`")
    assert "NVIDIA Container Toolkit" in found.remedy


def test_a_container_knows_its_hosts_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "in_container", lambda: True)
    monkeypatch.setattr(explain, "kernel_module", lambda: "580.95.05")
    found = broken_link(GPU_BUILD, without("absent", "no driver"))
    assert found is not None
    assert found.what == "this container was given no GPU: no driver; the host runs driver 580.95.05"


def test_a_newer_driver_serves_an_older_cuda() -> None:
    assert broken_link(Runtime(GPU_BUILD.packages, GPU_BUILD.providers, (12, 8)), WORKING) is None


def test_then_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Missing("cudnn", "cuDNN is missing: libcudnn.so.9", "pip install nvidia-cudnn-cu13")
    monkeypatch.setattr(explain, "missing", lambda *_: absent)
    assert broken_link(GPU_BUILD, WORKING) == absent


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "link", "what", "remedy"),
    [
        (NO_DEVICE, "gpu", "CUDA sees no GPU (CUDA failure 100: no CUDA-capable device is detected)", "check with"),
        (
            OLD_DRIVER,
            "driver",
            "the NVIDIA driver is too old for this ONNX Runtime (CUDA failure 35: CUDA",
            "install a n",
        ),
        (MIXED_DRIVER, "driver", "the NVIDIA driver's library and its kernel module are of different", "reboot after"),
        (
            NO_CUDNN,
            "cudnn",
            "cuDNN does not load (cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for "
            "libcudnn.so: libcudnn.so: cannot open shared object file: No such file or directory)",
            "pip install emboundary[gpu] brings it",
        ),
        (
            UNKNOWN_OPTION,
            "runtime",
            "this version of onnxruntime-gpu does not know an option that is needed (Unknown provider option: "
            '"nonsense_option")',
            "pip install --upgrade emboundary[gpu]",
        ),
        (
            "CUDA failure 209: no kernel image is available for execution on the device ; GPU=0",
            "gpu",
            "this ONNX Runtime holds no kernels for this GPU (CUDA failure 209: no kernel image is available for",
            "use a GPU",
        ),
        (
            "CUDA failure 2: out of memory ; GPU=0",
            "memory",
            "the GPU's memory does not suffice (CUDA failure 2: out of memory): 3.0 of 80.0 GiB are free",
            "end what else uses the GPU",
        ),
        (
            "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 8589934592",
            "memory",
            "the GPU's memory does not suffice (Failed to allocate memory for requested buffer of size 8589934592)",
            "end what else uses the GPU",
        ),
        (
            "CUDA failure 802: system not yet initialized ; GPU=0",
            "driver",
            "the NVIDIA driver says that",
            "on machines",
        ),
        (
            "CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable",
            "gpu",
            "another process holds",
            "end that",
        ),
        (
            "CUDA failure 999: unknown error ; GPU=0",
            "driver",
            "the NVIDIA driver fails with an unknown",
            "run nvidia-smi",
        ),
        (
            "a new kind of trouble\nand its trace",
            "other",
            "the runtime fails on it (a new kind of trouble)",
            "run `embo",
        ),
    ],
)
def test_last_the_runtimes_own_words(words: str, link: str, what: str, remedy: str) -> None:
    found = why_no_cuda(RuntimeError(words))
    assert found.link == link
    assert found.what.startswith(what)
    assert found.remedy.startswith(remedy)
    assert "onnxruntime_src" not in found.what
    assert "\n" not in found.what


@pytest.mark.usefixtures("here")
def test_without_any_fault_none_is_made_up() -> None:
    assert why_no_cuda() == Missing("other", "no fault of driver, libraries or GPU is found", "run `emboundary doctor`")


def test_a_cause_is_understood_as_well_as_the_error_itself() -> None:
    try:
        try:
            raise RuntimeError(OLD_DRIVER)
        except RuntimeError as error:
            raise ValueError("model.onnx is no model that ONNX Runtime can load") from error
    except ValueError as error:
        found, heart = known_failure(error), essence(error)
    assert found is not None
    assert found.link == "driver"
    assert heart == "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"


def test_a_long_text_is_cut() -> None:
    assert essence(RuntimeError("x" * 300)) == "x" * 200 + "..."
