"""The GPUs: whether there are any, how much memory they have, and whether this ONNX Runtime can use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emboundary.service.diagnosis.apart import ProbeError, ask
from emboundary.service.finding import Finding

_GIB = 2**30
_PATIENCE_S = 30.0


def check_gpu(device: str, *, gpu_build: bool) -> Iterator[Finding]:
    """Ask the driver, in a process of its own; with a build for GPUs also whether its libraries load.

    Without a GPU all is well on the CPU, unless a GPU was asked for, or paid for with a build for GPUs.

    Args:
        device: that serving is asked to use.
        gpu_build: whether the installed ONNX Runtime is made for NVIDIA's GPUs.
    """
    try:
        answer = ask("gpu", {}, _PATIENCE_S)
    except ProbeError as error:
        found, remedy = f"the NVIDIA driver: {error}", "run nvidia-smi, which asks the same driver"
        yield Finding("GPU", "failed" if device == "cuda" else "note", found, remedy, {"usable": False, "gpus": []})
        return
    yield _judge(answer, device, gpu_build=gpu_build)
    said = answer["missing"] is not None and answer["missing"]["link"] in ("cuda", "cudnn")
    if gpu_build and device != "cpu" and not said:
        yield _libraries(answer["libraries"], device)


def _judge(answer: dict[str, Any], device: str, *, gpu_build: bool) -> Finding:
    driver, missing = answer["driver"], answer["missing"]
    facts = {
        "usable": missing is None,
        "driver_version": driver["version"],
        "driver_cuda_version": driver["cuda_version"],
        "runtime_cuda_version": answer["runtime_cuda_version"],
        "gpus": driver["gpus"],
        "missing": missing and missing["link"],
    }
    if missing is None:
        return Finding("GPU", "ok", _words(driver), facts=facts)
    if device == "cuda":
        return Finding("GPU", "failed", missing["what"], missing["remedy"], facts)
    if device == "auto" and driver["gpus"]:
        return Finding("GPU", "note", f"{_words(driver)}; not used: {missing['what']}", missing["remedy"], facts)
    if device == "auto" and gpu_build:
        return Finding("GPU", "note", f"{missing['what']}; models run on the CPU", missing["remedy"], facts)
    if driver["gpus"]:
        return Finding("GPU", "ok", f"{_words(driver)}; not used: device is cpu", facts=facts)
    return Finding("GPU", "ok", f"none: {driver['reason']}; models run on the CPU", facts=facts)


def _libraries(missing: dict[str, Any] | None, device: str) -> Finding:
    facts = {"load": missing is None}
    if missing is None:
        return Finding("CUDA libraries", "ok", "they load, cuDNN too", facts=facts)
    found = missing["what"].replace("CUDA libraries are missing", "missing")
    return Finding("CUDA libraries", "failed" if device == "cuda" else "note", found, missing["remedy"], facts)


def _words(driver: dict[str, Any]) -> str:
    gpus = "; ".join(_gpu(gpu) for gpu in driver["gpus"])
    cuda = driver["cuda_version"]
    supports = f", up to CUDA {cuda[0]}.{cuda[1]}" if cuda else ""
    return f"{gpus}; driver {driver['version'] or 'of unknown version'}{supports}"


def _gpu(gpu: dict[str, Any]) -> str:
    total, free = gpu["memory_bytes"] / _GIB, gpu["free_bytes"]
    memory = f"{total:.0f} GiB" if free is None else f"{free / _GIB:.0f} of {total:.0f} GiB free"
    major, minor = gpu["compute_capability"]
    return f"{gpu['index']}: {gpu['name']}, {memory}, compute capability {major}.{minor}"
