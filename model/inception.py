"""The Inception-style segmenter: one definition, the symmetry an argument.

    image (1 channel, or the section amid its neighbours, 2 context + 1)
      |
    Stem         two 3x3 convolutions, full resolution ------------------ skip ----+
      | 2x2 max pooling                                                            |
    Inception A  1/2 ----------------------------------- deconvolution x2 ---------+
      |                                                                            | concatenate,
    Reduction A                                                                    | 3x3, 1x1, logit
      |                                                                            |
    Inception B  1/4 ----------------------------------- deconvolution x4 ---------+
      |                                                                            |
    Reduction B                                                                    |
      |                                                                            |
    Inception C  1/8 ----------------------------------- deconvolution x8 ---------+

Source: the efficient-invariant-dense-prediction paper, section IV-B and IV-C, figure 5.  The text names the
modules, their order, the two 3x3 convolutions of the stem and which outputs are deconvolved; the branches
inside the modules are those of the Inception family, with every large kernel factored into 3x3 ones.  Strided
layers are 4x4 with padding 1 and 2x2 pooling, the deconvolutions 2s x 2s with padding s/2: the shapes that
are exactly symmetric on sides that are multiples of the stride (Cohen and Welling 2016, section 6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emboundary.model.conv import KernelOrbitConv2d, flips, rotations
from emboundary.model.group_conv import CosetMeanConv2d, Fields, GroupBatchNorm2d, GroupConv2d, GroupDeconv2d, coset_max
from emboundary.model.groups import C1, D4, Group

Symmetry = Literal["plain", "paper", "d4"]
Maxout = Literal["none", "skip", "beside", "first", "both"]
Last = Literal["max", "max-mean"]

STRIDE = 8


@dataclass(frozen=True)
class SegmenterSpec:
    """Everything that determines a network's shape.

    Widths are channels of the ordinary (``plain``) network; over D4 each is divided by 8 into regular fields,
    which keeps the number of floating-point operations.

    Attributes:
        symmetry: ``plain`` (ordinary), ``paper`` (rotation maxout and flip maxout in the stem, ordinary
            behind it) or ``d4`` (exactly equivariant).
        angles: rotations of ``paper``'s first stem layer, 2, 4 or 8.
        maxout: where ``d4`` takes the maximum over the 8 elements in its stem. ``skip``: on the stem's way
            to the decoder, while the trunk goes on with all orientations; ``beside``: the same, and the
            orientations go to the decoder too; ``first``: behind the first layer; ``both``: behind each of
            the two layers; ``none``: nowhere (plain p4m), for comparison.
        stem, a, b, c: width of the stem and of one branch of Inception A, B, C.
        blocks: how many Inception A, B and C blocks follow each other.
        decoder: width of each deconvolved map.
        head: width of the 3x3 layer that joins them.
        mix: width of the 1x1 layer before the maximum over the group.
        last: what ``d4``'s logit is a linear map of: ``max``, the maxima over the group, or ``max-mean``, those and
            the means, through which the gradient reaches every orientation.
        context: neighbouring sections on each side; the image has 2 context + 1 channels, sections z - context to
            z + context in this order, and the logit is that of section z.  Rotations and flips turn every section
            alike, so the channels are trivial fields and the symmetry stays exact.

    Raises:
        ValueError: a width that is not a positive multiple of 8, fewer than one block, or a context below 0.
    """

    symmetry: Symmetry = "plain"
    angles: int = 4
    maxout: Maxout = "skip"
    stem: int = 16
    a: int = 32
    b: int = 48
    c: int = 64
    blocks: tuple[int, int, int] = (1, 2, 1)
    decoder: int = 16
    head: int = 32
    mix: int = 32
    last: Last = "max"
    context: int = 0

    def __post_init__(self) -> None:
        for name in ("stem", "a", "b", "c", "decoder", "head", "mix"):
            width = getattr(self, name)
            if width < 8 or width % 8:
                raise ValueError(f"{name} is {width}; a width must be a positive multiple of 8, the order of D4")
        if min(self.blocks) < 1:
            raise ValueError(f"blocks is {self.blocks}; each of Inception A, B and C needs at least one block")
        if self.context < 0:
            raise ValueError(f"context is {self.context}; it must be 0 (one section) or a number of neighbours above 0")

    @property
    def group(self) -> Group:
        """The group that the trunk's layers are equivariant to."""
        return D4 if self.symmetry == "d4" else C1

    @property
    def channels(self) -> int:
        """Channels of the image: the section that is mapped amid its neighbours."""
        return 2 * self.context + 1

    def with_symmetry(self, symmetry: Symmetry) -> SegmenterSpec:
        """The same shape with another symmetry."""
        return replace(self, symmetry=symmetry)


