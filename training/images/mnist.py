"""MNIST: 28 x 28 grey images of handwritten digits, upright or each turned by an angle of its own."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from emboundary.training.crops.data import DataError
from emboundary.training.images.sets import Images, Labelled, Labels

FILE = Path("mnist") / "mnist.npz"
CLASSES = tuple("0123456789")
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def read_mnist(root: Path) -> tuple[Labelled, Labelled]:
    """Training and test images (n, 1, y, x) with their labels, from ``root/mnist/mnist.npz``.

    Raises:
        DataError: a missing file, or one without the arrays that are expected.
    """
    path = root / FILE
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            missing = [name for name in _ARRAYS if name not in file]
            if missing:
                raise DataError(f"{path} has no array {missing[0]}; it must hold {', '.join(_ARRAYS)}")
            train_images, train_labels, test_images, test_labels = (file[name] for name in _ARRAYS)
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; give with --data a folder with {FILE}, MNIST as the NumPy arrays "
            f"{', '.join(_ARRAYS)}"
        ) from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a NumPy archive: {error}") from error
    return _checked(path, train_images, train_labels), _checked(path, test_images, test_labels)


def _checked(path: Path, images: Images, labels: Labels) -> Labelled:
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path} holds images of {images.dtype} {images.shape} with labels {labels.shape}; images must be uint8 "
            "(n, y, x), with one label each"
        )
    return images[:, None], labels.astype(np.int64)
