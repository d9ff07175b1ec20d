"""What ``emboundary doctor`` looks at: each check finds one thing out and, where it is wrong, knows the remedy.

Nothing here may need what it checks: the runtime is imported inside the checks, and a failure is a finding.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from emboundary.model.repository import DEFAULT_MODEL, ZOO, ModelError, list_models, load_model
from emboundary.service.errors import first_line

State = Literal["ok", "note", "failed"]

_OLDEST_PYTHON = (3, 11)
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        subject: what was looked at.
        state: ``failed`` where something that is needed does not work; ``note`` where it works, but not at its best.
        found: what is there, in one line.
        remedy: what to do; empty where nothing is to be done.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""


def diagnose(repository: Path = ZOO) -> list[Finding]:
    """Run all checks, the cheap ones first."""
    checks: tuple[Callable[[], Finding], ...] = (
        check_python,
        check_packages,
        check_runtime,
        check_gpu,
        lambda: check_models(repository),
        lambda: check_inference(repository),
    )
    return [check() for check in checks]


def check_python() -> Finding:
    """The interpreter's version."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Finding("Python", "failed", found, "use Python 3.11 or newer")
    return Finding("Python", "ok", f"{found} at {sys.executable}")


def check_packages() -> Finding:
    """Whether everything that serving needs is installed, in which version."""
    try:
        wanted = [r for r in requires("emboundary") or () if "extra ==" not in r]
    except PackageNotFoundError:
        return Finding("packages", "note", "emboundary is not installed, but run from a checkout", "pip install .")
    names = [match.group() for match in (re.match(r"[\w.-]+", requirement) for requirement in wanted) if match]
    versions = {name: _version(name) for name in names}
    missing = [name for name, found in versions.items() if found is None]
    if missing:
        return Finding("packages", "failed", f"missing: {', '.join(missing)}", "install emboundary again with pip")
    return Finding("packages", "ok", ", ".join(f"{name} {found}" for name, found in versions.items()))


def check_runtime() -> Finding:
    """Which build of ONNX Runtime is installed, and what it can run on."""
    installed = {name: found for name in _RUNTIMES if (found := _version(name)) is not None}
    if len(installed) > 1:
        return Finding(
            "ONNX Runtime",
            "failed",
            "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files",
            "pip uninstall onnxruntime onnxruntime-gpu, then install emboundary[cpu] or emboundary[gpu]",
        )
    if not installed:
        return Finding("ONNX Runtime", "failed", "not installed", "pip install emboundary[cpu] or emboundary[gpu]")
    ((name, found),) = installed.items()
    try:
        providers = importlib.import_module("onnxruntime").get_available_providers()
    except Exception as error:  # a damaged installation fails in any way
        return Finding(
            "ONNX Runtime", "failed", f"{name} {found}: {first_line(error)}", f"pip install --force-reinstall {name}"
        )
    short = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    return Finding("ONNX Runtime", "ok", f"{name} {found} for {short}")


def check_gpu() -> Finding:
    """Whether a GPU is visible and the CUDA libraries load; without a GPU all is well on the CPU."""
    count, reason = _visible_gpus()
    gpu_build = _version("onnxruntime-gpu") is not None
    if not count:
        remedy = "check the NVIDIA driver with nvidia-smi, or install emboundary[cpu]" if gpu_build else ""
        return Finding("GPU", "note" if gpu_build else "ok", f"none visible ({reason}): models run on the CPU", remedy)
    if not gpu_build:
        return Finding("GPU", "note", f"{reason}, but this ONNX Runtime is for CPUs", "install emboundary[gpu] instead")
    fault = _provider_fault()
    if fault:
        return Finding(
            "GPU", "failed", f"{reason}, but its libraries do not load: {fault}", "pip install emboundary[gpu] again"
        )
    return Finding("GPU", "ok", f"{reason}; the CUDA libraries load")


def check_models(repository: Path) -> Finding:
    """Whether the bundled models are there and unchanged."""
    found, faults = [], []
    for name in list_models(repository):
        try:
            description = load_model(name, repository).description
            found.append(f"{name} {description.version} ({str(description.sha256)[:8]})")
        except (ModelError, OSError) as error:
            faults.append(str(error))
    if faults:
        return Finding("models", "failed", "; ".join(faults), "install emboundary again")
    if DEFAULT_MODEL not in list_models(repository):
        return Finding("models", "failed", f"{repository} holds no model {DEFAULT_MODEL}", "install emboundary again")
    return Finding("models", "ok", ", ".join(found))


def check_inference(repository: Path) -> Finding:
    """Whether the default model runs here, and on what."""
    try:
        from emboundary.service.trial import run_default_model  # it imports the runtime, which may be what is missing

        reason = run_default_model(repository)
    except Exception as error:  # whatever keeps a model from running is what this check is for
        return Finding("inference", "failed", first_line(error), "mend what failed above")
    return Finding("inference", "ok", reason)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _visible_gpus() -> tuple[int, str]:
    """How many GPUs the driver shows this process, and that, or why none, in words."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, "no NVIDIA driver"
    code = driver.cuInit(0)
    count = ctypes.c_int()
    if code or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0, f"the NVIDIA driver answers error {code}"
    return count.value, f"{count.value} GPU{'s' if count.value != 1 else ''}"


def _provider_fault() -> str:
    """Why ONNX Runtime's CUDA library does not load; empty where it does."""
    runtime = importlib.import_module("onnxruntime")
    runtime.preload_dlls()
    folder = Path(str(runtime.__file__)).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return first_line(error)
    return ""
