"""Scattering against the numbers of the kymatio library, which ``benchmarks/scattering_reference.py`` stored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emboundary.model.scattering import Path as Chain
from emboundary.model.scattering import Scattering2d

REFERENCE = Path(__file__).with_name("scattering_reference.npz")
CASES = [(1, 6), (2, 8), (3, 4), (3, 8)]
Numbers = NDArray[np.float64]

# Filters are cut at 3 sigma, outside of which a Gaussian has 0.27 % of its sum; the library adds up 5 periods of them.
CUT = 2e-3
# The library samples the maps of scale j every 2^j pixels between the wavelets, which folds high frequencies back.
FOLDED = 0.025


def in_order_of(chains: tuple[Chain, ...], scales: int, angles: int, numbers: Numbers) -> Numbers:
    """The library's coefficients in the order of a scattering's paths.

    Its order is path by path, depth by depth, and its angles run the other way round, from another axis.
    """
    single = [(j, angles - 1 - o) for j in range(scales) for o in range(angles)]
    double = [(first, second) for first in single for second in single if second[0] > first[0]]
    place = {chain: i for i, chain in enumerate([(), *((one,) for one in single), *double])}
    return numbers[[place[chain] for chain in chains]]


def periodic(scattering: Scattering2d, image: Numbers) -> Numbers:
    """Coefficients (K, y, x) at full resolution of an image that repeats itself."""
    margin = scattering.radius
    x = torch.as_tensor(np.pad(image, margin, mode="wrap"))[None, None]
    y: Numbers = scattering(x)[0, :, margin:-margin, margin:-margin].numpy()
    return y


def differences(scales: int, angles: int, kind: str) -> dict[tuple[int, ...], float]:
    """Relative difference from the library, for every combination of scales."""
    scattering = Scattering2d(1, scales, angles, stride=1).double()
    with np.load(REFERENCE) as stored:
        image, wanted = (stored[f"{name}-{scales}-{angles}"].astype(np.float64) for name in ("image", kind))
    wanted = in_order_of(scattering.paths, scales, angles, wanted)
    # it has no gain, samples every 2^J pixels and leaves out the outermost
    got = periodic(scattering, image)[:, :: 2**scales, :: 2**scales][:, 1:-1, 1:-1]
    got /= np.array([scattering.gain ** len(chain) for chain in scattering.paths])[:, None, None]
    found = {}
    for scales_of in {tuple(j for j, _ in chain) for chain in scattering.paths}:
        chosen = [tuple(j for j, _ in chain) == scales_of for chain in scattering.paths]
        found[scales_of] = float(np.linalg.norm((got - wanted)[chosen]) / np.linalg.norm(wanted[chosen]))
    return found


@pytest.mark.parametrize(("scales", "angles"), CASES)
def test_coefficients_are_those_of_the_librarys_filters(scales: int, angles: int) -> None:
    assert max(differences(scales, angles, "unsampled").values()) < CUT


@pytest.mark.parametrize(("scales", "angles"), CASES)
def test_coefficients_are_the_librarys_up_to_its_sampling(scales: int, angles: int) -> None:
    found = differences(scales, angles, "library")
    assert max(found.values()) < FOLDED
    # of these it samples nothing before the average
    assert max(found[()], found[0,]) < CUT
