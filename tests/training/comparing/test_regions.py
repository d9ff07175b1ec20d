from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from emboundary.training.comparing.regions import Labelled, Tile, apart, ranked, regions
from emboundary.training.crops.data import LabelledVolume

Map = NDArray[np.float32]


@pytest.fixture
def target() -> NDArray[np.bool_]:
    return np.random.default_rng(0).random((2, 20, 30)) < 0.3


def test_the_worst_tile_is_the_one_whose_map_is_wrong(target: NDArray[np.bool_]) -> None:
    probability = np.where(target, 0.9, 0.1).astype(np.float32)
    probability[1, 10:20, 20:30] = 0.5
    probability[0, 0:10, 10:20] = np.where(target[0, 0:10, 10:20], 0.99, 0.01)
    tiles = ranked(target, probability, side=10)
    assert len(tiles) == 12
    assert tiles[0] == Tile((1, 10, 20), pytest.approx(np.log(2)))
    assert tiles[-1] == Tile((0, 0, 10), pytest.approx(-np.log(0.99), rel=1e-4))


def test_tiles_of_one_class_and_what_the_grid_leaves_are_no_tiles(target: NDArray[np.bool_]) -> None:
    target[0, 0:8, 0:8] = False
    tiles = ranked(target, target.astype(np.float32), side=8)
    assert len(tiles) == 2 * 2 * 3 - 1
    assert (0, 0, 0) not in [tile.corner for tile in tiles]


def test_the_same_place_is_chosen_once() -> None:
    tiles = [Tile((0, 0, 0), 3.0), Tile((1, 0, 0), 2.0), Tile((5, 0, 8), 1.0), Tile((6, 8, 8), 0.5)]
    assert apart(tiles, 2) == [tiles[0], tiles[2]]
    assert apart(tiles, 9) == [tiles[0], tiles[2], tiles[3]]


def maps_of(volume: LabelledVolume) -> list[Labelled]:
    stored = (volume.target * 200 + 20).astype(np.uint8)
    return [Labelled("d4", stored), Labelled("plain", stored // 2), Labelled("plain + 8x", stored // 3)]


@pytest.mark.parametrize(("count", "width"), [(1, 676), (3, 1353)])
def test_the_regions_are_a_picture(tmp_path: Path, volume: LabelledVolume, count: int, width: int) -> None:
    regions(tmp_path / "p", volume, 4, maps_of(volume)[:count], each=1)
    with Image.open(tmp_path / "p") as image:
        assert (image.format, image.size[0]) == ("PNG", width)


def test_same_maps_same_bytes_and_other_maps_others(tmp_path: Path, volume: LabelledVolume) -> None:
    maps = maps_of(volume)
    brighter = replace(volume, raw=volume.raw**2)
    for name, where, shown in (
        ("one", volume, maps),
        ("again", volume, maps),
        ("other", volume, [maps[0], maps[2], maps[1]]),
        ("raw", brighter, maps),
    ):
        regions(tmp_path / name, where, 4, shown)
    one, again, other, raw = ((tmp_path / name).read_bytes() for name in ("one", "again", "other", "raw"))
    assert one == again
    assert one != other
    assert one != raw


def test_stored_levels_are_taken_at_their_middle() -> None:
    stored = np.array([[[0, 255]]], np.uint8)
    assert Labelled("x", stored).probability.tolist() == [[[0.5 / 256, 255.5 / 256]]]
