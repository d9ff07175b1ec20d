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
from emboundary.training.scoring.evaluate import TorchEngine, equivariance_error, segment

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
