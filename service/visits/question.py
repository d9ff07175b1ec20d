"""What a request for a map asks: an image, what it is normalised by, and whether it can be mapped at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from emboundary.model.geometry import Footprint, round_up
from emboundary.service.codecs.errors import TooLargeError, UnsupportedImageError
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.schemas import Limits
from emboundary.service.volumes.finite import refuse_non_finite


@dataclass(frozen=True)
class Question:
    """One image to be mapped.

    Attributes:
        image: the sections (z, y, x), as sent.
        intensity: statistics to normalise by.
        shape: as sent: the answer's shape.
    """

    image: NDArray[Any]
    intensity: Intensity
    shape: tuple[int, ...]


def settle(array: NDArray[Any], *, limits: Limits, footprint: Footprint, intensity: Intensity | None) -> Question:
    """Check an image, and settle its intensity: the one given, or else the image's own.

    Args:
        array: one section (y, x) or a stack (z, y, x).
        limits: in force.
        footprint: of the network.
        intensity: statistics of the volume that the image comes from.

    Raises:
        InputError: an image that cannot be mapped; its class says which answer it gets.
    """
    image = array.reshape((-1, *array.shape[-2:]))
    _refuse_costly(image.shape, footprint, limits.max_computed_voxels)
    refuse_non_finite(image, (0, 0, 0))
    if intensity is None:
        if image.min() == image.max():
            raise UnsupportedImageError(
                f"the image is constant (every voxel is {image.flat[0]:g}), so it has no contrast to normalise by; "
                "give the whole volume's statistics as intensity=MEAN,STD"
            )
        intensity = measure(image).intensity
    return Question(image, intensity, array.shape)


def computed_voxels(shape: tuple[int, ...], footprint: Footprint) -> int:
    """What a stack (z, y, x) costs: its voxels after padding, along y and x, to stride multiples and by the halo."""
    sections, *sides = shape
    y, x = (round_up(n, s) + 2 * h for n, s, h in zip(sides, footprint.stride[1:], footprint.halo[1:], strict=True))
    return sections * y * x


def _refuse_costly(shape: tuple[int, ...], footprint: Footprint, limit: int) -> None:
    """Refuse thin images of very many sections, whose halo and not whose size decides what they cost."""
    cost = computed_voxels(shape, footprint)
    if cost > limit:
        raise TooLargeError(
            f"the image of shape {shape} needs {cost} voxels computed, its halo included; at most {limit} are accepted "
            "in one request (GET /v1/models): send fewer sections at a time, or submit the volume as a job (POST "
            "/v1/jobs)"
        )
