"""What ``POST /v1/predict`` computes: body to image, image to probabilities, probabilities to body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emboundary.model.geometry import Footprint, round_up
from emboundary.service.codecs import MediaType, decode
from emboundary.service.codecs.errors import TooLargeError, UnsupportedImageError
from emboundary.service.engine import Engine
from emboundary.service.preparing.intensity import Intensity, measure, refuse_non_finite
from emboundary.service.run.inference import predict_array
from emboundary.service.schemas import Limits


@dataclass(frozen=True)
class Question:
    """One image to be mapped.

    Attributes:
        image: the sections (z, y, x), as stored in the body.
        intensity: statistics to normalise by.
        shape: of the body, (y, x) or (z, y, x): the answer's shape.
    """

    image: NDArray[Any]
    intensity: Intensity
    shape: tuple[int, ...]


def read_question(
    body: bytes,
    media: MediaType,
    *,
    limits: Limits,
    footprint: Footprint,
    axes: str | None = None,
    intensity: Intensity | None = None,
) -> Question:
    """Decode a body and settle its intensity: the one given, or else the body's own.

    Raises:
        InputError: a body that cannot be mapped; its class says which answer it gets.
    """
    array = decode(body, media, limit=limits.max_body_bytes, axes=axes)
    image = array.reshape((-1, *array.shape[-2:]))
    _refuse_costly(image.shape, footprint, limits.max_computed_voxels)
    if intensity is None:
        refuse_non_finite(image, (0, 0, 0))
        if image.min() == image.max():
            raise UnsupportedImageError(
                f"the image is constant (every voxel is {image.flat[0]:g}), so it has no contrast to normalise by; "
                "give the whole volume's statistics as intensity=MEAN,STD"
            )
        intensity = measure(image).intensity
    return Question(image, intensity, array.shape)


def answer(engine: Engine, question: Question, *, tile: int, tta: bool) -> NDArray[np.float32]:
    """The probabilities, in the shape of the question.

    Raises:
        InputError: NaN or infinite voxels, or an intensity that makes voxel values too large for the network.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # found in the result, wherever they arise
        probability = predict_array(engine, question.image, question.intensity, tile=tile, tta=tta)
    if not np.isfinite(probability).all():
        raise UnsupportedImageError(
            f"normalised by intensity {question.intensity}, voxel values become too large for float32; give the "
            "MEAN,STD of the volume's own voxel values"
        )
    return probability.reshape(question.shape)


def computed_voxels(shape: tuple[int, ...], footprint: Footprint) -> int:
    """What a stack (z, y, x) costs: its voxels after padding to stride multiples and by the halo."""
    sections, *sides = shape
    y, x = (round_up(n, s) + 2 * h for n, s, h in zip(sides, footprint.stride[1:], footprint.halo[1:], strict=True))
    return sections * y * x


def _refuse_costly(shape: tuple[int, ...], footprint: Footprint, limit: int) -> None:
    """Refuse thin images of very many sections, whose halo and not whose size decides what they cost."""
    cost = computed_voxels(shape, footprint)
    if cost > limit:
        raise TooLargeError(
            f"the image of shape {shape} needs {cost} voxels computed, its halo included; at most {limit} are accepted "
            "in one request (GET /v1/models): send fewer sections at a time"
        )
