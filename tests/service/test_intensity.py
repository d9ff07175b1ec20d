from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.service.errors import InputError, NonFiniteError, UsageError
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.volumes import open_volume


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
    found = measure(array).intensity
    assert found.mean == mean
    assert found.std == pytest.approx(std, rel=1e-15)


def test_integer_statistics_do_not_overflow() -> None:
    array = np.full((4, 512, 512), 65535, dtype=np.uint16)
    array[0, 0, 0] = 0
    n, found = array.size, measure(array).intensity
    assert found.mean == pytest.approx(65535 * (n - 1) / n, rel=1e-15)
    assert found.std == pytest.approx(65535 * math.sqrt(n - 1) / n, rel=1e-15)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_statistics_survive_a_large_offset(dtype: str) -> None:
    offset = 1000 if dtype == "float16" else 1e6
    array = (np.random.default_rng(1).normal(size=(5, 40, 30)) + offset).astype(dtype)
    wide = array.astype(np.float64)
    found = measure(array).intensity
    assert found.mean == pytest.approx(wide.mean(), rel=1e-14)
    assert found.std == pytest.approx(wide.std(), rel=1e-9)


class Chunked:
    """An array that says how it is stored, and notes what was read; what touches a damaged voxel is refused."""

    def __init__(
        self, array: NDArray[Any], chunks: tuple[int, int, int], damaged: NDArray[np.bool_] | None = None
    ) -> None:
        self.array, self.chunks, self.shape, self.damaged = array, chunks, array.shape, damaged
        self.read: list[tuple[slice, slice, slice]] = []

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        self.read.append(key)
        # A whole chunk is decoded to read any voxel of it.
        chunks = tuple(slice(k.start // n * n, -(-k.stop // n) * n) for k, n in zip(key, self.chunks, strict=True))
        if self.damaged is not None and self.damaged[chunks].any():
            raise InputError(f"cannot read {key}")
        return self.array[key]


def tissue(*shape: int, seed: int = 2) -> NDArray[np.uint8]:
    """Values with scattered zeros, of which none are fill."""
    return np.random.default_rng(seed).integers(0, 100, shape, dtype=np.uint8)


def test_every_voxel_is_read_once_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.preparing.scanning._READ_VOXELS", 2048)
    monkeypatch.setattr("emboundary.service.preparing.tally._COUNTED_VOXELS", 7)
    array = np.random.default_rng(2).normal(size=(5, 9, 600))
    volume = Chunked(array, (2, 4, 256))
    advanced: list[int] = []
    found = measure(volume, advanced.append).intensity
    count = np.zeros(array.shape, dtype=int)
    for key in volume.read:
        count[key] += 1
    assert (count == 1).all()
    assert sum(advanced) == array.size
    assert len(volume.read) > 4
    assert (found.mean, found.std) == pytest.approx((array.mean(), array.std()), rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(2, 900)),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 900)),
    read=st.sampled_from([1, 2000, 1 << 24]),
    seed=st.integers(0, 9),
)
def test_statistics_do_not_depend_on_chunks(
    shape: tuple[int, int, int], chunks: tuple[int, int, int], read: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    array = rng.integers(1, 9, shape, dtype=np.uint8)
    for _ in range(6):  # stretches of fill, long and short
        z, y, x = (int(rng.integers(n)) for n in shape)
        array[z, y, x : x + int(rng.integers(1, 400))] = 0
    array[0, 0, 0], array[-1, -1, -1] = 9, 8
    expected = measure(array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emboundary.service.preparing.scanning._READ_VOXELS", read)
        assert measure(Chunked(array, chunks)) == expected


def test_fill_is_left_out_and_dark_tissue_is_not() -> None:
    array = tissue(3, 64, 700)
    array[:, :, [299, 500]] = 9
    data = array.copy()
    array = np.concatenate([array, np.zeros((2, 64, 700), np.uint8)])
    array[:, :, 300:500] = 0
    found = measure(array)
    kept = np.concatenate([data[:, :, :300], data[:, :, 500:]], axis=2)
    assert found.record["excluded_fill"] == array.size - kept.size
    assert found.record["voxels"] == kept.size
    assert found.intensity.mean == exact(kept)[0]


def test_the_fill_value_is_the_one_that_the_file_declares() -> None:
    array = tissue(2, 8, 100)
    array[1] = 255
    volume = Chunked(array, (1, 8, 100))
    assert measure(volume).record["excluded_fill"] == 0
    volume.fill_value = np.uint8(255)  # type: ignore[attr-defined]
    found = measure(volume)
    assert (found.record["fill_value"], found.record["excluded_fill"]) == (255, 800)
    assert found.intensity.mean == exact(array[:1])[0]


def test_fill_counts_where_there_is_nothing_else_to_tell_contrast_by() -> None:
    array = np.full((1, 4, 64), 7, np.uint8)
    array[:, :2] = 0
    found = measure(array)
    assert found.intensity == Intensity(3.5, 3.5)
    assert (found.record["voxels"], found.record["excluded_fill"]) == (256, 0)
    assert measure(array.astype(np.float32)).intensity == Intensity(3.5, 3.5)


def test_a_volume_that_is_all_fill_is_refused() -> None:
    with pytest.raises(InputError, match="constant: every voxel is 0, so there is no contrast"):
        measure(np.zeros((2, 10, 300), np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_the_record_is_json_and_carries_a_histogram(dtype: str) -> None:
    array = (tissue(2, 30, 40).astype(np.int16) - (0 if dtype == "uint8" else 50)).astype(dtype)
    record = json.loads(json.dumps(measure(array).record))
    counts, edges = record["histogram"]["counts"], record["histogram"]["edges"]
    assert len(counts) + 1 == len(edges) <= 65
    np.testing.assert_array_equal(counts, np.histogram(array, np.nextafter(edges, -np.inf))[0])
    assert (record["low"], record["high"]) == (array.min(), array.max())
    assert record["rule"] == "every voxel"


@pytest.mark.parametrize("chunks", [(1, 16, 400), (4, 16, 256), (2, 5, 300)])
def test_what_cannot_be_read_is_left_out_and_noted(chunks: tuple[int, int, int]) -> None:
    array = tissue(8, 32, 1100)
    damaged = np.zeros(array.shape, np.bool_)
    damaged[5, 20, 1000] = True
    advanced: list[int] = []
    found = measure(Chunked(array, chunks, damaged), advanced.append)
    bounds = [[tuple(map(int, part.split(":"))) for part in box.split(",")] for box in found.record["unreadable"]]
    assert any(all(a <= at < b for at, (a, b) in zip((5, 20, 1000), box, strict=True)) for box in bounds)
    left_out = sum(math.prod(b - a for a, b in box) for box in bounds)
    assert left_out <= chunks[0] * chunks[1] * (chunks[2] + 2 * 256)  # pieces of 256 are not cut
    assert found.record["voxels"] == array.size - left_out
    assert sum(advanced) == array.size


def test_a_failure_that_passes_leaves_no_trace() -> None:
    class Flaky(Chunked):
        def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
            block = super().__getitem__(key)
            if len(self.read) % 3:
                raise InputError("the connection was reset")
            return block

    array = tissue(4, 20, 30)
    assert measure(Flaky(array, (4, 20, 30))) == measure(array)


def test_a_volume_of_which_nothing_can_be_read_is_refused_with_its_own_reason() -> None:
    array = tissue(4, 20, 300)
    volume = Chunked(array, (1, 20, 300), np.ones(array.shape, np.bool_))
    with pytest.raises(InputError, match="cannot read"):
        measure(volume)
    assert len(volume.read) < 30


def test_a_damaged_chunk_on_disk_is_left_out(tmp_path: Path) -> None:
    array = tissue(8, 64, 512)
    stored = zarr.create_array(tmp_path / "in.zarr", shape=array.shape, chunks=(4, 32, 256), dtype=array.dtype)
    stored[:] = array
    [chunk] = (tmp_path / "in.zarr").glob("c/1/0/1")
    chunk.write_bytes(chunk.read_bytes()[:40])
    with open_volume(tmp_path / "in.zarr", axes="zyx") as volume:
        found = measure(volume)
    kept = np.ones(array.shape, np.bool_)
    kept[4:, :32, 256:] = False
    assert found.record["unreadable"] == ["4:8,0:32,256:512"]
    assert found.intensity.mean == exact(array[kept])[0]


def test_a_value_that_is_not_finite_is_no_damage(tmp_path: Path) -> None:
    array = tissue(8, 64, 512).astype(np.float32)
    array[5, 6, 7] = np.nan
    zarr.create_array(tmp_path / "in.zarr", data=array, chunks=(4, 32, 256))
    with (
        open_volume(tmp_path / "in.zarr", axes="zyx") as volume,
        pytest.raises(NonFiniteError, match=r"holds nan at voxel \(z, y, x\) = \(5, 6, 7\)"),
    ):
        measure(volume)


def test_much_damage_is_listed_in_short() -> None:
    array = tissue(100, 4, 40)
    damaged = np.zeros(array.shape, np.bool_)
    damaged[::2] = True
    record = measure(Chunked(array, (1, 4, 40), damaged)).record
    assert len(record["unreadable"]) == 17
    assert record["unreadable"][-1] == "and 34 more"


class Endless:
    """A volume of any size, made of what is read; 0 outside the tissue."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, int, int], tissue_from: int = 0) -> None:
        self.shape, self.tissue_from = shape, tissue_from
        self.voxels = 0

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        z, y, x = (np.arange(k.start, k.stop, dtype=np.int64) for k in key)
        self.voxels += z.size * y.size * x.size
        block = (z[:, None, None] * 31 + y[:, None] * 17 + x * 7) % 200 + 1
        block[z < self.tissue_from] = 0
        return block.astype(np.uint8)


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.preparing.intensity._SAMPLED_VOXELS", 1 << 23)
    monkeypatch.setattr("emboundary.service.preparing.intensity._MOST_CELLS", 64)


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize(
    "shape", [(1 << 18,) * 3, (1 << 60, 1, 1), (1, 1 << 31, 5), (1, 1, 1 << 54), (1100, 1000, 1000)]
)
def test_volumes_of_any_size_are_sampled(shape: tuple[int, int, int]) -> None:
    volume = Endless(shape)
    advanced: list[int] = []
    found = measure(volume, advanced.append)
    assert found.record["rule"] == "sample: Halton sequence over cells of 16x256x256 voxels"
    assert found.record["cells"] <= 64
    assert volume.voxels <= 1 << 24
    assert sum(advanced) == math.prod(shape)
    assert min(advanced) >= 0
    assert found.intensity.mean == pytest.approx(100.5, abs=2)


@pytest.mark.usefixtures("small_sample")
def test_a_sample_goes_on_until_it_has_seen_data() -> None:
    found = measure(Endless((1 << 12, 1 << 12, 1 << 12), tissue_from=3072))
    assert found.record["excluded_fill"] > 2 * found.record["voxels"]
    assert found.record["voxels"] >= 1 << 23
    assert found.intensity.mean == pytest.approx(100.5, abs=0.1)


@pytest.mark.usefixtures("small_sample")
def test_a_sample_without_data_is_refused_and_says_what_it_saw() -> None:
    with pytest.raises(InputError, match="every voxel of 64 cells that were sampled is 0, so there is no contrast"):
        measure(Endless((1 << 12, 1 << 12, 1 << 12), tissue_from=1 << 13))


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_sample_does_not_depend_on_chunks(dtype: type[np.generic]) -> None:
    class Stored(Endless):
        chunks = (64, 64, 64)

        def __getitem__(self, key: tuple[slice, slice, slice]) -> Any:
            return super().__getitem__(key).astype(dtype)

    volume, other = Stored((2000, 1000, 1000)), Stored((2000, 1000, 1000))
    other.chunks = (1, 1000, 77)
    assert measure(volume) == measure(other)


@pytest.mark.usefixtures("small_sample")
def test_a_sample_of_which_nothing_can_be_read_is_given_up_soon() -> None:
    class Broken(Endless):
        read = 0

        def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
            self.read += 1
            raise InputError("no chunk can be decoded")

    volume = Broken((1 << 18,) * 3)
    with pytest.raises(InputError, match="no chunk can be decoded"):
        measure(volume)
    assert volume.read < 1000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_place_of_a_value_that_is_not_finite_is_named(value: float) -> None:
    array = np.random.default_rng(3).normal(size=(4, 5, 6)).astype(np.float32)
    array[2, 3, 1] = value
    with pytest.raises(
        NonFiniteError, match=rf"holds {value} at voxel \(z, y, x\) = \(2, 3, 1\); every value must be finite"
    ):
        measure(array)


@pytest.mark.parametrize("array", [np.full((2, 3, 4), 7, np.uint8), np.full((2, 300, 400), 0.1, np.float32)])
def test_a_constant_volume_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"constant: every voxel is (7|0\.1), .* give --intensity MEAN,STD"):
        measure(array)


def test_blank_sections_are_normal() -> None:
    array = np.zeros((3, 8, 8), np.uint8)
    array[1] = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert measure(array).intensity.std > 0


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


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(1, 512, 514), (2, 1, 400, 401), (1, 601, 601)])
def test_large_arrays_are_normalised_like_small_ones(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(5).integers(0, 256, shape, np.uint8).view(dtype)
    intensity = Intensity(123.4567890123, 7.654321)
    expected = ((array.astype(np.float64) - intensity.mean) / intensity.std).astype(np.float32)
    for laid_out, wanted in [
        (array, expected),
        (array[..., ::-1], expected[..., ::-1]),
        (array[..., 1:], expected[..., 1:]),
    ]:
        found = intensity.normalise(laid_out)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)


def test_values_too_large_for_float32_become_infinite_in_any_array() -> None:
    array = np.full((1024, 1024), 200, np.uint8)
    for size in (4, 1024):
        assert np.isposinf(Intensity(0.0, 1e-300).normalise(array[:size])).all()


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
