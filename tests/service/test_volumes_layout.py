from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboundary.model.geometry import BlockGrid, Box, Triple
from emboundary.service.errors import UsageError
from emboundary.service.volumes import default_chunk, default_shard, downsample, plan_levels
from emboundary.service.volumes.axes import UNCALIBRATED, Axis, SpaceAxes
from emboundary.service.volumes.layout import source_box

LARGE = (4000, 30000, 30000)


def axes(z: float, y: float, x: float, unit: str | None = "nanometer") -> SpaceAxes:
    return Axis("z", z, unit), Axis("y", y, unit), Axis("x", x, unit)


@pytest.mark.parametrize(
    ("sizes", "chunk"),
    [
        (axes(8, 8, 8), (64, 64, 64)),
        (axes(50, 4.6, 4.6), (16, 128, 128)),
        (axes(40, 4, 4), (16, 128, 128)),
        (axes(30, 8, 8), (32, 64, 64)),
        (axes(4, 16, 16), (128, 32, 32)),
        (axes(1e6, 1, 1), (1, 512, 512)),
        (axes(10, 1, 1, None), (16, 128, 128)),
        (UNCALIBRATED, (64, 64, 64)),
        ((Axis("z", 50, "nanometer"), Axis("y", 4.6), Axis("x", 4.6)), (64, 64, 64)),
    ],
)
def test_chunks_are_nearly_cubes_in_space(sizes: SpaceAxes, chunk: Triple) -> None:
    assert default_chunk(LARGE, sizes) == chunk


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [((1, 5000, 5000), (1, 512, 512)), ((20, 5000, 5000), (16, 128, 128)), ((5, 40, 30), (5, 40, 30))],
)
def test_chunks_end_with_the_map_and_grow_in_the_others(shape: Triple, chunk: Triple) -> None:
    assert default_chunk(shape, axes(50, 4.6, 4.6)) == chunk


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((1000, 5000, 5000), (64, 64, 64), None),
        ((4000, 10000, 10000), (64, 64, 64), (64, 512, 512)),
        ((4000, 10000, 10000), (16, 128, 128), (16, 1024, 1024)),
        ((4000, 10000, 10000), (1, 512, 512), (1, 4096, 4096)),
        ((4000, 10000, 10000), (30, 100, 70), (30, 700, 700)),
        ((1 << 20, 1 << 20, 1 << 20), (256, 512, 512), (256, 512, 512)),
    ],
)
def test_shards_come_with_too_many_files(shape: Triple, chunk: Triple, shard: Triple | None) -> None:
    assert default_shard(shape, chunk) == shard


def test_shards_of_a_petabyte_fit_into_memory_and_hold_whole_chunks() -> None:
    shape = (100_000, 100_000, 100_000)
    for ratio in (0.1, 1, 3, 10, 50):
        chunk = default_chunk(shape, axes(4 * ratio, 4, 4))
        shard = default_shard(shape, chunk)
        assert shard is not None
        assert math.prod(shard) <= 1 << 24
        assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))


def test_a_pyramid_makes_voxels_cubes_before_they_grow() -> None:
    levels = plan_levels((165, 3000, 4000), axes(50, 4.6, 4.6), (16, 128, 128), None, pyramid=True)
    assert [level.factors for level in levels] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 16, 16)]
    assert [level.shape for level in levels] == [
        (165, 3000, 4000),
        (165, 1500, 2000),
        (165, 750, 1000),
        (165, 375, 500),
        (83, 188, 250),
    ]
    assert [level.path for level in levels] == ["0", "1", "2", "3", "4"]
    assert {level.chunk for level in levels} == {(16, 128, 128)}


def test_an_axis_of_short_voxels_is_halved_first() -> None:
    levels = plan_levels((4000, 300, 300), axes(2, 8, 8), (64, 64, 64), None, pyramid=True)
    assert [level.factors for level in levels] == [(1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 2, 2)]


@pytest.mark.parametrize("shape", [(1, 9, 5000), (3, 5000, 1), (1, 1, 1), (1, 1, 1 << 60)])
def test_a_pyramid_ends_whatever_the_shape(shape: Triple) -> None:
    levels = plan_levels(shape, axes(50, 4, 4), (64, 64, 64), (64, 128, 128), pyramid=True)
    assert max(levels[-1].shape[1:]) <= 256
    assert all(min(level.shape) >= 1 for level in levels)


