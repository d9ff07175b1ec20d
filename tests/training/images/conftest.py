"""A folder with small data sets in the formats of the real ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emboundary.training.images import cifar10, mnist

Write = Callable[..., Path]


def _mnist(root: Path, digits: int = 400, tested: int = 100) -> Path:
    """Digits of noise, so that every image is another; the smaller the number, the more of them."""
    rng = np.random.default_rng(0)
    labels = rng.choice(10, size=digits + tested, p=np.arange(10, 0, -1) / 55).astype(np.uint8)
    images = rng.integers(1, 256, size=(digits + tested, 28, 28)).astype(np.uint8)
    path = root / mnist.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        train_images=images[:digits],
        train_labels=labels[:digits],
        test_images=images[digits:],
        test_labels=labels[digits:],
    )
    return path


def _cifar10(root: Path, train: int = 3, test: int = 2) -> Path:
    """So many images of every class, each of one colour, red 20 times the class; JPEG leaves such images alone."""
    path = root / cifar10.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in (("train", train), ("test", test)):
            for place, kind in enumerate(cifar10.CLASSES):
                for number in range(count):
                    file = io.BytesIO()
                    Image.new("RGB", (32, 32), (20 * place, 40, 50 * number)).save(file, "JPEG", quality=100)
                    archive.writestr(f"{part}/{kind}/{number:04}.jpg", file.getvalue())
    return path


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with both."""
    folder = tmp_path_factory.mktemp("images")
    _mnist(folder)
    _cifar10(folder)
    return folder


@pytest.fixture(scope="session")
def write_mnist() -> Write:
    """``write_mnist(root)`` writes 400 digits for training and 100 for tests, and gives the file's path."""
    return _mnist


@pytest.fixture(scope="session")
def write_cifar10() -> Write:
    """``write_cifar10(root, train=3, test=2)`` writes so many images of each class, and gives the file's path."""
    return _cifar10
