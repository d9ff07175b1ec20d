import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emboundary.training.crops.data import DataError
from emboundary.training.images import cifar10, loading
from emboundary.training.images.config import ImageDataConfig
from emboundary.training.images.loading import load_images
from emboundary.training.images.sets import Images, ImageSet, Labels

Load = Callable[..., ImageSet]
Write = Callable[..., Path]


@pytest.fixture
def load(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr(loading, "ROTATED_TRAIN", 120)
    monkeypatch.setattr(loading, "ROTATED_TEST", 300)
    monkeypatch.setattr(loading, "VALIDATION", {"mnist": 50, "rotated-mnist": 20, "cifar10": 10})
    return lambda dataset, **options: load_images(root, ImageDataConfig(dataset=dataset, **options), tmp_path)


def _labelled(images: Images, labels: Labels) -> dict[bytes, int]:
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


def _prints(images: Images) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_upright_digits_are_those_of_the_file(load: Load, root: Path) -> None:
    images = load("mnist")
    assert (images.train_images.shape, images.test_images.shape) == ((400, 1, 28, 28), (100, 1, 28, 28))
    assert (images.channels, images.size, images.classes) == (1, 28, tuple("0123456789"))
    with np.load(root / "mnist" / "mnist.npz") as file:
        assert _labelled(images.train_images, images.train_labels) == _labelled(
            file["train_images"], file["train_labels"]
        )


def test_rotated_digits_are_cut_anew_from_all_of_them(load: Load) -> None:
    images = load("rotated-mnist")
    assert (len(images.train_labels), len(images.test_labels)) == (120, 300)
    assert len(_prints(images.train_images) | _prints(images.test_images)) == 420


@pytest.mark.parametrize("dataset", ["mnist", "rotated-mnist", "cifar10"])
def test_validation_images_are_taken_from_the_training_images(load: Load, dataset: str) -> None:
    whole, apart = load(dataset), load(dataset, part="validation")
    kept = loading.VALIDATION[dataset]
    assert len(apart.test_labels) == kept
    assert len(apart.train_labels) == len(whole.train_labels) - kept
    chosen = np.concatenate([apart.train_images, apart.test_images])
    assert sorted(image.tobytes() for image in chosen) == sorted(image.tobytes() for image in whole.train_images)


def test_a_subset_is_stratified_and_part_of_a_larger_one(load: Load) -> None:
    whole, some, few = load("mnist"), load("mnist", train=200, test=30), load("mnist", train=20)
    assert (len(some.train_labels), len(some.test_labels)) == (200, 30)
    assert _prints(few.train_images) < _prints(some.train_images) < _prints(whole.train_images)
    share = np.bincount(whole.train_labels, minlength=10) / 400
    assert np.abs(np.bincount(some.train_labels, minlength=10) - 200 * share).max() <= 1
    assert some.mean[0] == pytest.approx(float(some.train_images.mean()))


def test_the_first_images_of_a_set_hold_all_classes(load: Load) -> None:
    assert set(load("cifar10").train_labels[:10]) == set(range(10))


def test_the_data_seed_chooses_the_subset(load: Load) -> None:
    one, same, other = (load("mnist", train=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train_images, same.train_images)
    assert _prints(one.train_images) != _prints(other.train_images)


@pytest.mark.parametrize(
    ("option", "turned", "same"), [("rotate_train", "train", "test"), ("rotate_test", "test", "train")]
)
def test_one_part_can_be_turned_alone(load: Load, option: str, turned: str, same: str) -> None:
    upright, rotated = load("mnist"), load("mnist", **{option: True})
    np.testing.assert_array_equal(getattr(rotated, f"{same}_images"), getattr(upright, f"{same}_images"))
    differ = (getattr(rotated, f"{turned}_images") != getattr(upright, f"{turned}_images")).any(axis=(1, 2, 3))
    assert differ.mean() > 0.95
    np.testing.assert_array_equal(getattr(rotated, f"{turned}_labels"), getattr(upright, f"{turned}_labels"))


def test_colour_images_are_decoded_with_the_class_of_their_folder(load: Load) -> None:
    images = load("cifar10")
    assert (images.train_images.shape, images.test_images.shape) == ((30, 3, 32, 32), (20, 3, 32, 32))
    assert images.classes[:2] == ("airplane", "automobile")
    np.testing.assert_allclose(images.train_images[:, 0, 16, 16], 20 * images.train_labels, atol=3)


def test_decoded_images_are_kept_until_the_archive_changes(
    tmp_path: Path, write_cifar10: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path)
    cache = tmp_path / "cache"
    first = cifar10.read_cifar10(tmp_path, cache)
    decoded: list[bytes] = []
    image = cifar10._image
    monkeypatch.setattr(cifar10, "_image", lambda file: decoded.append(file) or image(file))
    again = cifar10.read_cifar10(tmp_path, cache)
    assert not decoded
    for ours, kept in zip((*first[0], *first[1]), (*again[0], *again[1]), strict=True):
        np.testing.assert_array_equal(ours, kept)
    write_cifar10(tmp_path, train=4)
    assert len(cifar10.read_cifar10(tmp_path, cache)[0][1]) == 40
    assert len(decoded) == 60


def test_a_damaged_cache_is_made_anew_and_one_that_cannot_be_written_does_no_harm(
    tmp_path: Path, write_cifar10: Write
) -> None:
    write_cifar10(tmp_path)
    cache = tmp_path / "cache"
    whole = cifar10.read_cifar10(tmp_path, cache)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:500])
    np.testing.assert_array_equal(cifar10.read_cifar10(tmp_path, cache)[0][0], whole[0][0])
    (tmp_path / "no folder").touch()
    np.testing.assert_array_equal(cifar10.read_cifar10(tmp_path, tmp_path / "no folder")[0][0], whole[0][0])


