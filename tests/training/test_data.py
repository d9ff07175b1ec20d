from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from emboundary.training.config import AugmentConfig, DataConfig, SamplingConfig, TrainConfig
from emboundary.training.crops.boundaries import boundaries_of
from emboundary.training.crops.data import Batch, CropSampler, DataError, LabelledVolume, load_volume, training_volumes

OFF = AugmentConfig(symmetry=False)
EVERYTHING = AugmentConfig(symmetry=True, contrast=0.3, brightness=0.3, noise=0.3)
SAMPLING = SamplingConfig(crop=16, batch=3)


def numbered(sections: int, name: str = "numbered", first: int = 0) -> LabelledVolume:
    """A volume (sections, 20, 24) whose voxels are all different: a crop tells where it comes from."""
    raw = np.arange(first, first + sections * 480, dtype=np.float32).reshape(sections, 20, 24)
    return LabelledVolume(name, raw, raw % 3 == 0, 0.0, 1.0)


def same(a: Batch, b: Batch) -> bool:
    return np.array_equal(a.image, b.image) and np.array_equal(a.target, b.target)


@pytest.fixture
def described(make_config: Callable[[], TrainConfig]) -> DataConfig:
    return make_config().data[0]


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, second = (CropSampler((numbered(3),), SAMPLING, EVERYTHING, seed=5) for _ in range(2))
    straight = [first.batch(step) for step in range(4)]
    for step in (3, 1, 0, 2):
        assert same(second.batch(step), straight[step])
    assert not any(same(straight[0], other) for other in straight[1:])
    assert not same(CropSampler((numbered(3),), SAMPLING, EVERYTHING, seed=6).batch(0), straight[0])


def test_shapes_and_types_are_the_networks() -> None:
    batch = CropSampler((numbered(3),), SAMPLING, EVERYTHING, seed=0).batch(0)
    for array in (batch.image, batch.target):
        assert array.shape == (3, 1, 16, 16)
        assert array.dtype == np.float32
    assert set(np.unique(batch.target)) == {0.0, 1.0}


@pytest.mark.parametrize("change", [{"symmetry": True}, {"contrast": 0.3}, {"brightness": 0.3}, {"noise": 0.3}])
def test_an_augmentation_does_not_move_the_crops(change: dict[str, float]) -> None:
    plain, changed = (
        CropSampler((numbered(3),), SAMPLING, augmentation, seed=1)
        for augmentation in (OFF, OFF.model_copy(update=change))
    )
    for step in range(10):
        before, after = plain.batch(step), changed.batch(step)
        if change == {"symmetry": True}:
            for a, b in zip(before.image, after.image, strict=True):
                np.testing.assert_array_equal(np.sort(a, axis=None), np.sort(b, axis=None))
        else:
            np.testing.assert_array_equal(before.target, after.target)
            assert not np.array_equal(before.image, after.image)


def test_image_and_target_come_from_one_place() -> None:
    sampler = CropSampler((numbered(3),), SAMPLING, AugmentConfig(symmetry=True), seed=2)
    for step in range(10):
        batch = sampler.batch(step)
        np.testing.assert_array_equal(batch.target, batch.image % 3 == 0)


def test_crops_come_from_every_place_of_every_section() -> None:
    sampler = CropSampler((numbered(2),), SamplingConfig(crop=16, batch=8), OFF, seed=3)
    corners = {int(corner) for step in range(150) for corner in sampler.batch(step).image[:, 0, 0, 0]}
    assert corners == {z * 480 + y * 24 + x for z in range(2) for y in range(5) for x in range(9)}


def test_volumes_are_drawn_by_their_share_whatever_their_size() -> None:
    volumes = (replace(numbered(3, "long"), share=3.0), numbered(1, "short", first=10_000), numbered(9, first=20_000))
    sampler = CropSampler(volumes, SamplingConfig(crop=16, batch=8), OFF, seed=4)
    corners = np.concatenate([sampler.batch(step).image[:, 0, 0, 0] for step in range(100)])
    counts = np.histogram(corners, bins=[0, 10_000, 20_000, 30_000])[0] / corners.size
    np.testing.assert_allclose(counts, [0.6, 0.2, 0.2], atol=0.05)


