"""Score a model on sections that it was not trained on, through the very path that serves.

Every map comes from ``service.inference``, so the map that is scored is the map that a user gets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emboundary.model.export import build_onnx
from emboundary.model.folding import expand_and_fold
from emboundary.model.footprint import receptive_field
from emboundary.model.geometry import Footprint
from emboundary.model.groups import D4, act, inverse_element
from emboundary.model.inception import Segmenter, SegmenterSpec
from emboundary.service.engine import Engine
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.inference import predict_array
from emboundary.training.crops.data import LabelledVolume

Map = NDArray[np.float32]


@dataclass(frozen=True)
class TorchEngine:
    """A torch network as an engine, for scoring before it is exported.

    Attributes:
        network: gives logits (n, 1, y, x); in evaluation mode, on the CPU.
        footprint: its halo and stride.
    """

    network: nn.Module
    footprint: Footprint
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Map) -> Map:
        """Map normalised images (n, c, y, x) to probabilities of the same shape, in float32."""
        with torch.inference_mode():
            logit = self.network(torch.from_numpy(np.ascontiguousarray(images)))
            probability: Map = torch.sigmoid(logit).numpy()
        return probability


def segment(engine: Engine, volume: LabelledVolume, *, tta: bool = False) -> tuple[Map, float]:
    """The map of held-out sections (z, y, x) and the seconds it took.

    Section by section where the network sees one alone, for the memory's sake.  A network that sees neighbours maps all
    in one; outside the held-out sections are their reflections, since the ones next to them may have been learned from.
    """
    started = time.perf_counter()
    parts = [volume.raw] if engine.footprint.context else [section[None] for section in volume.raw]
    # The volume is normalised already; mean 0 and deviation 1 leave it as it is.
    maps = [predict_array(engine, part, Intensity(0.0, 1.0), tta=tta) for part in parts]
    return np.concatenate(maps), time.perf_counter() - started


def equivariance_error(engine: Engine, section: NDArray[Any], *, tta: bool = False) -> float:
    """Largest ``|f(g x) - g f(x)|`` in probability over the 8 rotations and flips of a section (y, x).

    At sides that are multiples of the stride, an exactly equivariant network has an error of rounding.

    Raises:
        ValueError: other sides.
    """
    stride = engine.footprint.stride[1:]
    if any(side % step for side, step in zip(section.shape, stride, strict=True)):
        raise ValueError(f"section is {section.shape}; its sides must be multiples of the stride, {stride}")
    unit = Intensity(0.0, 1.0)
    upright = predict_array(engine, section[None], unit, tta=tta)
    errors = []
    for element in D4.elements:
        turned = predict_array(engine, np.ascontiguousarray(act(element, section))[None], unit, tta=tta)
        errors.append(np.abs(act(inverse_element(element), turned) - upright).max())
    return float(max(errors))


def map_network(network: Segmenter, volume: LabelledVolume, *, tta: bool) -> Map:
    """The map (z, y, x) of a trained network that is not exported yet, expanded and folded as the export will do it."""
    engine = TorchEngine(expand_and_fold(network), _footprint(network.spec))
    probability, _ = segment(engine, volume, tta=tta)
    return probability


@cache
def _footprint(spec: SegmenterSpec) -> Footprint:
    """Halo and stride of a network, whatever its weights; kept, because building its graph takes seconds."""
    with torch.random.fork_rng(devices=[]):
        return receptive_field(build_onnx(Segmenter(spec).eval())).footprint
