from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.service.errors import InputError, UsageError
from emboundary.service.intensity import Intensity, measure, reading_block


def exact(array: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation by rational arithmetic."""
    values = [int(v) for v in array.ravel()]
    mean = Fraction(sum(values), len(values))
    variance = sum(((v - mean) ** 2 for v in values), Fraction(0)) / len(values)
    return float(mean), math.sqrt(variance)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", ">u2", ">i2"])
def test_integer_statistics_are_exact(dtype: str) -> None:
    info = np.iinfo(dtype)
    array = np.random.default_rng(0).integers(info.min, info.max, (3, 11, 13), endpoint=True).astype(dtype)
    mean, std = exact(array)
    found = measure(array)
    assert found.mean == mean
    assert found.std == pytest.approx(std, rel=1e-15)


def test_integer_statistics_do_not_overflow() -> None:
    array = np.full((4, 512, 512), 65535, dtype=np.uint16)
    array[0, 0, 0] = 0
    n, found = array.size, measure(array)
    assert found.mean == pytest.approx(65535 * (n - 1) / n, rel=1e-15)
    assert found.std == pytest.approx(65535 * math.sqrt(n - 1) / n, rel=1e-15)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_statistics_survive_a_large_offset(dtype: str) -> None:
    offset = 1000 if dtype == "float16" else 1e6
    array = (np.random.default_rng(1).normal(size=(5, 40, 30)) + offset).astype(dtype)
    wide = array.astype(np.float64)
    found = measure(array)
    assert found.mean == pytest.approx(wide.mean(), rel=1e-14)
    assert found.std == pytest.approx(wide.std(), rel=1e-9)


class Chunked:
    """An array that says how it is stored, and notes what was read."""

    def __init__(self, array: NDArray[Any], chunks: tuple[int, int, int]) -> None:
        self.array, self.chunks, self.shape = array, chunks, array.shape
        self.read: list[tuple[slice, slice, slice]] = []

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        self.read.append(key)
        return self.array[key]


def test_every_voxel_is_read_once_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.intensity._READ_VOXELS", 64)
    monkeypatch.setattr("emboundary.service.intensity._COUNTED_VOXELS", 7)
    array = np.random.default_rng(2).normal(size=(5, 9, 11))
    volume = Chunked(array, (2, 4, 3))
    advanced: list[int] = []
    found = measure(volume, advanced.append)
    count = np.zeros(array.shape, dtype=int)
    for key in volume.read:
        count[key] += 1
    assert (count == 1).all()
    assert sum(advanced) == array.size
    assert len(volume.read) > 4
    assert (found.mean, found.std) == pytest.approx((array.mean(), array.std()), rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "chunks"), [((100, 4000, 4000), (1, 64, 4000)), ((64, 2048, 2048), (64, 64, 64)), ((3, 50, 50), None)]
)
def test_reading_blocks_are_whole_chunks_of_bounded_size(
    shape: tuple[int, int, int], chunks: tuple[int, int, int] | None
) -> None:
    block = reading_block(shape, chunks)
    assert math.prod(block) <= 1 << 24
    for extent, chunk, whole in zip(block, chunks or (1, *shape[1:]), shape, strict=True):
        assert extent % chunk == 0 or extent == whole


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_place_of_a_value_that_is_not_finite_is_named(value: float) -> None:
    array = np.random.default_rng(3).normal(size=(4, 5, 6)).astype(np.float32)
    array[2, 3, 1] = value
    with pytest.raises(
        InputError, match=rf"holds {value} at voxel \(z, y, x\) = \(2, 3, 1\); every value must be finite"
    ):
        measure(array)


@pytest.mark.parametrize("array", [np.full((2, 3, 4), 7, np.uint8), np.full((2, 300, 400), 0.1, np.float32)])
def test_a_constant_volume_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"constant: every voxel is (7|0\.1), .* give --intensity MEAN,STD"):
        measure(array)


def test_blank_sections_are_normal() -> None:
    array = np.zeros((3, 8, 8), np.uint8)
    array[1] = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert measure(array).std > 0


def test_values_beyond_float64_are_refused() -> None:
    with pytest.raises(InputError, match="gives no usable standard deviation; rescale"):
        measure(np.array([[[1e308, -1e308]]]))


def test_an_empty_volume_is_refused() -> None:
    with pytest.raises(InputError, match="must hold at least one voxel"):
        measure(np.zeros((0, 4, 4), np.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float16", "float32", "float64", ">u2"])
def test_normalising_rounds_once(dtype: str) -> None:
    array = (np.random.default_rng(4).random((2, 5, 6)) * 100).astype(dtype)
    intensity = Intensity(123.4567890123, 7.654321)
    expected = ((array.astype(np.float64) - intensity.mean) / intensity.std).astype(np.float32)
    found = intensity.normalise(array)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_parse_reads_what_str_writes() -> None:
    intensity = Intensity(127.123456789, 1 / 3)
    assert Intensity.parse(str(intensity)) == intensity
    assert Intensity.parse("128, 45.5") == Intensity(128.0, 45.5)


@pytest.mark.parametrize("text", ["", "128", "1,2,3", "a,b", "128;45"])
def test_text_that_is_no_intensity_is_refused(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"it must be two numbers MEAN,STD in voxel values, e\.g\. 128,45\.5"
    ) as caught:
        Intensity.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["128,0", "128,-1", "nan,1", "inf,1", "1,nan", "1,inf"])
def test_numbers_that_are_no_intensity_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the mean must be finite and the standard deviation finite and above 0"):
        Intensity.parse(text)