class Unit(nn.Module):
    """Convolution, batch norm shared by each orbit, optional maxout over the orbit, ReLU."""

    def __init__(self, conv: nn.Module, norm: nn.Module, *, maxout: int = 1) -> None:
        super().__init__()
        self.conv, self.norm, self.maxout = conv, norm, maxout

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(coset_max(self.norm(self.conv(x)), self.maxout))


def _unit(group: Group, inputs: Fields, outputs: int, kernel: int, *, stride: int = 1, maxout: bool = False) -> Unit:
    """A Unit of a group convolution; a strided one has kernel 4 and padding 1."""
    padding = 1 if stride > 1 else None
    conv = GroupConv2d(group, inputs, outputs, kernel, stride=stride, padding=padding)
    return Unit(conv, GroupBatchNorm2d(group, outputs), maxout=group.order if maxout else 1)


class Stem(nn.Module):
    """The two 3x3 convolutions at full resolution.

    Returns ``(trunk, skip)``: what Inception A continues with, and what the decoder is given.
    """

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        group, image = spec.group, Fields(trivial=spec.channels)
        width = spec.stem // group.order
        maxout = spec.maxout if spec.symmetry == "d4" else "none"
        self.maxout, self.order = maxout, group.order
        if spec.symmetry == "paper":
            self.first = _orbit_unit(KernelOrbitConv2d(spec.channels, width, 3, rotations(spec.angles, 3)), width)
            self.second = _orbit_unit(KernelOrbitConv2d(width, width, 3, flips(3)), width)
        else:
            # The maximum over the 8 elements leaves invariant maps; as many as the ordinary stem has channels.
            early, late = maxout in ("first", "both"), maxout == "both"
            between = Fields(trivial=spec.stem) if early else Fields(regular=width)
            self.first = _unit(group, image, spec.stem if early else width, 3, maxout=early)
            self.second = _unit(group, between, width, 3, maxout=late)
        invariant = maxout == "both"
        self.trunk_fields = Fields(trivial=width) if invariant else Fields(regular=width)
        self.skip_fields = {
            "skip": Fields(trivial=width),
            "beside": Fields(regular=width, trivial=width),
        }.get(maxout, self.trunk_fields)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        trunk: Tensor = self.second(self.first(x))
        if self.maxout not in ("skip", "beside"):
            return trunk, trunk
        invariant = coset_max(trunk, self.order)
        return trunk, invariant if self.maxout == "skip" else torch.cat([trunk, invariant], dim=1)


def _orbit_unit(conv: KernelOrbitConv2d, width: int) -> Unit:
    orbit = Group(f"{conv.copies} kernel copies", tuple(range(conv.copies)))  # batch norm shared by the copies
    return Unit(conv, GroupBatchNorm2d(orbit, width), maxout=conv.copies)


class Inception(nn.Module):
    """Four branches, concatenated: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3; 3x3 average pooling, 1x1.

    ``deep=False`` leaves the two-convolution branch out (Inception C, where it would double the halo).
    """

    def __init__(self, group: Group, inputs: Fields, width: int, *, deep: bool = True) -> None:
        super().__init__()
        fields = width // group.order
        inner = Fields(regular=fields)
        self.branch_1x1 = _unit(group, inputs, fields, 1)
        self.branch_3x3 = nn.Sequential(_unit(group, inputs, fields, 1), _unit(group, inner, fields, 3))
        self.branch_5x5: nn.Sequential | None = None
        if deep:
            self.branch_5x5 = nn.Sequential(
                _unit(group, inputs, fields, 1), _unit(group, inner, fields, 3), _unit(group, inner, fields, 3)
            )
        self.branch_pool = _unit(group, inputs, fields, 1)
        self.fields = Fields(regular=fields * (4 if deep else 3))

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x, 3, stride=1, padding=1)
        branches = [self.branch_1x1(x), self.branch_3x3(x), self.branch_pool(mean)]
        if self.branch_5x5 is not None:
            branches.append(self.branch_5x5(x))
        return torch.cat(branches, dim=1)


