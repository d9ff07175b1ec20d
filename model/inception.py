"""The Inception-style segmenter: one definition, the symmetry an argument.

    image (1 channel, or the section amid its neighbours, 2 context + 1)
      |
    Stem         two 3x3 convolutions, full resolution ------------------ skip ----+
      | 2x2 pooling                                                                |
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

import torch
from torch import Tensor, nn

from emboundary.model.blocks import Inception, InvariantLogit, Layers, Reduction, Upsample
from emboundary.model.group_conv import Fields
from emboundary.model.spec import STRIDE, Maxout, SegmenterSpec, Symmetry
from emboundary.model.stem import Stem

__all__ = ["STRIDE", "InvariantLogit", "Maxout", "Segmenter", "SegmenterSpec", "Symmetry"]


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
        group, layers = spec.group, Layers(spec.group, spec.trunk_level, spec.pool)
        self.stem = Stem(spec)
        self.pool = layers.pool(self.stem.trunk_fields)
        self.inception_a, fields_a = _stack(layers, self.pool.fields, spec.a, spec.blocks[0])
        self.reduction_a = Reduction(layers, fields_a, 2 * spec.a)
        self.inception_b, fields_b = _stack(layers, self.reduction_a.fields, spec.b, spec.blocks[1])
        self.reduction_b = Reduction(layers, fields_b, 2 * spec.b)
        self.inception_c, fields_c = _stack(layers, self.reduction_b.fields, spec.c, spec.blocks[2], deep=False)
        self.up_a = Upsample(layers, fields_a, spec.decoder, 2)
        self.up_b = Upsample(layers, fields_b, spec.decoder, 4)
        self.up_c = Upsample(layers, fields_c, spec.decoder, 8)
        skip = self.stem.skip_fields
        joined = Fields(regular=3 * spec.decoder // group.order + skip.regular, trivial=skip.trivial)
        self.join = layers.unit(joined, spec.head // group.order, 3)
        mixed = spec.mix // group.order
        self.mix = layers.unit(Fields(regular=spec.head // group.order), mixed, 1)
        self.logit = InvariantLogit(group, mixed, mean=spec.last == "max-mean" and group.order > 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(*self.decoded(x))

    def decoded(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the decoder joins, all at full resolution: the maps of Inception A, B and C, and the stem's skip."""
        trunk, skip = self.stem(x)
        a = self.inception_a(self.pool(trunk))
        b = self.inception_b(self.reduction_a(a))
        c = self.inception_c(self.reduction_b(b))
        return self.up_a(a), self.up_b(b), self.up_c(c), skip

    def joined(self, *maps: Tensor) -> Tensor:
        """The logit of what ``decoded`` gives."""
        # skip comes last: it may be a trivial field, and those stand behind the regular ones
        logit: Tensor = self.logit(self.mix(self.join(torch.cat(maps, dim=1))))
        return logit


def _stack(
    layers: Layers, inputs: Fields, width: int, blocks: int, *, deep: bool = True
) -> tuple[nn.Sequential, Fields]:
    modules = []
    for _ in range(blocks):
        block = Inception(layers, inputs, width, deep=deep)
        modules.append(block)
        inputs = block.fields
    return nn.Sequential(*modules), inputs
