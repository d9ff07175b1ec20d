import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box, Footprint, neighbours, read_reflected, reflect, round_up

extents = st.integers(1, 12)
triples = st.tuples(extents, extents, extents)


@st.composite
def rois(draw: st.DrawFn) -> Box:
    start = draw(st.tuples(*[st.integers(0, 20)] * 3))
    shape = draw(triples)
    return Box(start, (start[0] + shape[0], start[1] + shape[1], start[2] + shape[2]))


@settings(deadline=None, max_examples=60)
@given(roi=rois(), block=triples)
def test_blocks_cover_the_roi_exactly_once(roi: Box, block: tuple[int, int, int]) -> None:
    covered = np.zeros(roi.stop, dtype=int)
    blocks = list(BlockGrid(roi, block))
    for box in blocks:
        assert roi.contains(box)
        covered[box.slices] += 1
    assert np.all(covered[roi.slices] == 1)
    assert covered.sum() == roi.voxels
    assert len(blocks) == len(BlockGrid(roi, block))


@settings(deadline=None, max_examples=60)
@given(roi=rois(), block=triples)
def test_blocks_begin_where_those_of_the_whole_volume_begin(roi: Box, block: tuple[int, int, int]) -> None:
    for box in BlockGrid(roi, block):
        for start, first, extent in zip(box.start, roi.start, block, strict=True):
            assert start == first or start % extent == 0


@settings(deadline=None)
@given(length=st.integers(1, 7), before=st.integers(0, 30), after=st.integers(0, 30))
def test_reflection_is_that_of_numpy_even_when_repeated(length: int, before: int, after: int) -> None:
    inside = reflect(np.arange(-before, length + after), length)
    np.testing.assert_array_equal(inside, np.pad(np.arange(length), (before, after), mode="reflect"))


@settings(deadline=None, max_examples=40)
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)), data=st.data())
def test_reading_a_box_reads_the_reflected_volume(shape: tuple[int, int, int], data: st.DataObject) -> None:
    volume = np.arange(np.prod(shape)).reshape(shape)
    margin = 15
    padded = np.pad(volume, margin, mode="reflect")
    start = data.draw(st.tuples(*[st.integers(-margin, n + margin - 1) for n in shape]))
    stop = data.draw(st.tuples(*[st.integers(a + 1, n + margin) for a, n in zip(start, shape, strict=True)]))
    box = Box(start, stop)
    np.testing.assert_array_equal(read_reflected(volume, box), padded[box.relative_to((-margin,) * 3).slices])


class Recording:
    """A volume that remembers what was asked of it."""

    def __init__(self, array: NDArray[np.int64]) -> None:
        self.array = array
        self.shape = array.shape
        self.requests: list[tuple[slice, slice, slice]] = []

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.int64]:
        self.requests.append(key)
        return self.array[key]


def test_only_the_voxels_that_are_needed_are_read_in_one_request() -> None:
    volume = Recording(np.arange(2 * 50 * 60).reshape(2, 50, 60))
    read_reflected(volume, Box((1, -4, 55), (2, 3, 64)))
    assert volume.requests == [(slice(1, 2), slice(0, 5), slice(55, 60))]


@settings(deadline=None)
@given(roi=rois(), stride=triples, halo=st.tuples(*[st.integers(0, 3)] * 3))
def test_read_boxes_are_aligned_to_the_origin_and_hold_the_halo(
    roi: Box, stride: tuple[int, int, int], halo: tuple[int, int, int]
) -> None:
    footprint = Footprint((halo[0] * stride[0], halo[1] * stride[1], halo[2] * stride[2]), stride)
    read = footprint.read_box(roi)
    for axis in range(3):
        assert read.start[axis] % stride[axis] == read.stop[axis] % stride[axis] == 0
        assert 0 <= roi.start[axis] - (read.start[axis] + footprint.halo[axis]) < stride[axis]
        assert 0 <= (read.stop[axis] - footprint.halo[axis]) - roi.stop[axis] < stride[axis]


def test_box_arithmetic() -> None:
    box, other = Box((0, 2, 4), (1, 6, 10)), Box((0, 4, 0), (2, 8, 6))
    assert Box.of_shape((1, 2, 3)) == Box((0, 0, 0), (1, 2, 3))
    assert box.shape == (1, 4, 6)
    assert box.voxels == 24
    assert box.intersect(other) == Box((0, 4, 4), (1, 6, 6))
    assert box.contains(Box((0, 3, 4), (1, 6, 9)))
    assert not box.contains(other)
    assert box.relative_to((0, 2, 4)) == Box((0, 0, 0), (1, 4, 6))
    assert str(box) == "0:1,2:6,4:10"


def test_boxes_apart_have_an_empty_intersection() -> None:
    assert min(Box((0, 0, 0), (1, 2, 2)).intersect(Box((0, 5, 0), (1, 6, 2))).shape) < 0


@pytest.mark.parametrize(("value", "multiple", "expected"), [(0, 8, 0), (1, 8, 8), (8, 8, 8), (9, 8, 16)])
def test_round_up(value: int, multiple: int, expected: int) -> None:
    assert round_up(value, multiple) == expected


@pytest.mark.parametrize(("halo", "stride"), [((0, 4, 8), (1, 8, 8)), ((0, -8, 8), (1, 8, 8)), ((0, 0, 0), (0, 8, 8))])
def test_a_footprint_that_is_not_aligned_is_refused(halo: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"every halo must be a multiple >= 0 of its stride >= 1") as error:
        Footprint(halo, stride)
    assert str(halo) in str(error.value)


@pytest.mark.parametrize(("sections", "context"), [(4, 0), (4, 1), (4, 2), (3, 3), (2, 2), (1, 2)])
def test_neighbours_are_the_sections_around_reflected_as_numpy_pads(sections: int, context: int) -> None:
    volume = np.arange(sections * 6).reshape(sections, 2, 3)
    footprint = Footprint((context, 0, 0), (1, 1, 1))
    box = Box.of_shape((sections, 2, 3))
    found = neighbours(read_reflected(volume, footprint.read_box(box)), footprint.context)
    padded = np.pad(volume, ((context, context), (0, 0), (0, 0)), mode="reflect" if sections > 1 else "edge")
    assert found.shape == (sections, footprint.channels, 2, 3)
    for z in range(sections):
        np.testing.assert_array_equal(found[z], padded[z : z + 2 * context + 1])


def test_neighbours_are_no_copy() -> None:
    for context in (0, 1):
        sections = np.zeros((5, 2, 2))
        assert np.shares_memory(neighbours(sections, context), sections)


@pytest.mark.parametrize(("count", "context"), [(2, 1), (4, -1)])
def test_too_few_sections_have_no_neighbours(count: int, context: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^{count} sections with context {context}: a section and its neighbours are"
    ):
        neighbours(np.zeros((count, 2, 2)), context)


def test_an_empty_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^block is \(1, 0, 4\); every extent must be at least 1 voxel$"):
        BlockGrid(Box.of_shape((1, 8, 8)), (1, 0, 4))


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^box 0:1,3:3,0:2 is empty; every extent must be at least 1 voxel$"):
        read_reflected(np.zeros((1, 4, 4)), Box((0, 3, 0), (1, 3, 2)))


def test_an_empty_volume_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^length is 0; there is nothing to reflect in an empty axis$"):
        read_reflected(np.zeros((1, 0, 4)), Box((0, 0, 0), (1, 1, 1)))
