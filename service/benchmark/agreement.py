"""Whether a device gives the map that the CPU gives in float32, on real sections."""

from __future__ import annotations

import numpy as np

from emboundary.service.benchmark.records import Agreement
from emboundary.service.benchmark.subjects import Subject
from emboundary.service.demo.contest import RAW
from emboundary.service.engine import OnnxEngine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array
from emboundary.service.volumes import open_volume


def agreement(subject: Subject) -> Agreement:
    """Map the bundled sample with a subject's engine and with the CPU in float32, and compare.

    Raises:
        ModelUnavailableError: the model has no float32 file.
        DeviceError: the device fails.
    """
    engine = subject.engine
    with open_volume(RAW) as sample:
        z, y, x = sample.shape
        voxels = sample[0:z, 0:y, 0:x]
    intensity = Intensity(float(voxels.mean()), float(voxels.std()))
    wanted = predict_array(OnnxEngine.open(subject.entry, "cpu", "float32"), voxels, intensity)
    difference = np.abs(predict_array(engine, voxels, intensity) - wanted)
    return Agreement(
        model=subject.name,
        precision=engine.precision,
        voxels=voxels.size,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        promised=subject.entry.description.precisions.get(engine.precision),
    )


def is_the_reference(subject: Subject) -> bool:
    """Whether the subject is what others are compared with."""
    return (subject.engine.device, subject.engine.precision) == ("cpu", "float32")
