"""What a device can do at best, through the runtime that runs the networks: multiply matrices, and move bytes.

The graphs lie beside this module; ``emboundary.model.probe_graphs`` builds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from emboundary.model.description import Precision
from emboundary.service.benchmark.records import Limits
from emboundary.service.benchmark.sessions import bound
from emboundary.service.engine.cuda import open_graph
from emboundary.service.engine.place import Place
from emboundary.service.errors import DeviceError, first_line

GRAPHS = Path(__file__).parent / "graphs"
# One that is so slow is not followed by a larger one.
_LONGEST_S = 1.0
_LEAST_RUNS = 3
# Fewer would lie in the caches of a large GPU.
_LEAST_ELEMENTS = 1 << 25

# Graph, and element types of both factors and of the product.
_MATRICES: dict[Precision, tuple[tuple[str, DTypeLike, DTypeLike, DTypeLike], ...]] = {
    "float32": (("matrix_float32", np.float32, np.float32, np.float32),),
    "float16": (("matrix_float16", np.float16, np.float16, np.float16),),
    "int8": (("matrix_uint8", np.uint8, np.int8, np.int32), ("matrix_int8", np.int8, np.int8, np.int32)),
}


@dataclass(frozen=True)
class Sizes:
    """How large the probes are.

    Attributes:
        matrices: sides of the square matrices that are tried; the fastest counts.
        elements: float32 values that are read and written: many times what the device's caches hold.
        seconds: that each measurement goes on for.
    """

    matrices: tuple[int, ...]
    elements: int
    seconds: float


CPU_SIZES = Sizes((512, 1024, 2048), 1 << 25, 0.3)
GPU_SIZES = Sizes((2048, 4096, 8192), 1 << 28, 0.3)
QUICK_SIZES = Sizes((128,), 1 << 16, 0.0)


@dataclass(frozen=True)
class _Probe:
    """A run that is repeated, and what one of them does."""

    run: Callable[[], None]
    amount: float

    def rate(self, seconds: float) -> float:
        """What the fastest run did in a second."""
        best, end, runs = float("inf"), time.perf_counter() + seconds, 0
        while runs < _LEAST_RUNS or time.perf_counter() < end:
            began = time.perf_counter()
            self.run()
            took = time.perf_counter() - began
            best, runs = min(best, took), runs + 1
            if took > _LONGEST_S:
                break
        return self.amount / best


class Probes:
    """Sessions that measure a device; the fastest size of each is found when they are opened.

    Args:
        place: the device.
        precisions: whose matrix rates are wanted.
        sizes: how large; None: what suits the device.

    Raises:
        DeviceError: the device runs none of a precision's matrix products, or moves no memory.
    """

    def __init__(self, place: Place, precisions: Sequence[Precision], sizes: Sizes | None = None) -> None:
        self._sizes = sizes or (GPU_SIZES if place.device == "cuda" else CPU_SIZES)
        self._matrices = {precision: self._fastest(place, precision) for precision in precisions}
        self._memory = _memory_probe(place, self._sizes.elements)

    def measure(self) -> Limits:
        """The rates now."""
        seconds = self._sizes.seconds
        return Limits(
            matrix={precision: probe.rate(seconds) for precision, probe in self._matrices.items()},
            memory=self._memory.rate(seconds),
        )

    def _fastest(self, place: Place, precision: Precision) -> _Probe:
        rates: list[tuple[float, _Probe]] = []
        failure: Exception | None = None
        for matrix in _MATRICES[precision]:
            try:
                for probe in _matrix_probes(place, *matrix, self._sizes.matrices):
                    probe.run()
                    rates.append((probe.rate(0.0), probe))
                    if probe.amount > rates[-1][0] * _LONGEST_S:
                        break
            except Exception as error:  # the runtime's exceptions share no narrower base
                failure = error
        if not rates:
            raise DeviceError(
                f"{place.device} multiplies no matrices in {precision} ({failure}), so that there is no rate to "
                "compare a network's with; leave this --precision out"
            ) from failure
        return max(rates, key=lambda one: one[0])[1]


def _matrix_probes(
    place: Place, name: str, left: DTypeLike, right: DTypeLike, product: DTypeLike, sides: Sequence[int]
) -> Iterator[_Probe]:
    session = open_graph(GRAPHS / f"{name}.onnx", place)
    rng = np.random.default_rng(0)
    for side in sides:
        factors = {"a": _noise(rng, side, left), "b": _noise(rng, side, right)}
        yield _Probe(bound(session, place, factors, {"c": ((side, side), product)}), 2.0 * side**3)


def _memory_probe(place: Place, elements: int) -> _Probe:
    """Over so many values, or as many fewer as the device has memory for."""
    session = open_graph(GRAPHS / "memory.onnx", place)
    while True:
        values = np.ones(elements, np.float32)
        try:
            probe = _Probe(bound(session, place, {"x": values}, {"y": ((elements,), np.float32)}), 2.0 * values.nbytes)
            probe.run()
        except Exception as error:  # the runtime's exceptions share no narrower base
            if elements <= _LEAST_ELEMENTS:
                raise DeviceError(
                    f"{place.device} has no memory for {values.nbytes} bytes to measure its bandwidth with "
                    f"({first_line(error)}); end what else uses it"
                ) from error
            elements //= 2
        else:
            return probe


def _noise(rng: np.random.Generator, side: int, dtype: DTypeLike) -> NDArray[Any]:
    """Small numbers of either sign, or of none, that no type overflows on."""
    low = 0 if np.dtype(dtype).kind == "u" else -2
    return rng.integers(low, 3, (side, side)).astype(dtype)
