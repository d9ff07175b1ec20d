"""Morlet wavelets and their low-pass as small filters whose quarter turns and mirrors are exact copies.

The wavelet of scale j and orientation l is a plane wave under an elliptic Gaussian, with its mean taken away:

    psi(u) = slant / (2 pi sigma^2) exp(-(|u_along|^2 + slant^2 |u_across|^2) / (2 sigma^2)) (exp(i xi u_along) - beta)
    sigma = 0.8 2^j,  xi = 3 pi / 4 / 2^j,  slant = 4 / L,  theta = pi l / L,

u_along being the coordinate along the wave, which runs at the angle theta counter-clockwise from the x axis, and
beta such that the sum over the filter is 0.  The low-pass of J scales is a Gaussian of sigma = 0.8 2^(J - 1) and
sum 1.  The wavelet at theta + pi is the complex conjugate, so its modulus tells nothing new and L angles fill half
a turn.

Filters are cut to squares at ``TRUNCATE`` standard deviations of their longest axis.  A filter for stride 1 has an
odd side and its centre on a pixel; one for an even stride has an even side and its centre between pixels, so that
the output grid lies symmetrically in the image.

Source: Bruna and Mallat 2013, "Invariant scattering convolution networks", section 2; the numbers are those of the
kymatio library (Andreux et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emboundary.model.groups import D4, act, bits

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

TRUNCATE = 3.0


def turned(element: int, orientation: int, angles: int) -> int:
    """Orientation that a D4 element gives to a wavelet: the one whose modulus responds as the turned wavelet's.

    Mirrors reverse the angle, quarter turns move it by L / 2; the half turn, theta + pi, leaves it.
    """
    transpose, flip_y, flip_x = bits(element)
    if transpose:  # (x, y) -> (y, x), y pointing down: theta -> -theta - pi / 2
        orientation = -orientation - angles // 2
    if flip_y != flip_x:
        orientation = -orientation
    return orientation % angles


def morlet_bank(scale: int, angles: int, stride: int) -> Complex:
    """The L wavelets of one scale, in units of the pixels they are applied to; shape (L, k, k).

    ``act(element, bank[l])`` is ``bank[turned(element, l, L)]`` or its conjugate, to the last bit.
    """
    bank: dict[int, Complex] = {}
    for orientation in range(angles):
        if orientation not in bank:
            wavelet = _symmetrised(_sampled_morlet(scale, orientation, angles, stride), orientation, angles)
            for element in D4.elements:
                bank.setdefault(turned(element, orientation, angles), act(element, wavelet))
    return np.stack([bank[orientation] for orientation in range(angles)])


def low_pass(scales: int, stride: int) -> Real:
    """The low-pass of J scales along one axis, in units of the pixels it is applied to; shape (k,).

    The filter is ``low_pass[:, None] * low_pass``.
    """
    sigma = 0.8 * 2.0 ** (scales - 1)
    u = _positions(TRUNCATE * sigma, stride)
    gaussian: Real = np.exp(-(u**2) / (2 * sigma**2))
    low: Real = gaussian / gaussian.sum()
    return low


def littlewood_paley(low: Real, banks: Sequence[Complex], side: int) -> tuple[Real, Real]:
    """What of a real image's energy, frequency by frequency, the low-pass and the wavelets let through.

    Returns:
        ``|phi^(w)|^2`` and ``sum over wavelets of (|psi^(w)|^2 + |psi^(-w)|^2) / 2`` on side x side frequencies; a real
        image's spectrum is symmetric, so that of w and -w only the sum matters.
    """
    axis = np.abs(np.fft.fft(low, side)) ** 2
    passed = np.zeros((side, side))
    for wavelet in (w for bank in banks for w in bank):
        power = np.abs(np.fft.fft2(wavelet, (side, side))) ** 2
        passed += (power + np.roll(power[::-1, ::-1], (1, 1), (0, 1))) / 2
    return axis[:, None] * axis, passed


def _positions(radius: float, stride: int) -> Real:
    """Pixel centres along one axis out to a radius, around a pixel (stride 1) or around a cell's corner."""
    if stride == 1:
        reach = math.ceil(radius)
        return np.arange(-reach, reach + 1, dtype=np.float64)
    half = max(math.ceil(radius), stride // 2)
    return np.arange(-half, half, dtype=np.float64) + np.float64(0.5)


def _sampled_morlet(scale: int, orientation: int, angles: int, stride: int) -> Complex:
    sigma, xi, slant = 0.8 * 2.0**scale, 0.75 * math.pi / 2.0**scale, 4.0 / angles
    theta = math.pi * orientation / angles
    x = _positions(TRUNCATE * sigma / min(slant, 1.0), stride)
    y = -x[:, None]  # rows count downwards
    along, across = math.cos(theta) * x + math.sin(theta) * y, math.cos(theta) * y - math.sin(theta) * x
    envelope = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
    wave = envelope * np.exp(1j * xi * along)
    beta = wave.sum() / envelope.sum()
    return np.asarray(slant / (2 * math.pi * sigma**2) * (wave - beta * envelope))


def _symmetrised(wavelet: Complex, orientation: int, angles: int) -> Complex:
    """Remove the rounding by which a sampled wavelet differs from its images under what leaves its orientation."""
    images = []
    for element in D4.elements:
        if turned(element, orientation, angles) == orientation:
            image = act(element, wavelet)
            images.append(image if np.vdot(image, wavelet).real > np.vdot(image.conj(), wavelet).real else image.conj())
    # A median, unlike a mean, does not depend on the order of its terms, and is odd.
    stack = np.stack(images)
    return np.asarray(np.median(stack.real, axis=0) + 1j * np.median(stack.imag, axis=0))