def test_without_a_pyramid_there_is_one_level() -> None:
    assert len(plan_levels(LARGE, UNCALIBRATED, (64, 64, 64), None, pyramid=False)) == 1


def test_shards_end_with_the_last_chunk_of_their_level() -> None:
    levels = plan_levels((20, 1000, 1000), axes(8, 8, 8), (64, 64, 64), (128, 512, 512), pyramid=True)
    assert [(level.chunk, level.shard) for level in levels] == [
        ((20, 64, 64), (20, 512, 512)),
        ((10, 64, 64), (10, 512, 512)),
        ((5, 64, 64), (5, 256, 256)),
    ]
    assert [level.unit for level in levels] == [level.shard for level in levels]


@pytest.mark.parametrize(
    ("chunk", "shard", "words"),
    [
        ((0, 64, 64), None, "chunk is 0,64,64; each extent must be at least 1"),
        ((1024, 1024, 1024), None, "all of it at most 2^28 voxels"),
        (
            (64, 64, 64),
            (64, 100, 128),
            r"shard is 64,100,128, chunk is 64,64,64; .* multiple in each axis, e\.g\. 64,128,128",
        ),
        ((64, 64, 64), (32, 64, 64), r"e\.g\. 64,64,64"),
        ((64, 64, 64), (0, 64, 64), r"e\.g\. 64,64,64"),
        ((64, 64, 64), (1024, 1024, 1024), r"shard is 1024,1024,1024; it may have at most 2\^28 voxels"),
    ],
)
def test_chunks_and_shards_that_do_not_fit_are_refused(chunk: Triple, shard: Triple | None, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("2^28", r"2\^28")):
        plan_levels(LARGE, UNCALIBRATED, chunk, shard, pyramid=True)


def naive(block: np.ndarray[Any, Any], factors: Triple) -> np.ndarray[Any, Any]:
    """Voxel by voxel in exact arithmetic of whole numbers, or in float64."""
    shape = [-(-n // f) for n, f in zip(block.shape, factors, strict=True)]
    result = np.empty(shape, block.dtype)
    for index in np.ndindex(*shape):
        part = block[tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))]
        if block.dtype == np.uint8:
            quotient, rest = divmod(int(part.sum(dtype=np.int64)), part.size)
            up = 2 * rest > part.size or (2 * rest == part.size and quotient % 2 == 1)
            result[index] = quotient + up
        else:
            result[index] = part.mean(dtype=np.float64)
    return result


extents = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
small = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


@given(shape=extents, factors=small, dtype=st.sampled_from(["uint8", "float16", "float32"]), seed=st.integers(0, 2**32))
def test_downsampling_is_the_mean(shape: Triple, factors: Triple, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    block = rng.integers(0, 256, shape).astype(np.uint8) if dtype == "uint8" else rng.random(shape).astype(dtype)
    result = downsample(block, factors)
    assert result.dtype == block.dtype
    if dtype == "uint8":
        np.testing.assert_array_equal(result, naive(block, factors))
    else:
        np.testing.assert_allclose(result, naive(block, factors), rtol=1e-3 if dtype == "float16" else 1e-6)


def test_bright_voxels_do_not_overflow() -> None:
    assert (downsample(np.full((40, 40, 40), 255, np.uint8), (20, 20, 20)) == 255).all()


@given(
    shape=extents,
    voxel=small,
    blocks=small,
    dtype=st.sampled_from(["uint8", "float16", "float32"]),
    seed=st.integers(0, 99),
)
def test_a_level_made_block_by_block_is_the_level_made_whole(
    shape: Triple, voxel: Triple, blocks: Triple, dtype: str, seed: int
) -> None:
    shape = (shape[0], shape[1] * 40, shape[2] * 40)
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 256, shape).astype(np.uint8) if dtype == "uint8" else rng.random(shape).astype(dtype)
    levels = plan_levels(shape, axes(*map(float, voxel)), (3, 64, 64), None, pyramid=True)
    whole = volume
    for number in range(1, len(levels)):
        made = np.empty(levels[number].shape, volume.dtype)
        for box in BlockGrid(Box.of_shape(levels[number].shape), (blocks[0] * 3, blocks[1] * 64, blocks[2] * 64)):
            source, factors = source_box(levels, number, box)
            made[box.slices] = downsample(whole[source.slices], factors)
        np.testing.assert_array_equal(made, downsample(whole, factors))
        whole = made