@pytest.mark.parametrize(
    ("dataset", "file"), [("mnist", "mnist/mnist.npz"), ("cifar10", "cifar10_jpeg/cifar10_jpeg.zip")]
)
def test_a_missing_file_is_named_with_what_is_expected(tmp_path: Path, dataset: Any, file: str) -> None:
    with pytest.raises(DataError, match=rf"{file} does not exist; give with --data a folder with {file}, .* as "):
        load_images(tmp_path, ImageDataConfig(dataset=dataset))


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_a_damaged_file_is_refused(tmp_path: Path, dataset: Any, write_mnist: Write, write_cifar10: Write) -> None:
    write = write_mnist if dataset == "mnist" else write_cifar10
    write(tmp_path).write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"(is not a NumPy archive|cannot be read): "):
        load_images(tmp_path, ImageDataConfig(dataset=dataset), tmp_path)


def test_arrays_that_are_missing_or_do_not_fit_are_refused(tmp_path: Path, write_mnist: Write) -> None:
    path = write_mnist(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"test_labels": arrays["test_labels"][1:]}))
    with pytest.raises(DataError, match=r"mnist\.npz holds images of uint8 \(100, 28, 28\) with labels \(99,\); "):
        load_images(tmp_path, ImageDataConfig(dataset="mnist"))
    np.savez(path, train_images=arrays["train_images"])
    with pytest.raises(DataError, match=r"mnist\.npz has no array train_labels; it must hold train_images, "):
        load_images(tmp_path, ImageDataConfig(dataset="mnist"))


def test_archives_without_a_part_or_with_another_class_are_refused(tmp_path: Path, write_cifar10: Write) -> None:
    write_cifar10(tmp_path, test=0)
    with pytest.raises(DataError, match=r"cifar10_jpeg\.zip has no image in test/; it must hold files train/CLASS/"):
        cifar10.read_cifar10(tmp_path, tmp_path)
    path = write_cifar10(tmp_path)
    with zipfile.ZipFile(path) as archive:
        jpeg = archive.read("train/cat/0000.jpg")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train/zebra/0000.jpg", jpeg)
    with pytest.raises(DataError, match=r"has train/zebra/0000\.jpg, whose class is not known; it must hold"):
        cifar10.read_cifar10(tmp_path, tmp_path)


@pytest.mark.parametrize(("option", "count"), [("train", 401), ("test", 101)])
def test_more_images_than_there_are_is_refused(root: Path, option: str, count: int) -> None:
    with pytest.raises(DataError, match=rf"^{option} is {count}; there are {count - 1} images: ask for fewer, or"):
        load_images(root, ImageDataConfig.model_validate({"dataset": "mnist", option: count}))


def test_too_few_digits_to_rotate_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"mnist\.npz holds 500 digits; rotated-mnist needs 62000$"):
        load_images(root, ImageDataConfig(dataset="rotated-mnist"))
