import numpy as np
import pytest

from emboundary.model.groups import D4, act
from emboundary.model.wavelets import low_pass, morlet_bank, turned

BANKS = [(0, 2, 1), (1, 4, 2), (1, 6, 1), (2, 8, 4)]


@pytest.mark.parametrize(("scale", "angles", "stride"), BANKS)
@pytest.mark.parametrize("element", D4.elements)
def test_turned_wavelets_are_copies_to_the_last_bit(element: int, scale: int, angles: int, stride: int) -> None:
    bank = morlet_bank(scale, angles, stride).astype(np.complex64)
    for orientation, wavelet in enumerate(bank):
        image, copy = act(element, wavelet), bank[turned(element, orientation, angles)]
        assert np.array_equal(image, copy) or np.array_equal(image, copy.conj())


@pytest.mark.parametrize(("scale", "angles", "stride"), BANKS)
def test_wavelets_sum_to_zero_and_the_low_pass_to_one(scale: int, angles: int, stride: int) -> None:
    assert np.abs(morlet_bank(scale, angles, stride).sum(axis=(1, 2))).max() < 1e-15
    assert low_pass(scale, stride).sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(("scale", "angles", "stride"), BANKS)
def test_filters_are_centred_on_a_pixel_or_between_pixels(scale: int, angles: int, stride: int) -> None:
    for side in (morlet_bank(scale, angles, stride).shape[-1], len(low_pass(scale + 1, stride))):
        assert (side - stride) % 2 == 0
        assert (side % 2 == 1) == (stride == 1)


@pytest.mark.parametrize("angles", [4, 6, 8])
def test_every_wavelet_passes_its_own_frequency_and_direction_best(angles: int) -> None:
    side = 96
    frequency = 2 * np.pi * np.fft.fftfreq(side)
    for orientation, wavelet in enumerate(morlet_bank(1, angles, 1)):
        power = np.abs(np.fft.fft2(wavelet, (side, side)))
        row, column = np.unravel_index(power.argmax(), power.shape)
        theta = np.pi * orientation / angles
        wanted = 3 * np.pi / 8 * np.array([-np.sin(theta), np.cos(theta)])  # rows count downwards
        found = np.array([frequency[row], frequency[column]])
        # a conjugate passes the opposite; the mean that is taken away moves the peak outwards by 2 %
        np.testing.assert_allclose(found * np.sign(found @ wanted), wanted, atol=0.08)
