"""Sessions of a benchmark's own, with the options of those that serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from emboundary.service.engine.gpu import CUDA
from emboundary.service.engine.place import Place
from emboundary.service.engine.sessions import CPU, session_options

# As networks are served, but for recorded graphs, whose kernels a profile could not tell apart.
_CUDA = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def open_graph(file: Path, place: Place, *, options: Any = None, channels_last: bool = False) -> Any:
    """A session of any graph on a device, nothing of it anywhere else.

    Args:
        file: the graph.
        place: the device.
        options: None: those of every session.
        channels_last: whether a GPU convolves in that layout.
    """
    options = session_options() if options is None else options
    if place.device == "cpu":
        return ort.InferenceSession(str(file), options, providers=CPU)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    chosen = {**_CUDA, "device_id": str(place.index), "prefer_nhwc": str(int(channels_last))}
    return ort.InferenceSession(str(file), options, providers=[(CUDA, chosen)], enable_fallback=0)


def bound(
    session: Any,
    place: Place,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
) -> Callable[[], None]:
    """One run of a session on tensors that lie on its device and stay there.

    Args:
        session: to run.
        place: its device.
        inputs: are copied there now.
        outputs: shapes and types.
    """
    binding = session.io_binding()
    kept = []
    for name, array in inputs.items():
        kept.append(ort.OrtValue.ortvalue_from_numpy(array, place.device, place.index))
        binding.bind_ortvalue_input(name, kept[-1])
    for name, (shape, dtype) in outputs.items():
        element = np.dtype(dtype).type
        kept.append(ort.OrtValue.ortvalue_from_shape_and_type(shape, element, place.device, place.index))
        binding.bind_ortvalue_output(name, kept[-1])

    def run(_kept: Any = kept) -> None:
        session.run_with_iobinding(binding)

    return run
