"""The libraries of NVIDIA that ONNX Runtime's providers need: which of them do not load, and what brings them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator

from emboundary.service.errors import first_line
from emboundary.service.gpus.elf import needed
from emboundary.service.gpus.missing import Link, Missing
from emboundary.service.gpus.runtime import CUDA_PROVIDER, TENSORRT_PROVIDER, Runtime, installed, preload

__all__ = ["CUDA_PROVIDER", "TENSORRT_PROVIDER", "missing", "preload"]

_DRIVER = "libcuda.so.1"
_NVIDIA = re.compile(r"lib(cu|nv)\w*\.so")
_MISSING = re.compile(r"(?P<name>lib[\w.-]+\.so[.\d]*): cannot open shared object file")
# cuDNN is loaded by newer builds only when the first convolution runs, and then stands in no list of the CUDA provider.
_CUDNN = "libcudnn.so.9"
# What pip calls the package that brings a library; {cuda} is the major version of CUDA, {major} the library's own.
_PACKAGES = (
    ("libcublas", "nvidia-cublas{suffix}"),
    ("libcudart", "nvidia-cuda-runtime{suffix}"),
    ("libcufft", "nvidia-cufft{suffix}"),
    ("libcurand", "nvidia-curand{suffix}"),
    ("libnvrtc", "nvidia-cuda-nvrtc{suffix}"),
    ("libnvJitLink", "nvidia-nvjitlink{suffix}"),
    ("libcudnn", "nvidia-cudnn-cu{cuda}"),
    ("libnvinfer", "'tensorrt-cu{cuda}=={major}.*'"),
    ("libnvonnxparser", "'tensorrt-cu{cuda}=={major}.*'"),
)


def missing(provider: str = CUDA_PROVIDER, runtime: Runtime | None = None) -> Missing | None:
    """What a provider needs and the loader does not find; None where all of it loads.

    Args:
        provider: ``CUDAExecutionProvider`` or ``TensorrtExecutionProvider``.
        runtime: as ``installed`` describes it; None: looked at now.
    """
    runtime = runtime or installed()
    library = runtime.library(provider)
    if library is None:
        return Missing("runtime", f"this ONNX Runtime has no {provider}", "pip install 'emboundary[gpu]'")
    absent = missing_libraries(provider, runtime)
    if absent is not None:
        return absent
    try:
        ctypes.CDLL(str(library.parent / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        if _DRIVER in str(error):
            return Missing("driver", f"the NVIDIA driver's library {_DRIVER} is not found", "install the NVIDIA driver")
        reinstall = "pip install --force-reinstall 'emboundary[gpu]'"
        return Missing("cuda", f"{library.name} does not load: {first_line(error)}", reinstall)
    return None


def missing_libraries(provider: str, runtime: Runtime) -> Missing | None:
    """What ``missing`` says, but of the libraries that are installed with ONNX Runtime: the driver's own may be absent.

    Args:
        provider: as above.
        runtime: a build that has this provider.
    """
    preload()
    faults = dict.fromkeys(_faults(wanted_libraries(provider, runtime)))
    absent = [name for name in faults if name != _DRIVER]
    return _missing(absent, runtime.cuda_version) if absent else None


def wanted_libraries(provider: str, runtime: Runtime) -> tuple[str, ...]:
    """Names of NVIDIA's libraries that a provider needs to run convolutions, as it lists them itself."""
    library = runtime.library(provider)
    own = [name for name in (needed(library) if library else ()) if _NVIDIA.match(name)]
    if not any(name.startswith("libcudnn") for name in own):
        other = runtime.library(TENSORRT_PROVIDER)
        listed = [name for name in (needed(other) if other else ()) if name.startswith("libcudnn")]
        own += listed or [_CUDNN]
    return tuple(own)


def _faults(names: tuple[str, ...]) -> Iterator[str]:
    """Libraries that are not found: of these, or of those that they need in turn."""
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            found = _MISSING.match(str(error))
            yield found["name"] if found else name


def _missing(absent: list[str], cuda_version: tuple[int, int] | None) -> Missing:
    tensorrt = [name for name in absent if name.startswith(("libnvinfer", "libnvonnxparser"))]
    link: Link = "cuda"
    if tensorrt:
        link, kind = "tensorrt", "TensorRT is not whole"
    elif all(name.startswith("libcudnn") for name in absent):
        link, kind = "cudnn", "cuDNN is missing"
    else:
        kind = "CUDA libraries are missing"
    packages = list(dict.fromkeys(package for name in absent if (package := package_of(name, cuda_version))))
    remedy = f"pip install {' '.join(packages)}" if packages else "install them where the loader finds them"
    return Missing(link, f"{kind}: {', '.join(absent)}", remedy + ("" if tensorrt else "; emboundary[gpu] brings them"))


def package_of(library: str, cuda_version: tuple[int, int] | None) -> str | None:
    """The pip package that brings a library; None where none is known."""
    cuda = cuda_version[0] if cuda_version else 13
    # Since CUDA 13 its packages carry no suffix; cuDNN's and TensorRT's still do.
    suffix = "" if cuda >= 13 else f"-cu{cuda}"
    major = library.partition(".so.")[2].partition(".")[0]
    for start, package in _PACKAGES:
        if library.startswith(start):
            return package.format(suffix=suffix, cuda=cuda, major=major)
    return None
