"""How sessions run on a GPU of NVIDIA's.

What is never allowed: TF32, algorithms chosen by a race (whose winner could differ from run to run), nodes on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

from emboundary.service.engine.place import Place
from emboundary.service.engine.sessions import CPU, session_options

CUDA = "CUDAExecutionProvider"


def cuda_options(
    index: int, *, memory_bytes: int | None = None, channels_last: bool = False, recording: bool = False
) -> dict[str, str]:
    """Options of the provider.

    Args:
        index: which of the GPUs that this process sees.
        memory_bytes: that its arena may take; None: no bound.
        channels_last: whether convolutions take that layout, as tensor cores like it.
        recording: whether the kernels of a shape are recorded once and replayed (CUDA graphs).
    """
    options = {
        "device_id": str(index),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "prefer_nhwc": str(int(channels_last)),
        "enable_cuda_graph": str(int(recording)),
    }
    return options if memory_bytes is None else options | {"gpu_mem_limit": str(memory_bytes)}


def gpu_session_options() -> Any:
    """Options of a session all of whose nodes run on the GPU."""
    return _without_fallback(session_options())


def open_graph(file: Path, place: Place, *, options: Any = None, channels_last: bool = False) -> Any:
    """A session of any graph on a device, nothing of it anywhere else.

    Args:
        file: the graph.
        place: the device.
        options: of the session; None: the usual ones.
        channels_last: whether a GPU convolves in that layout.
    """
    if place.device == "cpu":
        return ort.InferenceSession(str(file), options or session_options(), providers=CPU)
    providers = [(CUDA, cuda_options(place.index, channels_last=channels_last))]
    options = _without_fallback(options or session_options())
    return ort.InferenceSession(str(file), options, providers=providers, enable_fallback=0)


def _without_fallback(options: Any) -> Any:
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options
