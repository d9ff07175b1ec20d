"""A device as ONNX Runtime names it, and memory on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where a network runs.

    Attributes:
        device: ``cpu`` or ``cuda``.
        index: which of the GPUs that this process sees.
    """

    device: str = "cpu"
    index: int = 0

    def reserve(self, values: int) -> Memory:
        """Memory for so many float32 values."""
        value = ort.OrtValue.ortvalue_from_shape_and_type((values,), np.float32, self.device, self.index)
        return Memory(self, values, value)


@dataclass(frozen=True)
class Memory:
    """float32 values on a device that stay where they are; tensors that are not needed at once share them.

    Attributes:
        place: where it is.
        values: how many fit.
        value: keeps it.
    """

    place: Place
    values: int
    value: Any

    def bind_as_input(self, binding: Any, name: str, shape: Shape) -> None:
        """Let a session read a tensor that lies at the beginning."""
        binding.bind_input(name, self.place.device, self.place.index, np.float32, shape, self.value.data_ptr())

    def bind_as_output(self, binding: Any, name: str, shape: Shape, first: int = 0) -> None:
        """Let a session write a tensor, behind ``first`` others that are as large in all axes but the first."""
        skipped = first * math.prod(shape[1:])
        assert skipped + math.prod(shape) <= self.values
        address = self.value.data_ptr() + skipped * np.dtype(np.float32).itemsize
        binding.bind_output(name, self.place.device, self.place.index, np.float32, shape, address)
