"""A linear classifier of scattering coefficients: nothing but the last layer is learned.

Source: Pooling and invariance review, sections 3.3 and 3.5; Bruna and Mallat 2013.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from emboundary.model.scattering import Padding, Scattering2d
from emboundary.training.strict import PositiveInt, Strict


class ScatteringConfig(Strict):
    """Scattering, then each coefficient normalised over the batch and the pixels, then a linear map of them all.

    The coefficients turn with the image, but the classifier sees where they stand and in which direction they look,
    so that the logits are not invariant.

    Attributes:
        scales: of the wavelets; coefficients are kept every 2^scales pixels.
        angles: orientations of the wavelets; an even number.
        order: 1 or 2 moduli.
        padding: how the image goes on beyond its border.
    """

    kind: Literal["scattering-linear"] = "scattering-linear"
    scales: PositiveInt = 2
    angles: PositiveInt = 8
    order: Literal[1, 2] = 2
    padding: Padding = "zero"

    def build(self, channels: int, classes: int, size: int) -> nn.Module:
        """The network.

        Raises:
            ValueError: a size that is no multiple of 2^scales, or an odd number of angles.
        """
        stride = 2**self.scales
        if size % stride:
            raise ValueError(
                f"size is {size}; scattering of {self.scales} scales keeps every {stride}th pixel: give a multiple of "
                f"{stride}, or fewer scales"
            )
        front = Scattering2d(channels, self.scales, self.angles, self.order, padding=self.padding)
        features = channels * front.coefficients
        norm = nn.BatchNorm2d(features, affine=False)
        return nn.Sequential(front, norm, nn.Flatten(), nn.Linear(features * (size // stride) ** 2, classes))
