"""A model in one precision, opened for measuring; and what a case of a benchmark is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from emboundary.model.description import Precision
from emboundary.model.geometry import round_up
from emboundary.model.repository import ZOO, ModelEntry
from emboundary.service.benchmark.profiles import Profile
from emboundary.service.benchmark.profiling import profile_model
from emboundary.service.benchmark.records import Cost, Limits, Round, Row
from emboundary.service.engine import Device, GpuOptions, OnnxEngine, find_model
from emboundary.service.engine.place import Place
from emboundary.service.engine.sessions import find_file

Passes = Literal[1, 8]
_FLOAT = 4


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        source: name or path, as it was given.
        repository: that names are looked up in.
        entry: its description, checked.
        engine: it, opened as it serves.
        profile: of one run of its network.
    """

    source: str
    repository: Path
    entry: ModelEntry
    engine: OnnxEngine
    profile: Profile

    @classmethod
    def open(
        cls,
        source: str,
        device: Device,
        precision: Precision,
        side: int,
        *,
        repository: Path = ZOO,
        gpu: GpuOptions = GpuOptions(),  # noqa: B008  # frozen
    ) -> Subject:
        """Open a model, and take its profile on one image.

        Args:
            source: name or path.
            device: that runs it.
            precision: its arithmetic.
            side: of the image that is profiled, before the halo.
            repository: that names are looked up in.
            gpu: how GPUs are used.

        Raises:
            ModelUnavailableError: no such model, or a damaged one.
            UsageError: a precision that the model or the device does not offer.
            DeviceError: a device that does not work here.
        """
        entry = find_model(source, repository)
        engine = OnnxEngine.open(entry, device, precision, gpu)
        padded = padded_side(engine, side)
        profile = profile_model(entry, precision, Place(engine.device), (1, padded, padded))
        return cls(source, repository, entry, engine, profile)

    @property
    def name(self) -> str:
        """Of the model."""
        return self.entry.description.name

    @property
    def cost(self) -> Cost:
        """Of one pixel."""
        described, (n, _, y, x) = self.entry.description, self.profile.shape
        image_and_map = _FLOAT * (described.footprint.channels + len(described.outputs))
        weights = find_file(self.entry, self.engine.precision).stat().st_size
        return Cost(
            operations=described.flops_per_pixel,
            least_bytes=image_and_map + weights / (n * y * x),
            layer_bytes=self.profile.layer_bytes_per_pixel,
        )


def padded_side(engine: OnnxEngine, side: int) -> int:
    """Side of the image that the network sees for a square of the map: up to the stride, and the halo around it."""
    _, stride, _ = engine.footprint.stride
    _, halo, _ = engine.footprint.halo
    return round_up(side, stride) + 2 * halo


class Case(Protocol):
    """Something whose rounds are measured in turns with others."""

    @property
    def title(self) -> str:
        """For people who wait."""
        ...

    def warm(self) -> None:
        """Do once what later rounds need not do again."""
        ...

    def measure(self, limits: Limits) -> Round:
        """One round."""
        ...

    def row(self, rounds: tuple[Round, ...]) -> Row:
        """The case and its rounds."""
        ...
