"""Fixtures of the laws: the bundled models, and the definition of the map, written down a second time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from emboundary.model.repository import ModelEntry, load_model
from emboundary.service.engine import OnnxEngine

BUNDLED = ("d4", "plain", "paper")


@dataclass(frozen=True)
class Network:
    """A model file, run by the service's engine, and by ONNX Runtime alone."""

    entry: ModelEntry

    @cached_property
    def engine(self) -> OnnxEngine:
        return OnnxEngine.open(self.entry, "cpu")

    @cached_property
    def _session(self) -> Any:
        return ort.InferenceSession(str(self.entry.path), providers=["CPUExecutionProvider"])

    @property
    def halo(self) -> int:
        return self.entry.description.halo[1]

    @property
    def stride(self) -> int:
        return self.entry.description.stride[1]

    def padded(self, section: NDArray[np.float32], before: tuple[bool, bool] = (False, False)) -> NDArray[np.float32]:
        """A section (y, x) reflected by the halo, then extended to stride multiples, behind or ``before`` an axis."""
        widths = []
        for extent, first in zip(section.shape, before, strict=True):
            extension = -extent % self.stride
            widths.append((self.halo + extension * first, self.halo + extension * (not first)))
        return np.pad(section, widths, mode="reflect")

    def f(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network itself on an image (y, x)."""
        found: NDArray[np.float32] = self._session.run(None, {"image": np.ascontiguousarray(image[None, None])})[0]
        return found[0, 0]

    def whole(self, section: NDArray[np.float32]) -> NDArray[np.float32]:
        """Law 1's map of a normalised section: f(pad(x)), cropped."""
        y, x = section.shape
        return self.f(self.padded(section))[self.halo :, self.halo :][:y, :x]


@pytest.fixture(scope="session", params=BUNDLED)
def bundled(request: pytest.FixtureRequest) -> Network:
    """Each of the bundled models."""
    return Network(load_model(request.param))


@pytest.fixture(scope="session")
def d4() -> Network:
    """The bundled model that is exactly symmetric."""
    return Network(load_model("d4"))


@pytest.fixture(scope="session")
def tiny(repository: Path) -> Network:
    """A network small enough for many cases, whose every output depends on the phase of the stride."""
    return Network(load_model("d4", repository))
