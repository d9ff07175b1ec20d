from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.segmentation import watershed

from emboundary.training.metrics import v_rand
from emboundary.training.scoring.segmentation import (
    section_components,
    section_labels,
    thinned_regions,
    watershed_sections,
)
from emboundary.training.synthetic import membranes

Labels = NDArray[Any]
Mask = NDArray[np.bool_]


def flood(labels: Labels) -> Labels:
    """4-connected pieces of equal non-zero labels of a section, by flooding from every pixel."""
    pieces = np.zeros(labels.shape, np.int64)
    count = 0
    for start in np.ndindex(labels.shape):
        if not labels[start] or pieces[start]:
            continue
        count += 1
        pieces[start] = count
        queue = deque([start])
        while queue:
            for pixel in around(queue.popleft(), labels.shape):
                if labels[pixel] == labels[start] and not pieces[pixel]:
                    pieces[pixel] = count
                    queue.append(pixel)
    return pieces


def around(pixel: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    y, x = pixel
    neighbours = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [(j, i) for j, i in neighbours if 0 <= j < shape[0] and 0 <= i < shape[1]]


def same_partition(one: Labels, other: Labels) -> bool:
    """Whether two labellings differ in names only, 0 included."""
    pairs = set(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@settings(deadline=None, max_examples=60)
@given(arrays(np.int16, (3, 6, 7), elements=st.integers(0, 3)))
def test_components_are_what_flooding_finds_and_none_is_in_two_sections(labels: NDArray[np.int16]) -> None:
    pieces = section_components(labels)
    assert pieces.dtype == np.uint64
    assert all(same_partition(piece, flood(section)) for piece, section in zip(pieces, labels, strict=True))
    assert ((pieces == 0) == (labels == 0)).all()
    numbers = [set(piece[piece > 0].tolist()) for piece in pieces]
    assert sum(map(len, numbers)) == len(set().union(*numbers))


@settings(deadline=None, max_examples=60)
@given(arrays(bool, (2, 6, 7)))
def test_regions_are_the_components_of_what_is_no_boundary(boundary: Mask) -> None:
    np.testing.assert_array_equal(section_labels(boundary), section_components(~boundary))


def test_regions_that_touch_at_a_corner_are_two() -> None:
    assert section_labels(np.array([[[False, True], [True, False]]])).max() == 2


@pytest.mark.parametrize("gap", [1, 2, 3, 4, 5])
def test_a_straight_boundary_of_any_width_becomes_a_line_of_one_pixel(gap: int) -> None:
    boundary = np.zeros((5, 20), bool)
    boundary[:, 7 : 7 + gap] = True
    line = thinned_regions(boundary) == 0
    np.testing.assert_array_equal(line.sum(axis=1), 1)
    np.testing.assert_array_equal(line, line[:1].repeat(5, axis=0))
    assert abs(int(np.flatnonzero(line[0])[0]) - (7 + (gap - 1) / 2)) <= 0.5


@pytest.mark.parametrize("flip", [1, -1])
def test_a_slanting_boundary_becomes_a_line_without_corners(flip: int) -> None:
    y, x = np.indices((12, 12))
    boundary = (abs(x - y) <= 2)[:, ::flip]
    line = thinned_regions(boundary) == 0
    np.testing.assert_array_equal(line.sum(axis=1), 1)


def test_a_membrane_that_ends_inside_a_region_vanishes() -> None:
    boundary = np.zeros((7, 9), bool)
    boundary[3, :5] = True
    assert (thinned_regions(boundary) == 1).all()


@pytest.mark.parametrize("value", [False, True])
def test_a_section_of_one_kind_is_one_region(value: bool) -> None:
    assert (thinned_regions(np.full((4, 5), value)) == 1).all()


MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_thinning_keeps_every_region_apart_and_loses_none(boundary: Mask) -> None:
    regions = thinned_regions(boundary)
    if not boundary.all():
        outside = np.where(boundary, 0, regions)
        assert same_partition(outside, flood(~boundary)), "each component has kept its pixels and has its own label"
    for pixel in np.ndindex(regions.shape):
        for other in around(pixel, regions.shape):
            assert regions[pixel] == regions[other] or not (regions[pixel] and regions[other])


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_boundary_pixels_go_to_the_nearest_region_and_lines_lie_between_two(boundary: Mask) -> None:
    regions = thinned_regions(boundary)
    components = flood(~boundary)
    if components.max() < 2:
        return
    y, x = np.indices(boundary.shape)
    for pixel in zip(*np.nonzero(boundary), strict=True):
        away = abs(y - pixel[0]) + abs(x - pixel[1])
        distance = [int(away[components == number].min()) for number in range(1, int(components.max()) + 1)]
        if regions[pixel]:
            own = away[~boundary & (regions == regions[pixel])].min()
            assert own == min(distance)
        else:
            first, second = sorted(distance)[:2]
            assert second - first <= 1


def test_it_scores_as_a_watershed_with_lines_does() -> None:
    target = membranes((2, 96, 96), seed=1)[1] > 0
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(target.shape), (0, 2, 2))
    boundary = target ^ (noise > 1.2 * noise.std())
    truth = section_labels(target)
    for section, true in zip(boundary, truth, strict=True):
        seeds = flood(~section)
        flooded = watershed(section.astype(np.uint8), seeds, connectivity=1, watershed_line=True)
        ours = v_rand(true, thinned_regions(section))
        theirs = v_rand(true, flooded)
        assert ours.f < 0.9
        assert ours.f == pytest.approx(theirs.f, abs=0.003)


# Watershed


def two_cells() -> NDArray[np.float32]:
    """Two sections of two cells each, with a membrane of probability 0.9 and a gap in it of 0.3."""
    probability = np.full((2, 21, 41), 0.05, np.float32)
    probability[:, :, 19:22] = 0.9
    probability[:, 9:12, 19:22] = 0.3
    return probability


def test_a_gap_in_a_membrane_does_not_join_two_cells() -> None:
    probability = two_cells()
    assert section_labels(probability >= 0.5).max() == 2, "one region a section, for it leaks"
    fragments = watershed_sections(probability)
    assert fragments.dtype == np.uint64
    assert fragments.min() == 1
    assert len(np.unique(fragments)) == 4
    for section in fragments:
        left, right = np.unique(section[:, :19]), np.unique(section[:, 22:])
        assert len(left) == len(right) == 1
        assert left != right
    assert not np.intersect1d(fragments[0], fragments[1]).size


def test_fragments_are_4_connected() -> None:
    probability = np.random.default_rng(0).random((2, 24, 24), dtype=np.float32)
    fragments = watershed_sections(probability, sigma=1.0)
    assert len(np.unique(fragments)) > 4
    assert all(same_partition(section, flood(section)) for section in fragments)


def test_more_smoothing_gives_fewer_fragments() -> None:
    probability = np.random.default_rng(0).random((1, 64, 64), dtype=np.float32)
    counts = [int(watershed_sections(probability, sigma=sigma).max()) for sigma in (1.0, 2.0, 4.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] > 0


def test_a_section_without_boundary_is_one_fragment_and_one_all_boundary_none() -> None:
    probability = np.stack([np.zeros((5, 6)), np.ones((5, 6)), np.zeros((5, 6))])
    fragments = watershed_sections(probability)
    np.testing.assert_array_equal(fragments[:, 0, 0], [1, 0, 2])
    assert all(len(np.unique(section)) == 1 for section in fragments)


def test_what_is_no_map_is_refused() -> None:
    good = np.zeros((1, 4, 4))
    with pytest.raises(ValueError, match=r"^probability has shape \(4, 4\); give one \(z, y, x\)$"):
        watershed_sections(good[0])
    with pytest.raises(ValueError, match=r"^probability is in \[0, 2\]; it must be in \[0, 1\]: put logits through a "):
        watershed_sections(good + np.eye(4) * 2)
    with pytest.raises(ValueError, match=r"^probability is in \[nan, nan\]; it must be in \[0, 1\]"):
        watershed_sections(good * np.nan)
    with pytest.raises(ValueError, match=r"^threshold is 1\.5; it must be in \(0, 1\]"):
        watershed_sections(good, threshold=1.5)
    with pytest.raises(ValueError, match=r"^sigma is -1; it must be 0 \(no smoothing\) or a width in pixels$"):
        watershed_sections(good, sigma=-1)
    with pytest.raises(ValueError, match=r"^boundary is float64 of shape \(1, 4, 4\); it must be boolean \(z, y, x\)$"):
        section_labels(good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^boundary is float64 of shape \(1, 4, 4\); it must be boolean \(y, x\)$"):
        thinned_regions(good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^labels are float64 of shape \(1, 4, 4\); they must be integer ids "):
        section_components(good)
