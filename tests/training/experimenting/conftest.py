"""A folder with made-up data of every set that a bundled experiment asks for."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emboundary.training.images import cifar10, mnist
from emboundary.training.images.loading import ROTATED_TEST, ROTATED_TRAIN
from emboundary.training.synthetic import write_stack


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits and photographs of noise, membranes of lines; under the names and in the forms of the real ones."""
    root = tmp_path_factory.mktemp("made-up")
    rng = np.random.default_rng(0)
    _digits(root, rng)
    _photographs(root, rng)
    (root / "vnc").mkdir()
    write_stack(root / "vnc", (16, 128, 128), seed=0)
    for name in ("raw", "membranes"):
        (root / "vnc" / f"{name}.tif").rename(root / "vnc" / f"stack1_{name}.tif")
    return root


def _digits(root: Path, rng: np.random.Generator) -> None:
    (root / "mnist").mkdir()
    images = rng.integers(256, size=(100, 28, 28), dtype=np.uint8)
    # rotated MNIST asks for as many as there really are
    many = (ROTATED_TRAIN + ROTATED_TEST) // 100
    np.savez_compressed(
        root / mnist.FILE,
        train_images=np.tile(images, (many, 1, 1)),
        train_labels=np.tile(np.arange(100) % 10, many),
        test_images=images,
        test_labels=np.arange(100) % 10,
    )


def _photographs(root: Path, rng: np.random.Generator) -> None:
    (root / "cifar10_jpeg").mkdir()
    with zipfile.ZipFile(root / cifar10.FILE, "w") as archive:
        for part in ("train", "test"):
            for name in cifar10.CLASSES:
                for number in range(4):
                    file = io.BytesIO()
                    Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
                    archive.writestr(f"{part}/{name}/{number}.jpg", file.getvalue())
