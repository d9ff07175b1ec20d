from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.geometry import Footprint
from emboundary.model.inception import Segmenter, Symmetry
from emboundary.model.repository import load_model
from emboundary.service.engine import OnnxEngine
from emboundary.training.crops.data import LabelledVolume
from emboundary.training.learning.runs import load_run
from emboundary.training.metrics import boundary_scores
from emboundary.training.scoring.evaluate import TorchEngine, VotingEngine, equivariance_error, segment

Map = NDArray[np.float32]
MakeNetwork = Callable[[Symmetry], Segmenter]

PIXEL = Footprint((0, 0, 0), (1, 1, 1))
BETWEEN = Footprint((1, 0, 0), (1, 1, 1))
# Large enough for the tiny networks' receptive field.
FOOTPRINT = Footprint((0, 40, 40), (1, 8, 8))


@dataclass(frozen=True)
class Lopsided:
    """A network without halo or stride whose answer depends on the place: it is brighter to the lower right."""

    footprint: Footprint = PIXEL
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Map) -> Map:
        _, _, y, x = images.shape
        slope = np.add.outer(np.linspace(0, 0.6, y), np.linspace(0, 0.3, x))
        return (images * 0.3 + slope).astype(np.float32)


@pytest.fixture(scope="module")
def section() -> Map:
    return np.random.default_rng(0).random((16, 24), dtype=np.float32)


def eight_views(section: Map) -> list[Map]:
    """The 8 aligned maps of a section, turned by numpy's own functions."""
    run = Lopsided().run
    maps = []
    for turns in range(4):
        turned = np.rot90(section, turns)
        maps.append(np.rot90(run(turned[None, None])[0, 0], -turns))
        maps.append(np.rot90(run(turned[None, None, :, ::-1])[0, 0, :, ::-1], -turns))
    return maps


def as_volume(section: Map) -> LabelledVolume:
    return LabelledVolume("one", section[None], section[None] > 0.5, 0.0, 1.0)


def test_torch_and_the_exported_file_give_the_same_map(trained: Path, published: Path, volume: LabelledVolume) -> None:
    exported = OnnxEngine.open(load_model(published), "cpu")
    torch_engine = TorchEngine(load_run(trained).network, exported.footprint)
    assert torch_engine.outputs == exported.outputs
    from_torch, _ = segment(torch_engine, volume)
    from_file, _ = segment(exported, volume)
    assert from_torch.shape == volume.raw.shape
    assert from_torch.std() > 1e-3
    np.testing.assert_allclose(from_torch, from_file, atol=1e-5)


def test_eight_passes_are_the_mean_of_the_aligned_maps(section: Map) -> None:
    probability, _ = segment(Lopsided(), as_volume(section), tta=True)
    np.testing.assert_allclose(probability[0], np.mean(eight_views(section), axis=0), atol=1e-6)


def test_eight_votes_give_their_share(section: Map) -> None:
    share, _ = segment(VotingEngine(Lopsided()), as_volume(section), tta=True)
    by_hand = np.mean([view >= 0.5 for view in eight_views(section)], axis=0)
    np.testing.assert_array_equal(share[0], by_hand)
    assert len(np.unique(share)) > 4, "the views disagree, or nothing was tested"


def test_one_vote_is_yes_or_no_and_one_half_is_a_yes() -> None:
    voting = VotingEngine(Lopsided())
    assert (voting.footprint, voting.outputs) == (Lopsided().footprint, ("boundary",))
    images = np.array([[[[0.5 / 0.3]]], [[[0.49 / 0.3]]]], np.float32)
    np.testing.assert_array_equal(voting.run(images).ravel(), [1.0, 0.0])


def test_seconds_are_those_of_the_maps(section: Map) -> None:
    _, seconds = segment(Lopsided(), as_volume(section))
    assert seconds > 0


def test_a_section_is_scored_as_its_intensities_are(section: Map) -> None:
    probability, _ = segment(Lopsided(), as_volume(section))
    np.testing.assert_allclose(probability[0], Lopsided().run(section[None, None])[0, 0], atol=1e-7)


def test_d4_is_symmetric_and_plain_is_not(network: MakeNetwork) -> None:
    section = np.random.default_rng(1).standard_normal((32, 40)).astype(np.float32)
    assert equivariance_error(TorchEngine(network("d4"), FOOTPRINT), section) < 1e-5
    assert equivariance_error(TorchEngine(network("plain"), FOOTPRINT), section) > 1e-3


def test_eight_passes_make_any_network_symmetric(section: Map) -> None:
    assert equivariance_error(Lopsided(), section) == pytest.approx(0.9, abs=0.01)
    assert equivariance_error(Lopsided(), section, tta=True) < 1e-6


def test_a_section_off_the_stride_has_no_equivariance_error() -> None:
    engine = Lopsided(Footprint((0, 8, 8), (1, 8, 8)))
    with pytest.raises(
        ValueError, match=r"^section is \(16, 20\); its sides must be multiples of the stride, \(8, 8\)$"
    ):
        equivariance_error(engine, np.zeros((16, 20), np.float32))


def test_scores_of_a_perfect_and_of_a_reversed_map() -> None:
    target = np.array([[[True, False], [False, True]]])
    probability = np.array([[[0.9, 0.2], [0.1, 0.8]]], np.float32)
    perfect = boundary_scores(target, probability)
    assert (perfect.roc_auc, perfect.average_precision, perfect.best_f1) == (1.0, 1.0, 1.0)
    assert perfect.threshold == pytest.approx(0.8)
    assert boundary_scores(target, 1 - probability).roc_auc == 0.0


@dataclass(frozen=True)
class Below:
    """A network of one neighbour on each side whose answer is the section below."""

    footprint: Footprint = BETWEEN
    outputs: tuple[str, ...] = ("boundary",)

    def run(self, images: Map) -> Map:
        return np.ascontiguousarray(images[:, 2:])


@pytest.mark.parametrize("tta", [False, True])
def test_a_network_with_context_sees_the_neighbours_and_reflections_of_the_last(tta: bool) -> None:
    raw = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    probability, _ = segment(Below(), LabelledVolume("three", raw, raw > 0.5, 0.0, 1.0), tta=tta)
    np.testing.assert_allclose(probability, raw[[1, 2, 1]], atol=1e-6)
