"""A map is the same wherever it was computed, as far as the arithmetic allows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emboundary.model.groups import D4, act
from emboundary.service.engine import GpuOptions, OnnxEngine, Part, find_model
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.run.inference import predict_array
from emboundary.service.run.parts import answers

ALL = slice(None)
STORED: Any = ("uint8", "float16", "float32")


@pytest.fixture(scope="module")
def intensity(stack: NDArray[np.uint8]) -> Intensity:
    return measure(stack).intensity


def difference(one: OnnxEngine, other: OnnxEngine, stack: NDArray[Any], intensity: Intensity, **more: Any) -> float:
    maps = [predict_array(engine, stack, intensity, **more) for engine in (one, other)]
    return float(np.abs(maps[0] - maps[1]).max())


def test_full_precision_agrees_with_the_cpu(
    gpu: OnnxEngine, cpu: OnnxEngine, stack: NDArray[np.uint8], intensity: Intensity
) -> None:
    assert difference(gpu, cpu, stack, intensity) <= 1e-4


def test_half_precision_agrees_with_the_cpu(
    half: OnnxEngine, cpu: OnnxEngine, stack: NDArray[np.uint8], intensity: Intensity
) -> None:
    assert difference(half, cpu, stack, intensity) <= 5e-3


@pytest.mark.parametrize("tile", [64, 104, 256])
def test_tiles_of_any_size_give_one_map(
    gpu: OnnxEngine, stack: NDArray[np.uint8], intensity: Intensity, tile: int
) -> None:
    whole = predict_array(gpu, stack, intensity, tile=512)
    assert np.abs(predict_array(gpu, stack, intensity, tile=tile) - whole).max() <= 1e-5


@pytest.mark.parametrize("g", D4.elements)
def test_a_turned_section_has_the_turned_map(
    gpu: OnnxEngine, stack: NDArray[np.uint8], intensity: Intensity, g: int
) -> None:
    upright = predict_array(gpu, stack, intensity)
    turned = predict_array(gpu, np.ascontiguousarray(act(g, stack)), intensity)
    assert np.abs(turned - act(g, upright)).max() <= 1e-5


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_same_voxels_give_the_same_bits(
    gpu: OnnxEngine, half: OnnxEngine, stack: NDArray[np.uint8], precision: str
) -> None:
    engine = gpu if precision == "float32" else half
    part = Part(stack[:, None], 128.0, 40.0, ALL, ALL, "float32")
    first = answers(engine, [part])[0].stored
    with ThreadPoolExecutor(2 * engine.lanes) as pool:  # all lanes, at once
        for again in pool.map(lambda _: answers(engine, [part])[0].stored, range(4 * engine.lanes)):
            np.testing.assert_array_equal(again, first)


def test_recorded_kernels_give_the_bits_of_those_that_are_not(gpu: OnnxEngine, stack: NDArray[np.uint8]) -> None:
    assert "CUDA graphs do not work" not in gpu.device_reason
    plain = OnnxEngine.open(find_model(), "cuda", gpu=GpuOptions(recording=False))
    for n in (1, 2, 1):  # a shape that comes again
        part = Part(stack[:n, None], 128.0, 40.0, ALL, ALL, "float32")
        np.testing.assert_array_equal(answers(gpu, [part])[0].stored, answers(plain, [part])[0].stored)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "int32"])
def test_normalising_and_storing_there_is_as_good_as_here(
    gpu: OnnxEngine, stack: NDArray[np.uint8], dtype: str, stored: Any
) -> None:
    voxels = (stack[:, None] // 2).astype(dtype)
    part = Part(voxels, 61.7, 33.3, slice(48, 208), slice(48, 208), stored)

    class OnHost:
        footprint, outputs, run = gpu.footprint, gpu.outputs, gpu.run

    there, here = answers(gpu, [part])[0], answers(OnHost(), [part])[0]
    assert there.stored.dtype == here.stored.dtype == stored
    np.testing.assert_array_equal(there.stored, here.stored)


def test_what_is_no_number_is_told(gpu: OnnxEngine) -> None:
    images = np.zeros((1, 1, 64, 64), np.float32)
    images[0, 0, 32, 32] = np.inf
    assert not answers(gpu, [Part(images, 0.0, 1.0, ALL, ALL, "uint8")])[0].finite