def test_neighbouring_sections_come_along_as_channels_reflected_at_the_ends() -> None:
    sampler = CropSampler((numbered(4),), SamplingConfig(crop=16, batch=8), AugmentConfig(symmetry=True), 3, context=2)
    seen = set()
    for step in range(20):
        batch = sampler.batch(step)
        assert batch.image.shape == (8, 5, 16, 16)
        np.testing.assert_array_equal(batch.target[:, 0], batch.image[:, 2] % 3 == 0)
        seen |= {tuple(int(v) // 480 for v in image[:, 0, 0]) for image in batch.image}
    assert seen == {(2, 1, 0, 1, 2), (1, 0, 1, 2, 3), (0, 1, 2, 3, 2), (1, 2, 3, 2, 1)}


def test_a_single_section_stands_for_all_its_neighbours() -> None:
    image = CropSampler((numbered(1),), SAMPLING, OFF, seed=0, context=1).batch(0).image
    np.testing.assert_array_equal(image, image[:, [1, 1, 1]])


def test_neuron_ids_become_a_boundary_target(tmp_path: Path, described: DataConfig) -> None:
    labels = np.repeat(np.arange(1, 5, dtype=np.uint16), 4)[None, None] + np.zeros((6, 16, 1), np.uint16)
    write(tmp_path, RAW, MEMBRANES)
    tifffile.imwrite(tmp_path / "ids.tif", labels, photometric="minisblack", metadata={"axes": "ZYX"})
    loaded = load_volume(tmp_path, described.model_copy(update={"membranes": None, "labels": "ids.tif"}), (2, 5))
    np.testing.assert_array_equal(loaded.target, boundaries_of(labels[2:5]))


def test_ids_that_are_no_integers_are_refused(tmp_path: Path, described: DataConfig) -> None:
    write(tmp_path, RAW, MEMBRANES)
    tifffile.imwrite(tmp_path / "ids.tif", RAW.astype(np.float32), photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(DataError) as refused:
        load_volume(tmp_path, described.model_copy(update={"membranes": None, "labels": "ids.tif"}))
    assert str(refused.value) == (
        "ids.tif: labels are float32 of shape (4, 16, 16); they must be integer ids (z, y, x)"
    )


def test_a_crop_larger_than_a_section_is_refused() -> None:
    with pytest.raises(DataError) as refused:
        CropSampler((numbered(3),), SamplingConfig(crop=24), OFF, seed=0)
    assert str(refused.value) == (
        "crop is 24, sections of numbered are (20, 24); a crop must fit into a section: give a smaller sampling.crop"
    )


def test_a_crop_may_be_a_whole_section() -> None:
    square = LabelledVolume("square", np.zeros((1, 16, 16), np.float32), np.eye(16, dtype=np.bool_)[None], 0.0, 1.0)
    np.testing.assert_array_equal(CropSampler((square,), SAMPLING, OFF, seed=0).batch(0).target[0, 0], np.eye(16))


def test_intensities_are_normalised_by_the_whole_volume(data: Path, described: DataConfig) -> None:
    raw = tifffile.imread(data / "raw.tif").astype(np.float64)
    raw_mean, raw_std = raw.mean(), raw.std()
    some = load_volume(data, described, (4, 5))
    assert [some.mean, some.std] == pytest.approx([raw_mean, raw_std])
    np.testing.assert_allclose(some.raw, (raw[4:5] - raw_mean) / raw_std, atol=1e-6)
    assert some.raw.dtype == np.float32
    assert abs(raw[4:5].mean() - raw_mean) > 0.1, "the section's own mean would have gone unnoticed"


def test_training_sections_are_those_of_the_configuration(data: Path, described: DataConfig) -> None:
    loaded = load_volume(data, described)
    np.testing.assert_array_equal(loaded.target, tifffile.imread(data / "membranes.tif")[0:4] > 0)
    assert loaded.name == "synthetic"
    assert loaded.raw.shape == loaded.target.shape


Stack = NDArray[np.uint8]


def write(folder: Path, raw: Stack, membranes: Stack) -> None:
    tifffile.imwrite(folder / "raw.tif", raw, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "membranes.tif", membranes, photometric="minisblack", metadata={"axes": "ZYX"})


RAW: Stack = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
MEMBRANES: Stack = (RAW > 128).astype(np.uint8)


@pytest.mark.parametrize(
    ("raw", "membranes", "sections", "message"),
    [
        (RAW, MEMBRANES[:5], None, "raw.tif has shape (6, 16, 16), membranes.tif (5, 16, 16); they must agree"),
        (RAW, MEMBRANES, (4, 7), "sections 4:7 are not all in synthetic; they must be within 0:6"),
        (RAW, MEMBRANES, (5, 5), "sections 5:5 are not all in synthetic; they must be within 0:6"),
        (RAW, MEMBRANES * 0, None, "membranes.tif, sections 0:4: every pixel is of one class; both must occur"),
        (RAW, MEMBRANES | 1, None, "membranes.tif, sections 0:4: every pixel is of one class; both must occur"),
        (RAW * 0 + 7, MEMBRANES, None, "raw.tif is constant: every voxel is 7; there is nothing to learn from"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    tmp_path: Path,
    described: DataConfig,
    raw: Stack,
    membranes: Stack,
    sections: tuple[int, int] | None,
    message: str,
) -> None:
    write(tmp_path, raw, membranes)
    with pytest.raises(DataError) as refused:
        load_volume(tmp_path, described, sections)
    assert str(refused.value) == message


def test_a_missing_file_is_refused(tmp_path: Path, described: DataConfig) -> None:
    with pytest.raises(DataError) as refused:
        load_volume(tmp_path, described)
    assert str(refused.value) == (
        f"{tmp_path / 'raw.tif'} does not exist; give the folder of the training data with --data"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"nothing", "is no format that can be read here"), (b"II*\0\x10", "cannot be read as TIFF")],
)
def test_a_damaged_file_is_refused(tmp_path: Path, described: DataConfig, content: bytes, message: str) -> None:
    write(tmp_path, RAW, MEMBRANES)
    (tmp_path / "membranes.tif").write_bytes(content)
    with pytest.raises(DataError) as refused:
        load_volume(tmp_path, described)
    assert str(refused.value).startswith(f"{tmp_path / 'membranes.tif'} {message}")


def test_a_truncated_file_is_refused(tmp_path: Path, described: DataConfig) -> None:
    write(tmp_path, RAW, MEMBRANES)
    whole = (tmp_path / "raw.tif").read_bytes()
    (tmp_path / "raw.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"raw\.tif"):
        load_volume(tmp_path, described)


CUBES = {"voxel_size_nm": (10.0, 10.0, 10.0)}


def test_a_volume_of_cubes_gives_crops_of_all_its_planes(
    tmp_path: Path, make_config: Callable[..., TrainConfig]
) -> None:
    ids = np.random.default_rng(0).integers(1, 4, (12, 40, 48), dtype=np.uint16)
    raw = np.random.default_rng(1).integers(0, 256, ids.shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", raw, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "ids.tif", ids, photometric="minisblack", metadata={"axes": "ZYX"})
    config = make_config({"sampling.crop": 16})
    described = config.data[0].model_copy(
        update={**CUBES, "membranes": None, "labels": "ids.tif", "sections": (2, 10), "planes": ("yx", "zx", "zy")}
    )
    yx, zx, zy = training_volumes(tmp_path, config.model_copy(update={"data": (described,)}))
    assert [v.share for v in (yx, zx, zy)] == pytest.approx([1 / 3] * 3)
    # 8 sections continued by reflection to a crop's 16 rows
    assert [v.raw.shape for v in (yx, zx, zy)] == [(8, 40, 48), (40, 16, 48), (48, 16, 40)]
    inner = zx.raw[:, 4:12] * zx.std + zx.mean
    np.testing.assert_allclose(inner, raw[2:10].transpose(1, 0, 2), atol=1e-3)
    np.testing.assert_array_equal(zx.raw[:, 3], zx.raw[:, 5])
    np.testing.assert_array_equal(zy.target[:, 4:12], boundaries_of(ids[2:10].transpose(2, 0, 1)))


def test_planes_of_voxels_that_are_no_cubes_are_refused(described: DataConfig) -> None:
    table = {**described.model_dump(), "planes": ["yx", "zy"]}
    with pytest.raises(ValueError, match=r"planes are \['yx', 'zy'\], voxels 50 x 4.6 x 4.6 nm; only a volume"):
        DataConfig.model_validate(table)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_soft_map_is_mixed_with_what_people_marked(tmp_path: Path, described: DataConfig, kind: type) -> None:
    write(tmp_path, RAW, MEMBRANES)
    soft = (RAW[::-1] if kind is np.uint8 else RAW[::-1] / np.float32(255)).astype(kind)
    tifffile.imwrite(tmp_path / "soft.tif", soft, photometric="minisblack", metadata={"axes": "ZYX"})
    taught = described.model_copy(update={"soft": "soft.tif", "soft_weight": 0.25})
    loaded = load_volume(tmp_path, taught)
    np.testing.assert_array_equal(loaded.target, MEMBRANES[:4] > 0)  # what scores are taken against
    np.testing.assert_allclose(loaded.learned, 0.75 * 255 * MEMBRANES[:4] + 0.25 * RAW[::-1][:4], atol=0.51)
    alone = load_volume(tmp_path, taught.model_copy(update={"membranes": None}))
    np.testing.assert_array_equal(alone.learned, RAW[::-1][:4])
    np.testing.assert_array_equal(alone.target, RAW[::-1][:4] >= 128)
    for warped in (OFF, AugmentConfig(symmetry=False, scale=0.2, rotate=True)):
        batch = CropSampler((alone,), SamplingConfig(crop=16, batch=4), warped, seed=0).batch(0)
        assert 0 <= batch.target.min() < 0.2
        assert 0.8 < batch.target.max() <= 1
        assert len(np.unique(batch.target)) > 100


def test_a_soft_map_that_is_none_is_refused(tmp_path: Path, described: DataConfig) -> None:
    write(tmp_path, RAW, MEMBRANES)
    taught = described.model_copy(update={"soft": "soft.tif"})
    for soft, said in (
        (RAW[:5], r"soft.tif has shape \(5, 16, 16\), raw.tif \(6, 16, 16\); they must agree"),
        (RAW.astype(np.float32), r"soft.tif is float32; it must hold probabilities: float, 0 to 1, or uint8"),
        (RAW.astype(np.uint16), r"soft.tif is uint16; it must hold probabilities"),
    ):
        tifffile.imwrite(tmp_path / "soft.tif", soft, photometric="minisblack", metadata={"axes": "ZYX"})
        with pytest.raises(DataError, match=said):
            load_volume(tmp_path, taught)


def test_a_volume_without_any_target_is_refused(described: DataConfig) -> None:
    with pytest.raises(ValueError, match=r"without either, soft \(the map of other networks\) is needed"):
        DataConfig.model_validate({**described.model_dump(), "membranes": None})
