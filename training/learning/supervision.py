"""Deep supervision: a logit of its own for each map that the decoder joins, while training lasts.

The auxiliary logits stand on the deconvolved maps of Inception A, B and C, all at full resolution; their losses reach
the trunk by a shorter way than the last logit's does (Lee et al. 2015, deeply-supervised nets).  They are thrown away
with the training, so that they cost nothing to a model that is used.
"""

from __future__ import annotations

from torch import Tensor, nn

from emboundary.model.inception import InvariantLogit, Segmenter
from emboundary.training.learning.task import Learner


class Supervised(Learner):
    """A segmenter with auxiliary logits.

    Shapes: (N, C, H, W) -> the logit, then those of Inception A, B and C if ``deep``; each (N, 1, H, W).
    """

    network: Segmenter

    def __init__(self, network: Segmenter, *, deep: bool) -> None:
        super().__init__()
        self.network = network
        group = network.spec.group
        fields = network.spec.decoder // group.order
        self.auxiliary = nn.ModuleList(InvariantLogit(group, fields, mean=False) for _ in range(3 if deep else 0))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.network.decoded(x)
        auxiliary = [logit(decoded) for logit, decoded in zip(self.auxiliary, maps, strict=False)]
        return [self.network.joined(*maps), *auxiliary]
