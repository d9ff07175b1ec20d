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

from emboundary.model.groups import D4, act, inverse_element
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

    def volume(self, image: NDArray[np.float32], *, turns: bool = False) -> NDArray[np.float32]:
        """The map of a normalised volume (z, y, x): f of each padded section amid its neighbours, cropped.

        Sections outside the volume are reflected at its first and last section, as rows and columns are; ``turns``:
        the mean over the 8 rotations and flips of what f is given.
        """
        context, (sections, y, x) = self.entry.description.halo[0], image.shape
        padded = np.stack([self.padded(section) for section in image])
        around = [(context, context), (0, 0), (0, 0)]
        padded = np.pad(padded, around, mode="reflect" if sections > 1 else "edge")
        images = np.stack([padded[z : z + 2 * context + 1] for z in range(sections)])
        maps = [
            act(inverse_element(g), self._session.run(None, {"image": np.ascontiguousarray(act(g, images))})[0])
            for g in (D4.elements if turns else D4.elements[:1])
        ]
        found: NDArray[np.float32] = np.mean(maps, axis=0)[:, 0, self.halo :, self.halo :][:, :y, :x]
        return found


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


@pytest.fixture(scope="session", params=["d4", "deep"])
def seeing(request: pytest.FixtureRequest, repository_with_context: Path) -> Network:
    """Small networks that are given each section amid one, and amid two, neighbours on each side."""
    return Network(load_model(request.param, repository_with_context))
