"""What is asked in a process of its own, by name: each takes and gives JSON values."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Side in pixels of the image that a model's speed is guessed from.
_SIDE = 256


def probe_gpu(_: dict[str, Any]) -> dict[str, Any]:
    """The driver, its GPUs, what is missing for ONNX Runtime to use them, and whether its libraries load."""
    from emboundary.service.gpus.driver import visible
    from emboundary.service.gpus.explain import broken_link
    from emboundary.service.gpus.libraries import missing_libraries
    from emboundary.service.gpus.runtime import CUDA_PROVIDER, installed

    driver, runtime = visible(), installed()
    broken = broken_link(runtime, driver)
    libraries = missing_libraries(CUDA_PROVIDER, runtime) if CUDA_PROVIDER in runtime.providers else None
    return {
        "driver": dataclasses.asdict(driver),
        "runtime_cuda_version": runtime.cuda_version,
        "missing": None if broken is None else dataclasses.asdict(broken),
        "libraries": None if libraries is None else dataclasses.asdict(libraries),
    }


def probe_provider(question: dict[str, Any]) -> dict[str, Any]:
    """Whether one provider of ONNX Runtime computes a convolution, how long a session on it takes, and one run."""
    from emboundary.service.diagnosis.tiny import TinyModelError, run_tiny
    from emboundary.service.gpus.explain import why_no_cuda
    from emboundary.service.gpus.libraries import missing
    from emboundary.service.gpus.runtime import CUDA_PROVIDER, TENSORRT_PROVIDER

    provider = question["provider"]
    try:
        return dataclasses.asdict(run_tiny(provider))
    except TinyModelError as error:
        explained = why_no_cuda(error) if provider == CUDA_PROVIDER else None
        if provider == TENSORRT_PROVIDER:
            explained = missing(provider)
        if explained is None:
            raise
        return {"missing": dataclasses.asdict(explained)}


def probe_serving(question: dict[str, Any]) -> dict[str, Any]:
    """Whether the default model runs as the service would run it."""
    import numpy as np

    from emboundary.service.diagnosis.question import Question
    from emboundary.service.hosting import Models
    from emboundary.service.preparing.intensity import Intensity
    from emboundary.service.run.inference import predict_array

    config = question["config"]
    settings = Question(Path(config) if config else None, question["options"]).settings()
    began = time.perf_counter()
    engine = Models(settings).default.engine()
    opened = time.perf_counter()
    image = np.zeros((1, _SIDE, _SIDE), np.uint8)
    predict_array(engine, image, Intensity(0.5, 0.5))
    warm = time.perf_counter()
    predict_array(engine, image, Intensity(0.5, 0.5))
    done = time.perf_counter()
    return {
        "model": engine.description.name,
        "device": engine.device,
        "device_reason": engine.device_reason,
        "precision": engine.precision,
        "open_seconds": opened - began,
        "first_run_seconds": warm - opened,
        "voxels_per_second": image.size / (done - warm),
    }


def probe_disk(question: dict[str, Any]) -> dict[str, Any]:
    """What may be done in a folder, and how fast."""
    from emboundary.service.diagnosis.disk import look

    return dataclasses.asdict(look(Path(question["folder"])))


PROBES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "gpu": probe_gpu,
    "provider": probe_provider,
    "serving": probe_serving,
    "disk": probe_disk,
}
