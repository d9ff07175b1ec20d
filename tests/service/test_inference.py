from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box, Footprint
from emboundary.service.engine import IdentityEngine
from emboundary.service.errors import InputError, OutputError
from emboundary.service.inference import Map, predict_array, predict_box, run_blocks
from emboundary.service.intensity import Intensity

FOOTPRINT = Footprint((0, 12, 12), (1, 4, 4))
UNIT = Intensity(0.0, 1.0)


def ramp(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Every voxel different, all within [0, 1]."""
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("tile", [1, 7, 16, None])
@pytest.mark.parametrize("shape", [(3, 37, 50), (1, 1, 40), (2, 40, 1), (1, 1, 1), (2, 5, 3)])
def test_the_identity_comes_back_from_any_tiling(shape: tuple[int, int, int], tile: int | None, tta: bool) -> None:
    array = ramp(shape)
    found = predict_array(IdentityEngine(FOOTPRINT), array, UNIT, tile=tile, tta=tta)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, array, rtol=0, atol=2e-7)  # two units in the last place


@dataclass(frozen=True)
class WatchedEngine:
    """An identity that notes the shapes it was given."""

    footprint: Footprint = FOOTPRINT
    outputs: tuple[str, ...] = ("boundary",)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, images: Map) -> Map:
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        self.shapes.append(images.shape)
        return images.copy()


def test_engines_see_aligned_images_and_the_full_halo() -> None:
    engine = WatchedEngine()
    predict_box(engine, ramp((2, 64, 64)), Box((0, 10, 17), (1, 20, 30)), UNIT)
    # y: 8-12 to 20+12; x: 16-12 to 32+12
    assert engine.shapes == [(1, 1, 36, 40)]


def test_sections_share_a_batch_only_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = WatchedEngine()
    monkeypatch.setattr("emboundary.service.inference._BATCH_PIXELS", 2 * 40 * 40 + 1)
    array = ramp((5, 16, 16))
    np.testing.assert_array_equal(predict_array(engine, array, UNIT), array)
    assert [shape[0] for shape in engine.shapes] == [2, 2, 1]


class Watched:
    """A volume made up as it is read; notes how much was read at once."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.largest = 0

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        shape = [part.stop - part.start for part in key]
        self.largest = max(self.largest, int(np.prod(shape)))
        return np.full(shape, 100, dtype=np.uint8)


class Nowhere:
    """A sink that keeps nothing."""

    def write(self, box: Box, probability: Map) -> None:
        assert probability.shape == box.shape


def peak_bytes(sections: int) -> tuple[int, int]:
    """Peak of traced memory, and the most voxels read at once, over a volume of so many sections."""
    volume, engine = Watched((sections, 512, 512)), IdentityEngine(FOOTPRINT)
    tracemalloc.start()
    try:
        grid = BlockGrid(Box.of_shape(volume.shape), (2, 256, 256))
        run_blocks(grid, lambda box: predict_box(engine, volume, box, UNIT), Nowhere())
        return tracemalloc.get_traced_memory()[1], volume.largest
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_volume() -> None:
    peak, at_once = peak_bytes(80)
    read = 2 * (256 + 24) ** 2
    assert at_once <= read
    # Three results in float32, two raw blocks, and twice what normalising and running a section needs for a moment.
    assert peak < (3 * 4 + 2 * 1 + 2 * (8 + 4 + 4)) * read < 80 * 512 * 512 / 2


class Store:
    """A sink in memory that can be told to wait or to fail."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.array = np.full(shape, -1, dtype=np.float32)
        self.boxes: list[Box] = []
        self.open = threading.Event()
        self.open.set()

    def write(self, box: Box, probability: Map) -> None:
        self.open.wait()
        self.boxes.append(box)
        self.array[box.slices] = probability


def test_blocks_are_stored_as_they_are_ready_and_each_once() -> None:
    shape = (3, 20, 30)
    array, store = ramp(shape), Store(shape)
    advanced: list[int] = []

    def compute(box: Box) -> Map:
        time.sleep(0.002 if box.start[2] == 0 else 0)  # the first of each row comes late
        return array[box.slices]

    grid = BlockGrid(Box.of_shape(shape), (1, 8, 8))
    assert run_blocks(grid, compute, store, advanced.append) == len(grid)
    assert sorted(store.boxes, key=str) == sorted(grid, key=str)
    assert sum(advanced) == array.size
    np.testing.assert_array_equal(store.array, array)


def test_an_empty_grid_stores_nothing() -> None:
    store = Store((1, 1, 1))
    assert run_blocks(BlockGrid(Box((0, 0, 0), (0, 8, 8)), (1, 8, 8)), lambda box: ramp(box.shape), store) == 0
    assert store.boxes == []


def test_computing_waits_for_a_slow_disk() -> None:
    shape = (20, 8, 8)
    store = Store(shape)
    store.open.clear()
    begun: list[Box] = []

    def compute(box: Box) -> Map:
        begun.append(box)
        return np.zeros(box.shape, np.float32)

    run = threading.Thread(target=run_blocks, args=(BlockGrid(Box.of_shape(shape), (1, 8, 8)), compute, store))
    run.start()
    ahead = settled(begun)
    store.open.set()
    run.join()
    assert ahead <= 4  # one in the writer's hands, one waiting for it, two in the workers'
    assert len(begun) == 20


def settled(items: list[Any]) -> int:
    """How many items there are once no more come."""
    before = -1
    while len(items) != before:
        before = len(items)
        time.sleep(0.05)
    return before


def test_reading_and_computing_overlap() -> None:
    inside, overlapped = threading.Barrier(2, timeout=10), []

    def compute(box: Box) -> Map:
        inside.wait()  # breaks unless two blocks are under way at once
        overlapped.append(box)
        return np.zeros(box.shape, np.float32)

    run_blocks(BlockGrid(Box.of_shape((4, 8, 8)), (1, 8, 8)), compute, Store((4, 8, 8)))
    assert len(overlapped) == 4


def test_an_error_while_computing_ends_the_run() -> None:
    begun: list[Box] = []

    def compute(box: Box) -> Map:
        begun.append(box)
        if box.start[0] == 2:
            raise InputError("section 2 is damaged")
        return np.zeros(box.shape, np.float32)

    store = Store((50, 8, 8))
    with pytest.raises(InputError, match="section 2 is damaged"):
        run_blocks(BlockGrid(Box.of_shape((50, 8, 8)), (1, 8, 8)), compute, store)
    assert len(begun) <= 8
    assert all(box.start[0] != 2 for box in store.boxes)


def test_an_error_while_storing_ends_the_run() -> None:
    class Full:
        def write(self, *_: object) -> None:
            raise OutputError("no space left")

    begun: list[Box] = []

    def compute(box: Box) -> Map:
        begun.append(box)
        return np.zeros(box.shape, np.float32)

    with pytest.raises(OutputError, match="no space left"):
        run_blocks(BlockGrid(Box.of_shape((50, 8, 8)), (1, 8, 8)), compute, Full())
    assert len(begun) <= 8


def test_an_error_in_the_last_block_is_not_lost() -> None:
    class FullAtLast(Store):
        def write(self, box: Box, *_: object) -> None:
            if box.start[0] == 2:
                raise OutputError("no space left")

    store = FullAtLast((3, 8, 8))
    with pytest.raises(OutputError, match="no space left"):
        run_blocks(BlockGrid(Box.of_shape((3, 8, 8)), (1, 8, 8)), lambda box: np.zeros(box.shape, np.float32), store)


def test_values_that_are_not_finite_are_refused_in_memory_too() -> None:
    array = ramp((2, 8, 8))
    array[1, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"\(1, 2, 3\)"):
        predict_array(IdentityEngine(FOOTPRINT), array, UNIT)


def test_an_intensity_that_overflows_is_refused() -> None:
    with pytest.raises(InputError, match=r"normalised by intensity 0\.0,1e-300, voxel values become too large"):
        predict_array(WatchedEngine(), ramp((1, 8, 8)), Intensity(0.0, 1e-300))
