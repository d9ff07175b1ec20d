"""How long segmenters take to map an image, beside each other."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from emboundary.model.export import build_onnx
from emboundary.model.inception import Segmenter
from emboundary.service.engine.sessions import CPU, session_options
from emboundary.training.config import TrainConfig

# Large enough that starting a run does not count; a session for every network stays in memory.
_SIDE = 384


def time_segmenters(configs: Mapping[str, TrainConfig], *, rounds: int, side: int = _SIDE) -> dict[str, list[float]]:
    """Time of each network over that of the first, one ratio a round: one section, ONNX Runtime, CPU.

    Every network maps once in each round, so that a machine whose speed drifts slows all of them alike.  Weights are
    random, which makes no difference to the time.

    Args:
        configs: of the networks, by their labels.
        rounds: of timing, behind one that is not counted.
        side: of the image in pixels, a multiple of the stride.

    Raises:
        ValueError: no network, or fewer than one round.
    """
    if not configs or rounds < 1:
        raise ValueError(f"configs has {len(configs)} networks, rounds is {rounds}; give at least one of each")
    sessions = {label: _session(config) for label, config in configs.items()}
    images = {
        label: np.zeros((1, config.model.spec().channels, side, side), np.float32) for label, config in configs.items()
    }
    seconds = [{label: _seconds(sessions[label], images[label]) for label in configs} for _ in range(1 + rounds)][1:]
    first = next(iter(configs))
    return {label: [one[label] / one[first] for one in seconds] for label in configs}


def _session(config: TrainConfig) -> ort.InferenceSession:
    torch.manual_seed(0)
    model = build_onnx(Segmenter(config.model.spec()).eval())
    return ort.InferenceSession(model.SerializeToString(), session_options(), providers=CPU)


def _seconds(session: ort.InferenceSession, image: NDArray[np.float32]) -> float:
    started = time.perf_counter()
    session.run(None, {"image": image})
    return time.perf_counter() - started
