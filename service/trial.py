"""A real inference, as small as it gets: what warms a service up, and proves an installation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emboundary.model.repository import DEFAULT_MODEL, load_model
from emboundary.service.engine import Engine, OnnxEngine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array


def predict_tiny(engine: Engine) -> None:
    """Run an image of four pixels through an engine.

    Raises:
        DeviceError: the runtime failed.
    """
    predict_array(engine, np.eye(2, dtype=np.uint8)[None], Intensity(0.5, 0.5))


def run_default_model(repository: Path) -> str:
    """Run the default model on the best device; returns which one ran, and why.

    Raises:
        ModelError: no such model, or a file that is not what its description says.
        EmboundaryError: no device runs it.
    """
    engine = OnnxEngine.open(load_model(DEFAULT_MODEL, repository))
    predict_tiny(engine)
    return f"{engine.description.name} ran; {engine.device_reason}"
