"""Errors of a runtime that did start on a GPU, by their words: what they mean, and what helps.

The words are those of CUDA's own error strings and of ONNX Runtime 1.31; the tests hold them as they were recorded.
"""

from __future__ import annotations

import re

from emboundary.service.errors import first_line
from emboundary.service.gpus.missing import Link, Missing

_ESSENCES = (
    re.compile(r"(?:CUDA|CUBLAS|CUDNN|CURAND|CUFFT) failure \d+: [^;]*[^;\s]"),
    re.compile(r"cuDNN is unavailable[^\n]*"),
    re.compile(r"Unknown provider option: \"[^\"]*\""),
    re.compile(r"Failed to allocate memory[^\n]*"),
)
_LONGEST = 200

_KNOWN: tuple[tuple[str, Link, str, str], ...] = (
    (
        r"no kernel image is available|CUDA failure 209\b",
        "gpu",
        "this ONNX Runtime holds no kernels for this GPU",
        "use a GPU that its CUDA version supports, or an onnxruntime-gpu that was built for this GPU",
    ),
    (
        r"out of memory|CUDA failure 2\b|Failed to allocate memory|ALLOC_FAILED|Available memory of",
        "memory",
        "the GPU's memory does not suffice",
        "end what else uses the GPU (nvidia-smi lists it), or give a smaller --tile",
    ),
    (
        r"driver version is insufficient|CUDA failure 35\b",
        "driver",
        "the NVIDIA driver is too old for this ONNX Runtime",
        "install a newer NVIDIA driver",
    ),
    (
        r"CUDA failure 803\b|unsupported display driver / cuda driver combination",
        "driver",
        "the NVIDIA driver's library and its kernel module are of different versions",
        "reboot after a driver update; take folders of cuda-compat out of LD_LIBRARY_PATH",
    ),
    (
        r"CUDA failure 802\b|system not yet initialized",
        "driver",
        "the NVIDIA driver says that the system is not yet initialised",
        "on machines with NVSwitch start the service nvidia-fabricmanager, of the driver's version",
    ),
    (
        r"CUDA failure 46\b|devices? is/are busy or unavailable",
        "gpu",
        "another process holds the GPU for itself alone",
        "end that process, or `nvidia-smi -c DEFAULT` lets several use the GPU",
    ),
    (
        r"CUDA failure 999\b",
        "driver",
        "the NVIDIA driver fails with an unknown error",
        "run nvidia-smi; `sudo nvidia-modprobe -u` or a reboot helps where its module nvidia-uvm is not loaded",
    ),
    (
        r"no CUDA-capable device|CUDA failure (100|38)\b",
        "gpu",
        "CUDA sees no GPU",
        "check with `nvidia-smi -L` and the variable CUDA_VISIBLE_DEVICES",
    ),
    (
        r"cuDNN (is unavailable|library was not found)|libcudnn",
        "cudnn",
        "cuDNN does not load",
        "pip install emboundary[gpu] brings it",
    ),
    (
        r"Unknown provider option",
        "runtime",
        "this version of onnxruntime-gpu does not know an option that is needed",
        "pip install --upgrade emboundary[gpu]",
    ),
)


def known_failure(error: BaseException) -> Missing | None:
    """What an error of the runtime means; None for one that is not known."""
    text = "\n".join(str(link) for link in _chain(error))
    for pattern, link, what, remedy in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            return Missing(link, f"{what} ({essence(error)})", remedy)
    return None


def essence(error: BaseException) -> str:
    """What an error says at its heart: ONNX Runtime wraps CUDA's words in names of files and C++ functions."""
    for pattern in _ESSENCES:
        for link in _chain(error):
            found = pattern.search(str(link))
            if found:
                return _short(found.group())
    *_, last = _chain(error)
    return _short(first_line(last))


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, outermost first."""
    links = [error]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
