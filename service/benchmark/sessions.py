"""Runs of a session on tensors that stay on its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from emboundary.service.engine.place import Place


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
