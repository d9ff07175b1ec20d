"""The segmenter's stem: two 3x3 layers at full resolution, of the kind that the spec chooses."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emboundary.model.blocks import Layers, Unit
from emboundary.model.conv import KernelOrbitConv2d, d4_elements, flips, rotations
from emboundary.model.group_conv import Fields, OrbitBatchNorm2d, coset_max
from emboundary.model.groups import C1
from emboundary.model.scattering import OrientationFields, Scattering2d
from emboundary.model.spec import SegmenterSpec

Tables = tuple[NDArray[np.int64], NDArray[np.int64]]


class Stem(nn.Module):
    """The two 3x3 layers at full resolution.

    Returns ``(trunk, skip)``: what Inception A continues with, and what the decoder is given.
    """

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        kind, self.order = spec.chosen_stem, spec.group.order
        self.maxout = spec.maxout if kind in ("group", "scattering") and self.order > 1 else "none"
        # Over C1 a regular field is a channel like any other.
        self.trunk_fields = Fields(regular=spec.stem) if spec.group == C1 else Fields(trivial=spec.stem)
        self.skip_fields = self.trunk_fields
        self.first: nn.Module
        self.second: nn.Module
        if kind in ("group", "scattering"):
            self._lift(spec, scattered=kind == "scattering")
        elif kind in ("ordinary", "symmetric"):
            self.first, self.second = _ordinary(Layers(C1, spec.level if kind == "symmetric" else 0), spec)
        elif kind == "copies":
            self.first, self.second = _copies(spec)
        else:
            self.first, self.second = _maxima(spec, _tables(spec))

    def _lift(self, spec: SegmenterSpec, *, scattered: bool) -> None:
        """A lifting and a group convolution, with the maximum over the group where ``maxout`` wants it.

        A scattering's orientations are fields of the group, too: it takes the place of the lifting.
        """
        layers, image = Layers(spec.group), Fields(trivial=spec.channels)
        width = layers.fields(spec.stem)
        # The maximum over the group leaves invariant maps; as many as the ordinary stem has channels.
        early, late = self.maxout in ("first", "both"), self.maxout == "both"
        between = Fields(trivial=spec.stem) if early else Fields(regular=width)
        if scattered:
            scattering = Scattering2d(spec.channels, spec.scales, spec.angles, stride=1)
            fields = OrientationFields(scattering, spec.group)
            self.first, between = nn.Sequential(scattering, fields), fields.fields
        else:
            self.first = layers.unit(image, spec.stem if early else width, 3, maxout=early)
        self.second = layers.unit(between, width, 1 if scattered else 3, maxout=late)
        self.trunk_fields = Fields(trivial=width) if late else Fields(regular=width)
        self.skip_fields = {
            "skip": Fields(trivial=width),
            "beside": Fields(regular=width, trivial=width),
        }.get(self.maxout, self.trunk_fields)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        trunk: Tensor = self.second(self.first(x))
        if self.maxout not in ("skip", "beside"):
            return trunk, trunk
        invariant = coset_max(trunk, self.order)
        return trunk, invariant if self.maxout == "skip" else torch.cat([trunk, invariant], dim=1)


def _ordinary(layers: Layers, spec: SegmenterSpec) -> tuple[Unit, Unit]:
    first = layers.unit(Fields(trivial=spec.channels), spec.stem, 3)
    return first, layers.unit(Fields(regular=spec.stem), spec.stem, 3)


def _tables(spec: SegmenterSpec) -> Tables:
    """The kernel copies of the two layers."""
    match spec.chosen_stem:
        case "rotation-maxout":
            return (rotations(spec.angles, 3),) * 2
        case "flip-maxout":
            return (flips(3),) * 2
        case "d4-maxout":
            return (d4_elements(3),) * 2
        case _:
            return rotations(spec.angles, 3), flips(3)


def _maxima(spec: SegmenterSpec, tables: Tables) -> tuple[Unit, Unit]:
    first, second = (
        _orbit_unit(KernelOrbitConv2d(inputs, spec.stem, 3, table), spec.stem, maxout=True)
        for inputs, table in zip((spec.channels, spec.stem), tables, strict=True)
    )
    return first, second


def _copies(spec: SegmenterSpec) -> tuple[Unit, Unit]:
    kernels = spec.stem // spec.angles
    first, second = (
        _orbit_unit(KernelOrbitConv2d(inputs, kernels, 3, rotations(spec.angles, 3)), kernels, maxout=False)
        for inputs in (spec.channels, spec.stem)
    )
    return first, second


def _orbit_unit(conv: KernelOrbitConv2d, width: int, *, maxout: bool) -> Unit:
    return Unit(conv, OrbitBatchNorm2d(conv.copies, width), maxout=conv.copies if maxout else 1)
