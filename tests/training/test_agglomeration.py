from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emboundary.training.scoring.agglomeration import agglomerate
from emboundary.training.scoring.segmentation import watershed_sections

Labels = NDArray[Any]


def one_join_after_another(probability: NDArray[Any], fragments: Labels, threshold: float) -> Labels:
    """Join the two fragments with the weakest mean boundary, measured anew each time, until none is weak enough.

    Where two boundaries are equally weak either may be joined; such an example proves nothing.
    """
    joined = fragments.copy()
    while True:
        contacts: dict[tuple[int, int], list[float]] = {}
        for voxel in np.ndindex(joined.shape):
            for axis in range(3):
                other = tuple(c + (a == axis) for a, c in enumerate(voxel))
                if other[axis] == joined.shape[axis] or joined[voxel] == joined[other]:
                    continue
                pair = sorted((int(joined[voxel]), int(joined[other])))
                if pair[0]:
                    contacts.setdefault((pair[0], pair[1]), []).append(max(probability[voxel], probability[other]))
        if not contacts:
            return joined
        strength = {pair: float(np.mean(values)) for pair, values in contacts.items()}
        weakest = min(strength, key=strength.__getitem__)
        ordered = sorted([*strength.values(), threshold])
        assume(len(ordered) == 1 or ordered[1] - ordered[0] > 1e-5)
        if strength[weakest] >= threshold:
            return joined
        joined[joined == weakest[1]] = weakest[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.3, 0.9))
def test_it_joins_the_weakest_boundary_first_until_none_is_weak(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random((2, 4, 5))
    fragments = rng.integers(0, 8, probability.shape).astype(np.uint64)
    expected = one_join_after_another(probability, fragments, threshold)
    found = agglomerate(probability, fragments, threshold)
    pairs = set(zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(expected)) == len(np.unique(found))
    assert ((found == 0) == (fragments == 0)).all()


def stack() -> NDArray[np.float32]:
    """Two neurons through three sections, the membrane between them shifting."""
    probability = np.full((3, 20, 60), 0.05, np.float32)
    for z in range(3):
        probability[z, :, 28 + z : 32 + z] = 0.95
    return probability


def test_two_neurons_through_a_stack_are_two() -> None:
    probability = stack()
    fragments = watershed_sections(probability)
    assert len(np.unique(fragments)) >= 6
    neurons = agglomerate(probability, fragments, 0.3)
    assert neurons.dtype == np.uint64
    np.testing.assert_array_equal(np.unique(neurons), [1, 2])
    assert (neurons[:, :, 10] == neurons[0, 0, 10]).all()
    assert (neurons[:, :, 50] == neurons[0, 0, 50]).all()


def test_sections_can_be_kept_apart() -> None:
    probability = stack()
    fragments = watershed_sections(probability)
    profiles = agglomerate(probability, fragments, 0.3, between_sections=False)
    np.testing.assert_array_equal(np.unique(profiles), np.arange(1, 7))
    for z in range(3):
        alone = agglomerate(probability[[z]], fragments[[z]], 0.3)
        np.testing.assert_array_equal(profiles[[z]], alone + np.uint64(2 * z))


def test_pixels_of_no_fragment_stay_so_in_every_section() -> None:
    fragments = np.array([[[1, 1, 0, 2]], [[0, 1, 1, 2]]], np.uint64)
    profiles = agglomerate(np.full(fragments.shape, 0.5), fragments, 0.1, between_sections=False)
    np.testing.assert_array_equal(profiles, [[[1, 1, 0, 2]], [[0, 3, 3, 4]]])


def test_the_fragments_are_left_as_they_were_and_labels_have_no_gaps() -> None:
    probability = stack()
    fragments = watershed_sections(probability) * np.uint64(2**60 // 100)
    before = fragments.copy()
    assert set(np.unique(agglomerate(probability, fragments, 0.3))) == {1, 2}
    np.testing.assert_array_equal(fragments, before)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    agglomerate(stack(), watershed_sections(stack()), 0.3)
    print("and standard output works again")  # noqa: T201
    assert capfd.readouterr().out == "and standard output works again\n"


@pytest.mark.parametrize("value", [0, 9])
def test_a_stack_of_one_fragment_or_none_has_nothing_to_join(value: int) -> None:
    fragments = np.full((2, 3, 3), value, np.int32)
    assert np.unique(agglomerate(np.zeros((2, 3, 3)), fragments, 0.5)).tolist() == [min(value, 1)]


def test_what_does_not_fit_is_refused() -> None:
    probability, fragments = np.zeros((1, 2, 3)), np.ones((1, 2, 3), np.int64)
    with pytest.raises(ValueError, match=r"^probability has shape \(1, 2, 3\), fragments \(1, 3, 2\); both must be "):
        agglomerate(probability, fragments.reshape(1, 3, 2), 0.5)
    with pytest.raises(ValueError, match=r"^fragments is int64; it must hold integer labels >= 0, 0 where there is "):
        agglomerate(probability, -fragments, 0.5)
    with pytest.raises(ValueError, match=r"^threshold is 2; it must be in \(0, 1\]"):
        agglomerate(probability, fragments, 2)
    with pytest.raises(ValueError, match=r"^probability is in \[3, 3\]"):
        agglomerate(probability + 3, fragments, 0.5)
