"""Why models do not run on a GPU here: which link of the chain is the first that does not hold.

Python package -> driver -> a GPU that shows -> CUDA libraries -> cuDNN -> kernels for this GPU -> its memory
"""

from __future__ import annotations

from emboundary.service.gpus.container import GIVE_GPUS, in_container
from emboundary.service.gpus.driver import Driver, kernel_module, visible
from emboundary.service.gpus.failures import essence, known_failure
from emboundary.service.gpus.libraries import missing
from emboundary.service.gpus.missing import Missing
from emboundary.service.gpus.runtime import CUDA_PROVIDER, Runtime, installed
from emboundary.service.gpus.selection import VARIABLE

REINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'emboundary[gpu]'"

# The oldest driver of each CUDA (NVIDIA, "CUDA Compatibility", minor version compatibility, table 1: branches 525 and
# 580), and the oldest GPUs that its compiler makes code for.
_OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
_OLDEST_CAPABILITY = {12: (5, 0), 13: (7, 5)}


def why_no_cuda(error: BaseException | None = None) -> Missing:
    """What is missing for models to run on a GPU, and what to install.

    Args:
        error: what the runtime raised when it was asked to, if it came to that.
    """
    runtime, driver = installed(), visible()
    broken = broken_link(runtime, driver)
    if broken is not None:
        return broken
    if error is None:
        return Missing("other", "no fault of driver, libraries or GPU is found", "run `emboundary doctor`")
    known = known_failure(error)
    if known is None:
        return Missing("other", f"the runtime fails on it ({essence(error)})", "run `emboundary doctor`")
    if known.link == "memory" and driver.gpus and driver.gpus[0].free_bytes is not None:
        free, total = (n / 2**30 for n in (driver.gpus[0].free_bytes, driver.gpus[0].memory_bytes))
        return Missing(known.link, f"{known.what}: {free:.1f} of {total:.1f} GiB are free", known.remedy)
    return known


def broken_link(runtime: Runtime, driver: Driver) -> Missing | None:
    """The first link that can be seen to be missing without running anything; None where all hold."""
    return _without_runtime(runtime) or why_no_gpu(runtime, driver) or missing(CUDA_PROVIDER, runtime)


def why_no_gpu(runtime: Runtime, driver: Driver) -> Missing | None:
    """What the driver lacks for this runtime; None where there is a GPU that both can use."""
    return _old_driver(runtime, driver) or _without_gpu(driver) or _old_gpus(runtime, driver)


def _without_runtime(runtime: Runtime) -> Missing | None:
    if len(runtime.packages) > 1:
        both = " and ".join(sorted(runtime.packages))
        return Missing("runtime", f"{both} are both installed and overwrite each other's files", REINSTALL)
    if runtime.error is not None:
        if not runtime.packages:
            return Missing("runtime", "ONNX Runtime is not installed", "pip install 'emboundary[gpu]'")
        return Missing("runtime", f"ONNX Runtime does not import ({essence(runtime.error)})", REINSTALL)
    if CUDA_PROVIDER not in runtime.providers:
        name = " ".join(next(iter(runtime.packages.items()), ("this", "ONNX Runtime")))
        return Missing("runtime", f"{name} is a build without CUDA", f"to use a GPU, {REINSTALL}")
    return None


def _without_gpu(driver: Driver) -> Missing | None:
    if driver.gpus or driver.fault is None:
        return None
    if driver.fault == "hidden":
        return Missing("gpu", driver.reason, f"unset {VARIABLE}, or name GPUs that `nvidia-smi -L` lists")
    if driver.fault == "mismatched":
        return Missing("driver", driver.reason, "reboot, or load the new kernel module: the driver was updated")
    if in_container() and driver.fault in ("absent", "none"):
        host = kernel_module()
        there = f"; the host runs driver {host}" if host else ""
        return Missing("gpu", f"this container was given no GPU: {driver.reason}{there}", GIVE_GPUS)
    if driver.fault == "absent":
        return Missing("driver", driver.reason, "install the NVIDIA driver; nvidia-smi then lists the GPUs")
    if driver.fault == "stopped":
        return Missing("driver", driver.reason, "sudo modprobe nvidia; nvidia-smi tells why it does not start")
    if driver.fault == "none":
        return Missing("gpu", driver.reason, "check the card with `lspci | grep -i nvidia` and `nvidia-smi -L`")
    return Missing("driver", driver.reason, "run nvidia-smi, which asks the same driver; a reboot often helps")


def _old_driver(runtime: Runtime, driver: Driver) -> Missing | None:
    if runtime.cuda_version is None or driver.cuda_version is None or driver.cuda_version[0] >= runtime.cuda_version[0]:
        return None
    wanted = runtime.cuda_version[0]
    oldest = f": {_OLDEST_DRIVER[wanted]} or newer" if wanted in _OLDEST_DRIVER else ""
    return Missing(
        "driver",
        f"NVIDIA driver {driver.version or 'of unknown version'} supports CUDA {_dotted(driver.cuda_version)}, and "
        f"this ONNX Runtime needs CUDA {wanted}",
        f"install a newer NVIDIA driver{oldest}" + (", on the host of this container" if in_container() else ""),
    )


def _old_gpus(runtime: Runtime, driver: Driver) -> Missing | None:
    wanted = runtime.cuda_version[0] if runtime.cuda_version else 0
    oldest = _OLDEST_CAPABILITY.get(wanted, (0, 0))
    if not driver.gpus or any(gpu.compute_capability >= oldest for gpu in driver.gpus):
        return None
    gpu = driver.gpus[0]
    return Missing(
        "gpu",
        f"{gpu.name} has compute capability {_dotted(gpu.compute_capability)}, and CUDA {wanted} supports "
        f"{_dotted(oldest)} and newer",
        f"use a newer GPU, or an onnxruntime-gpu that was built for CUDA {wanted - 1}",
    )


def _dotted(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]}.{numbers[1]}"
