from pathlib import Path

import numpy as np
import pytest
import tifffile

from emboundary.service.errors import InputError
from emboundary.training.samples import Source, made_up_samples, read_samples, training_sources


def write(path: Path, shape: tuple[int, int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A stack whose sections are told apart by their brightness."""
    z, _, _ = shape
    stack = (
        np.random.default_rng(0).integers(0, 20, shape, dtype=np.uint8) + np.arange(z, dtype=np.uint8)[:, None, None]
    )
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    return stack


def normalised(
    stack: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return (stack - stack.mean()) / stack.std()


def test_no_section_is_measured_that_was_calibrated_on(tmp_path: Path) -> None:
    stack = normalised(write(tmp_path / "raw.tif", (12, 24, 20)))
    samples = read_samples([Source(tmp_path / "raw.tif", (0, 10))], 0)
    assert {image.shape for image in (*samples.calibration, *samples.probes)} == {(1, 1, 24, 16)}
    found = {}
    for kind, images in (("calibration", samples.calibration), ("probes", samples.probes)):
        near = [int(np.argmin([np.abs(image[0, 0] - s[:, 2:18]).max() for s in stack])) for image in images]
        for image, z in zip(images, near, strict=True):
            np.testing.assert_allclose(image[0, 0], stack[z, :, 2:18], atol=1e-5)
        found[kind] = set(near)
    assert found == {"calibration": {0, 3, 5, 8}, "probes": {1, 4, 6, 9}}


def test_neighbours_are_channels_and_are_reflected_at_the_ends(tmp_path: Path) -> None:
    stack = normalised(write(tmp_path / "raw.tif", (6, 16, 16)))
    samples = read_samples([Source(tmp_path / "raw.tif", (1, 5))], 1)
    first = samples.calibration[0]
    assert first.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(first[0], stack[[2, 1, 2]], atol=1e-5)


def test_the_middle_of_large_sections_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "raw.tif", (2, 400, 240))
    samples = read_samples([Source(tmp_path / "raw.tif")], 0)
    assert [image.shape for image in samples.calibration] == [(1, 1, 384, 240)]
    assert [image.shape for image in samples.probes] == [(1, 1, 256, 240)]


def test_a_single_section_serves_for_both(tmp_path: Path) -> None:
    write(tmp_path / "raw.tif", (3, 16, 16))
    samples = read_samples([Source(tmp_path / "raw.tif", (1, 2))], 0)
    assert len(samples.calibration) == len(samples.probes) == 1


def test_several_volumes_are_taken_with_their_own_statistics(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write(tmp_path / name, (8, 16, 16))
    samples = read_samples([Source(tmp_path / "a.tif"), Source(tmp_path / "b.tif")], 0)
    assert (len(samples.calibration), len(samples.probes)) == (8, 8)
    np.testing.assert_array_equal(samples.probes[0], samples.probes[4])


@pytest.mark.parametrize("sections", [(0, 9), (4, 4)])
def test_sections_outside_the_volume_are_refused(tmp_path: Path, sections: tuple[int, int]) -> None:
    write(tmp_path / "raw.tif", (8, 16, 16))
    with pytest.raises(
        InputError, match=rf"^sections {sections[0]}:{sections[1]} are not all in .*raw\.tif; it has 0:8"
    ):
        read_samples([Source(tmp_path / "raw.tif", sections)], 0)


def test_a_volume_below_the_stride_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "raw.tif", (8, 16, 7))
    with pytest.raises(InputError, match=r"raw\.tif are 16 x 7; at least 8 are needed$"):
        read_samples([Source(tmp_path / "raw.tif")], 0)


def test_a_configuration_s_training_sections_are_the_sources(make_config, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert training_sources(tmp_path, make_config()) == (Source(tmp_path / "raw.tif", (0, 4)),)


def test_without_data_there_are_probes_and_nothing_to_calibrate_on() -> None:
    samples = made_up_samples(2)
    assert samples.calibration == ()
    assert [image.shape for image in samples.probes] == [(1, 5, 256, 256)]
    assert abs(float(samples.probes[0].mean())) < 1e-3
