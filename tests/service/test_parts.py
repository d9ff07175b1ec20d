"""From stored voxels to stored probabilities, on the host and in a lane of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from emboundary.model.repository import load_model
from emboundary.service.engine import Answer, OnnxEngine, Part
from emboundary.service.engine.lane import Lane
from emboundary.service.engine.lanes import Lanes
from emboundary.service.engine.place import Place
from emboundary.service.engine.sessions import CPU, open_session, session_options
from emboundary.service.errors import DeviceError
from emboundary.service.run.parts import answers, image_of

ALL = slice(None)
TYPES = ["uint8", "int8", "uint16", "int16", "float32", "int32", "uint32", "float64", ">u2", ">f4"]


def open_graph(file: Path) -> Any:
    return ort.InferenceSession(str(file), session_options(), providers=CPU)


@pytest.fixture
def host(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


@pytest.fixture
def lanes(repository: Path) -> Lanes:
    """Two lanes as they run on a GPU, on the CPU."""
    entry = load_model("d4", repository)

    def make() -> list[Lane]:
        sessions = [open_session(entry, entry.path, CPU, session_options()) for _ in range(2)]
        return [Lane(session, entry.description, Place(), open_graph) for session in sessions]

    return Lanes(make)


def voxels(dtype: str, shape: tuple[int, ...] = (2, 1, 24, 36), seed: int = 0) -> NDArray[Any]:
    values = np.random.default_rng(seed).integers(0, 120, shape)
    return values.astype(dtype)


def same(found: list[Answer], expected: list[Answer]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.stored.dtype == other.stored.dtype
        np.testing.assert_array_equal(one.stored, other.stored)
        assert one.finite == other.finite


@pytest.mark.parametrize("stored", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_device_gives_the_bits_that_the_host_gives(host: OnnxEngine, lanes: Lanes, dtype: str, stored: Any) -> None:
    part = Part(voxels(dtype), 61.7, 33.3, slice(8, 20), slice(4, 36), stored)
    found = lanes.map([part])
    assert found[0].stored.shape == (2, 1, 12, 32)
    same(found, answers(host, [part]))


def test_parts_of_all_kinds_share_a_run(host: OnnxEngine, lanes: Lanes) -> None:
    parts = [
        Part(voxels("uint8", (1, 1, 24, 24), 1), 50.0, 20.0, slice(4, 12), ALL, "uint8"),
        Part(voxels("uint16", (2, 1, 24, 24), 2), 60.0, 30.0, ALL, slice(8, 16), "float32"),
        Part(voxels("float32", (1, 1, 24, 24), 3), 0.0, 1.0, ALL, ALL, "float16"),
    ]
    found = lanes.map(parts, (32, 40))
    same(found, answers(host, parts, (32, 40)))
    same(found, [answers(host, [part])[0] for part in parts])


@pytest.mark.parametrize("counts", [(7,), (3, 4), (1, 5, 1)])
def test_runs_of_powers_of_two_give_the_same(host: OnnxEngine, counts: tuple[int, ...]) -> None:
    parts = [Part(voxels("uint8", (n, 1, 24, 24), n), 60.0, 30.0, ALL, ALL, "uint8") for n in counts]
    shapes = []

    class Watched:
        footprint, outputs = host.footprint, host.outputs

        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            shapes.append(images.shape[0])
            return host.run(images)

    found = answers(Watched(), parts, powers=True)
    assert shapes == [4, 2, 1]
    same(found, answers(host, parts))


@pytest.mark.parametrize("stored", ["uint8", "float16", "float32"])
def test_what_is_no_number_is_told(host: OnnxEngine, lanes: Lanes, stored: Any) -> None:
    images = voxels("float32")
    images[0, 0, :4, :4] = np.inf
    wanted = Part(images, 0.0, 1.0, slice(0, 4), slice(0, 4), stored)
    unharmed = Part(images, 0.0, 1.0, slice(16, 24), slice(28, 36), stored)
    for part, finite in ((wanted, False), (unharmed, True)):
        assert [answer.finite for answer in (*lanes.map([part]), *answers(host, [part]))] == [finite, finite]


def test_images_that_come_again_get_the_same_map(lanes: Lanes) -> None:
    part, other = (Part(voxels("uint8", (1, 1, 24, 24), seed), 60.0, 30.0, ALL, ALL) for seed in (1, 2))
    first = lanes.map([part])
    assert not np.array_equal(lanes.map([other])[0].stored, first[0].stored)
    same(lanes.map([part]), first)


def test_lanes_give_images_as_an_engine_does(host: OnnxEngine, lanes: Lanes) -> None:
    images = np.random.default_rng(0).normal(size=(3, 1, 24, 36)).astype(np.float32)
    np.testing.assert_array_equal(lanes.run(images), host.run(images))


def test_a_bare_run_can_be_repeated_between_others(host: OnnxEngine, lanes: Lanes) -> None:
    part = Part(voxels("uint8", (1, 1, 24, 24)), 60.0, 30.0, ALL, ALL)
    for runner in (lanes, host):
        bare = runner.bare(1, 24, 24)
        bare()
        bare()
    same(lanes.map([part]), answers(host, [part]))


def test_a_lane_that_fails_is_free_again(lanes: Lanes) -> None:
    wrong = Part(voxels("uint8", (1, 1, 23, 24)), 60.0, 30.0, ALL, ALL)
    for _ in range(3):
        with pytest.raises(DeviceError, match=r"cpu failed on images of shape \(1, 1, 23, 24\): .*smaller --tile"):
            lanes.map([wrong])
    assert lanes.map([Part(voxels("uint8", (1, 1, 24, 24)), 60.0, 30.0, ALL, ALL)])[0].finite


def test_lanes_can_be_opened_anew(lanes: Lanes) -> None:
    part = Part(voxels("uint8"), 60.0, 30.0, ALL, ALL)
    before = lanes.map([part])
    lanes.reopen()
    assert len(lanes) == 2
    same(lanes.map([part]), before)


def test_busy_time_counts_lanes_side_by_side_once(repository: Path) -> None:
    entry = load_model("d4", repository)
    times = iter(range(100))
    session = open_session(entry, entry.path, CPU, session_options())
    lanes = Lanes(lambda: [Lane(session, entry.description, Place(), open_graph)] * 2, clock=lambda: float(next(times)))
    with lanes._lane():  # from 0
        with lanes._lane():
            assert lanes.busy_seconds == 1
        assert lanes.busy_seconds == 2
    assert lanes.busy_seconds == 3  # until 3, whatever the clock says now


def test_normalised_images_are_not_copied() -> None:
    images = np.zeros((1, 1, 8, 8), np.float32)
    assert image_of(Part(images, 0.0, 1.0, ALL, ALL)) is images
