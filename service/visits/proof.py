"""A real inference by way of the queue: what health answers rest on."""

from __future__ import annotations

import asyncio

import numpy as np

from emboundary.service.batching.asynchronous import submit
from emboundary.service.batching.errors import StoppedError
from emboundary.service.batching.image import ImageMap
from emboundary.service.errors import EmboundaryError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.refusal import RequestError
from emboundary.service.state import ServiceState

_PATIENCE_S = 5.0


async def prove(state: ServiceState) -> None:
    """Run an image of four pixels through the default model.

    Raises:
        RequestError: 503 where that fails, or takes longer than a probe may.
    """
    image = np.eye(2, dtype=np.uint8)[None]
    mapped = ImageMap.begin(image, state.models.default.engine(), Intensity(0.5, 0.5), tta=False, dtype="float32")
    try:
        ticket, ended = submit(state.scheduler, "health", mapped.tiles(2, 1), _PATIENCE_S)
        try:
            await asyncio.wait_for(ended, _PATIENCE_S)
        finally:
            state.scheduler.cancel(ticket, StoppedError("nobody waits for it"))
    except (EmboundaryError, TimeoutError) as error:
        reason = str(error) or f"it did not within {_PATIENCE_S:g} s"
        raise RequestError(
            503,
            f"the default model could not run an image of four pixels ({reason}); look at the service's log, or ask "
            "again",
            headers={"Retry-After": "1"},
            reason="not_ready",
        ) from error
