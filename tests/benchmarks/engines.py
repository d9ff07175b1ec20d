"""Engines that stand in for the network, so that what surrounds it can be measured by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from emboundary.model.description import ModelDescription
from emboundary.model.geometry import Footprint, Triple
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.progress import create_reporter
from emboundary.service.run.prediction import MapReport, make_map
from emboundary.service.run.predictor import LocalPredictor
from emboundary.service.run.request import MapRequest

Images = NDArray[np.float32]


class RecordingEngine(OnnxEngine):
    """The bundled network, which keeps every batch of images that it is given, and answers with them."""

    batches: list[Images]

    @classmethod
    def create(cls) -> RecordingEngine:
        """One on the CPU, with nothing recorded."""
        engine = cls.open(find_model(), "cpu")
        assert isinstance(engine, RecordingEngine)
        engine.batches = []
        return engine

    def run(self, images: Images) -> Images:
        self.batches.append(images.copy())
        return np.clip(images, 0, 1)

    def run_network(self, images: Images) -> Images:
        """What the network answers."""
        return super().run(images)


class Copying:
    """The engine that changes nothing, with a footprint of choice, but runs the real network for its first calls.

    Args:
        footprint: that it claims; None: the bundled network's.
        real: number of calls that go to the bundled network.
    """

    device, precision, outputs = "cpu", "float32", ("boundary",)

    def __init__(self, footprint: Footprint | None = None, real: int = 0) -> None:
        entry = find_model()
        none: Triple = (0, 0, 0)
        self.description: ModelDescription = entry.description
        if footprint is not None:
            update: dict[str, Any] = {"halo": footprint.halo, "stride": footprint.stride}
            self.description = self.description.model_copy(update=update | {"receptive_field_radius": none})
        self.footprint = footprint or self.description.footprint
        self.real = real
        self.calls = 0
        self._network = OnnxEngine.open(entry, "cpu") if real else None

    def run(self, images: Images) -> Images:
        self.calls += 1
        if self._network is not None and self.calls <= self.real:
            return self._network.run(images)
        return np.clip(images, 0, 1)


def map_quietly(request: MapRequest, engine: OnnxEngine | Copying) -> MapReport:
    """A whole run by one of these engines, without a word."""
    predictor = LocalPredictor(engine)  # type: ignore[arg-type]  # of an engine it asks what Copying has
    return make_map(request, predictor, create_reporter(Console(stderr=True), "none"))
