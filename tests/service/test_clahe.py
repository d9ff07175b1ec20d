from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.service.errors import InputError, UsageError
from emboundary.service.preparing.clahe import Clahe
from emboundary.service.preparing.intensity import measure
from emboundary.service.volumes.axes import Axis, SpaceAxes


class Section:
    """An array as a volume on disk, which counts what is read."""

    where = "stack.tif"
    axes: SpaceAxes = (Axis("z"), Axis("y"), Axis("x"))

    def __init__(self, array: NDArray[Any], depth: int = 1) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.chunks = (depth, *array.shape[1:])
        self.read: list[tuple[int, int]] = []

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        self.read.append((key[0].start, key[0].stop))
        return self.array[key]


def uneven(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    """Noise whose brightness and contrast fall from one side to the other; nowhere 0."""
    light = np.linspace(1.0, 0.2, shape[-1])
    noise = np.random.default_rng(0).normal(150, 25, shape) * light
    return (np.clip(noise, 1, 255) * (1 if dtype == "uint8" else 200)).astype(dtype)


def everything(volume: Any) -> Any:
    return volume[tuple(slice(0, n) for n in volume.shape)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sections_are_equalised_whole_whatever_is_asked_for(dtype: str) -> None:
    array = uneven(3, 300, 413, dtype=dtype)
    volume = Clahe(Section(array))
    whole = everything(volume)
    expected = [cv2.createCLAHE(3.0, (3, 2)).apply(section) for section in array]
    np.testing.assert_array_equal(whole, expected)
    for key in [(slice(1, 2), slice(0, 300), slice(0, 413)), (slice(0, 3), slice(17, 80), slice(400, 413))]:
        np.testing.assert_array_equal(Clahe(Section(array))[key], whole[key])
    assert (volume.shape, volume.dtype, volume.where) == (array.shape, array.dtype, "stack.tif")
    assert volume.parameters() == {"library": f"opencv {cv2.__version__}", "clip_limit": 3.0, "tiles_y_x": [2, 3]}


def test_uneven_contrast_is_evened() -> None:
    array = uneven(1, 256, 1024)
    bright, dark = slice(0, 128), slice(896, 1024)
    found = everything(Clahe(Section(array)))
    assert array[..., dark].std() < 0.35 * array[..., bright].std()
    assert found[..., dark].std() > 2 * array[..., dark].std()
    assert found[..., dark].std() > 0.35 * found[..., bright].std()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 700), (2, 700, 1), (1, 130, 129), (1, 5, 5)])
def test_sections_of_any_side_keep_their_shape(shape: tuple[int, int, int]) -> None:
    assert everything(Clahe(Section(uneven(*shape)))).shape == shape


def test_fill_stays_fill() -> None:
    array = uneven(2, 200, 600)
    array[:, :, 480:] = 0
    array[1] = 0
    found = everything(Clahe(Section(array)))
    assert (found[:, :, 480:] == 0).all()
    assert (found[1] == 0).all()
    assert found[0, :, :480].any()
    assert measure(Clahe(Section(array))).record["excluded_fill"] >= 200 * 720


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_a_layer_of_chunks_is_read_once(depth: int) -> None:
    array = uneven(10, 20, 30)
    source = Section(array, depth)
    volume = Clahe(source)
    expected = everything(Clahe(Section(array)))
    for z in range(9):
        np.testing.assert_array_equal(volume[z : z + 2, 0:20, 0:30], expected[z : z + 2])
    assert source.read == [(z, min(10, z + depth)) for z in range(0, 10, depth)]


def test_slabs_do_not_cross_layers_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.preparing.clahe._SECTION_BYTES", 3 * 600)
    source = Section(uneven(10, 20, 30), 4)
    everything(Clahe(source))
    assert source.read == [(0, 3), (3, 4), (4, 7), (7, 8), (8, 10)]


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emboundary.service.preparing.clahe._KEPT_BYTES", 2 * 600)
    source = Section(uneven(4, 20, 30))
    volume = Clahe(source)
    for z in (0, 1, 0, 2, 0, 1, 3, 3):
        volume[z : z + 1, 0:20, 0:30]
    assert [start for start, _ in source.read] == [0, 1, 2, 1, 3]


def test_threads_share_a_section_that_is_being_equalised() -> None:
    waiting = threading.Barrier(4, timeout=30)
    held = threading.Event()

    class Slow(Section):
        def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
            held.wait(30)
            return super().__getitem__(key)

    source = Slow(uneven(1, 300, 300))
    volume = Clahe(source)

    def ask(_: int) -> NDArray[Any]:
        waiting.wait()
        return volume[0:1, 0:300, 0:300]

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, n) for n in range(4)]
        held.set()
        found = [answer.result(30) for answer in answers]
    assert len(source.read) == 1
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])


def test_a_section_that_cannot_be_read_is_tried_again_when_it_is_asked_for_again() -> None:
    class Flaky(Section):
        def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
            block = super().__getitem__(key)
            if len(self.read) == 1:
                raise InputError("chunk 0 is damaged")
            return block

    volume = Clahe(Flaky(uneven(1, 20, 30)))
    with pytest.raises(InputError, match="chunk 0 is damaged"):
        volume[0:1, 0:20, 0:30]
    assert volume[0:1, 0:20, 0:30].any()


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(UsageError, match=rf"works on uint8 and uint16, stack\.tif is {dtype}; convert it"):
        Clahe(Section(np.zeros((1, 4, 4), dtype)))


def test_sections_beyond_the_bound_are_refused() -> None:
    vast = np.broadcast_to(np.uint16(1), (3, 20000, 10000))
    with pytest.raises(UsageError, match="have 400000000 bytes, at most 268435456 are accepted; leave --clahe out"):
        Clahe(Section(vast))


@pytest.mark.parametrize(("clip_limit", "tile"), [(0.0, 128), (float("nan"), 128), (3.0, 7)])
def test_parameters_that_make_no_sense_are_refused(clip_limit: float, tile: int) -> None:
    with pytest.raises(UsageError, match=r"the limit must be above 0 and a tile at least 8 pixels"):
        Clahe(Section(uneven(1, 9, 9)), clip_limit, tile)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"not installed; pip install 'emboundary\[clahe\]', or leave --clahe out"):
        Clahe(Section(uneven(1, 9, 9)))


def test_opencv_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, emboundary.service.preparing.clahe; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
