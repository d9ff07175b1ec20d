"""The installed build of ONNX Runtime: what it can run on, and which CUDA it was made for."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
_LIBRARIES = {CUDA_PROVIDER: "cuda", TENSORRT_PROVIDER: "tensorrt"}


@dataclass(frozen=True)
class Runtime:
    """What is installed.

    Attributes:
        packages: name and version of every distribution that installs the module; more than one is a fault.
        providers: what this build can run on, by ONNX Runtime's names; empty where it does not import.
        cuda_version: (major, minor) that it was built with; None for a build without CUDA.
        folder: of its shared libraries; None where it does not import.
        error: why it does not import; None where it does.
    """

    packages: dict[str, str]
    providers: tuple[str, ...] = ()
    cuda_version: tuple[int, int] | None = None
    folder: Path | None = None
    error: Exception | None = None

    def library(self, provider: str) -> Path | None:
        """The provider's shared library; None where this build has none."""
        if self.folder is None or provider not in self.providers:
            return None
        path = self.folder / f"libonnxruntime_providers_{_LIBRARIES[provider]}.so"
        return path if path.is_file() else None


def installed() -> Runtime:
    """Look at the installation; never raises."""
    packages = {d.name: d.version for d in distributions() if _is_runtime(d)}
    try:
        runtime = importlib.import_module("onnxruntime")
        providers = tuple(runtime.get_available_providers())
        folder = Path(str(runtime.__file__)).parent / "capi"
    except Exception as error:  # a damaged installation fails in any way
        return Runtime(packages, error=error)
    return Runtime(packages, providers, _built_with(), folder)


def preload() -> None:
    """Load the CUDA and cuDNN libraries that pip installed, which the system's loader does not find by itself.

    What ONNX Runtime prints and warns of meanwhile is dropped: the output of a command is not its place, and what does
    not load is found by ``libraries.missing``.
    """
    runtime = importlib.import_module("onnxruntime")
    if not hasattr(runtime, "preload_dlls"):
        return
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runtime.preload_dlls()


def _is_runtime(distribution: Distribution) -> bool:
    """Whether a distribution installs the module: ``onnxruntime``, -gpu, -openvino, ...; not -extensions or -genai."""
    if not (distribution.name or "").lower().startswith("onnxruntime"):
        return False
    return any(str(file) == "onnxruntime/__init__.py" for file in distribution.files or ())


def _built_with() -> tuple[int, int] | None:
    try:
        text = str(importlib.import_module("onnxruntime.capi.build_and_package_info").cuda_version)
    except (ImportError, AttributeError):
        return None
    numbers = text.split(".")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 and all(n.isdecimal() for n in numbers) else None