class Reduction(nn.Module):
    """Halve the resolution: 2x2 max pooling beside 1x1, 4x4 stride 2; concatenated."""

    def __init__(self, group: Group, inputs: Fields, width: int) -> None:
        super().__init__()
        fields = width // group.order
        self.strided = nn.Sequential(
            _unit(group, inputs, fields, 1), _unit(group, Fields(regular=fields), fields, 4, stride=2)
        )
        self.fields = Fields(regular=inputs.regular + fields)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.max_pool2d(x, 2), self.strided(x)], dim=1)


class Upsample(nn.Module):
    """Bring a module's output to full resolution: 1x1 to the decoder's width, then one deconvolution."""

    def __init__(self, group: Group, inputs: Fields, width: int, stride: int) -> None:
        super().__init__()
        fields = width // group.order
        self.point = _unit(group, inputs, 2 * fields, 1)
        deconv = GroupDeconv2d(group, Fields(regular=2 * fields), fields, stride)
        self.deconv = Unit(deconv, GroupBatchNorm2d(group, fields))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.deconv(self.point(x))
        return out


class InvariantLogit(nn.Module):
    """One logit from regular fields: a linear map of their maxima over the group and, if asked for, their means.

    Shapes: (N, fields * |G|, H, W) -> (N, 1, H, W).
    """

    def __init__(self, group: Group, fields: int, *, mean: bool) -> None:
        super().__init__()
        self.order = group.order
        self.of_max = nn.Conv2d(fields, 1, 1)
        nn.init.zeros_(self.of_max.bias)  # type: ignore[arg-type]
        self.of_mean: nn.Module | None = CosetMeanConv2d(group, fields, 1) if mean else None

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.of_max(coset_max(x, self.order))
        return logit if self.of_mean is None else logit + self.of_mean(x)


class Segmenter(nn.Module):
    """Boundary logits of normalised images.

    Shapes: (N, 2 context + 1, H, W) -> (N, 1, H, W), H and W multiples of 8; the probability is
    ``sigmoid(logit)``, that of the section in the middle channel.

    For ``d4`` the logit is invariant: ``f(g x) = g f(x)`` for all 8 elements, exactly.  The last step is the
    maximum over the group of ``head`` features, then one linear map of what is left.

    Source: see the module's docstring; the maximum over the group at the end: Cohen and Welling 2016,
    section 8.1 (P4CNN).
    """

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        self.spec = spec
        group = spec.group
        self.stem = Stem(spec)
        self.inception_a, fields_a = _stack(group, self.stem.trunk_fields, spec.a, spec.blocks[0])
        self.reduction_a = Reduction(group, fields_a, 2 * spec.a)
        self.inception_b, fields_b = _stack(group, self.reduction_a.fields, spec.b, spec.blocks[1])
        self.reduction_b = Reduction(group, fields_b, 2 * spec.b)
        self.inception_c, fields_c = _stack(group, self.reduction_b.fields, spec.c, spec.blocks[2], deep=False)
        self.up_a = Upsample(group, fields_a, spec.decoder, 2)
        self.up_b = Upsample(group, fields_b, spec.decoder, 4)
        self.up_c = Upsample(group, fields_c, spec.decoder, 8)
        skip = self.stem.skip_fields
        joined = Fields(regular=3 * spec.decoder // group.order + skip.regular, trivial=skip.trivial)
        self.join = _unit(group, joined, spec.head // group.order, 3)
        mixed = spec.mix // group.order
        self.mix = _unit(group, Fields(regular=spec.head // group.order), mixed, 1)
        self.logit = InvariantLogit(group, mixed, mean=spec.last == "max-mean" and group.order > 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(*self.decoded(x))

    def decoded(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the decoder joins, all at full resolution: the maps of Inception A, B and C, and the stem's skip."""
        trunk, skip = self.stem(x)
        a = self.inception_a(F.max_pool2d(trunk, 2))
        b = self.inception_b(self.reduction_a(a))
        c = self.inception_c(self.reduction_b(b))
        return self.up_a(a), self.up_b(b), self.up_c(c), skip

    def joined(self, *maps: Tensor) -> Tensor:
        """The logit of what ``decoded`` gives."""
        # skip comes last: it may be a trivial field, and those stand behind the regular ones
        logit: Tensor = self.logit(self.mix(self.join(torch.cat(maps, dim=1))))
        return logit


def _stack(group: Group, inputs: Fields, width: int, blocks: int, *, deep: bool = True) -> tuple[nn.Sequential, Fields]:
    modules = []
    for _ in range(blocks):
        block = Inception(group, inputs, width, deep=deep)
        modules.append(block)
        inputs = block.fields
    return nn.Sequential(*modules), inputs
