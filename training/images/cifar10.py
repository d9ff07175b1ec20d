"""CIFAR-10 from JPEG files: 32 x 32 colour images of ten kinds of things.

The files are compressed with loss, so that figures compare with each other, not with those published for the data set
itself.  They are decoded once; the arrays are kept in a cache.
"""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from emboundary.service.errors import OutputError
from emboundary.training.crops.data import DataError
from emboundary.training.images.sets import Labelled
from emboundary.training.storing import storing

FILE = Path("cifar10_jpeg") / "cifar10_jpeg.zip"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_EXPECTED = "files train/CLASS/*.jpg and test/CLASS/*.jpg, CLASS one of " + ", ".join(CLASSES)


def read_cifar10(root: Path, cache: Path | None = None) -> tuple[Labelled, Labelled]:
    """Training and test images (n, 3, y, x) with their labels, from ``root/cifar10_jpeg/cifar10_jpeg.zip``.

    Args:
        root: folder of the data.
        cache: folder for the decoded arrays; None: the user's cache.  A file there is for one archive, by its size and
            time of change.

    Raises:
        DataError: a missing file, or one without the images that are expected.
    """
    path = root / FILE
    try:
        stat = path.stat()
    except OSError:
        raise DataError(
            f"{path} does not exist; give with --data a folder with {FILE}, CIFAR-10 as {_EXPECTED}"
        ) from None
    folder = cache or platformdirs.user_cache_path("emboundary") / "images"
    kept = folder / f"cifar10-{stat.st_size}-{stat.st_mtime_ns}.npz"
    arrays = _kept(kept)
    if arrays is None:
        arrays = _decoded(path)
        _keep(kept, arrays)
    train_images, train_labels, test_images, test_labels = arrays
    return (train_images, train_labels), (test_images, test_labels)


def _decoded(path: Path) -> list[NDArray[Any]]:
    arrays: list[NDArray[Any]] = []
    try:
        with zipfile.ZipFile(path) as archive, ThreadPoolExecutor() as pool:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
            for part in ("train", "test"):
                chosen = [name for name in names if name.startswith(f"{part}/")]
                if not chosen:
                    raise DataError(f"{path} has no image in {part}/; it must hold {_EXPECTED}")
                images = np.stack(list(pool.map(_image, [archive.read(name) for name in chosen])))
                arrays.append(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
                arrays.append(np.array([_label(path, name) for name in chosen], dtype=np.int64))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}; it must hold {_EXPECTED}") from error
    return arrays


def _image(file: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


def _label(path: Path, name: str) -> int:
    kind = name.split("/")[1]
    if kind not in CLASSES:
        raise DataError(f"{path} has {name}, whose class is not known; it must hold {_EXPECTED}")
    return CLASSES.index(kind)


def _kept(file: Path) -> list[NDArray[Any]] | None:
    """What ``_keep`` wrote; None where it wrote nothing, or something has damaged it."""
    try:
        with file.open("rb") as raw, np.load(raw) as arrays:
            return [arrays[name] for name in _ARRAYS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(file: Path, arrays: list[NDArray[Any]]) -> None:
    # Without a cache that can be written, the next run decodes anew.
    with suppress(OutputError), storing(file) as draft, draft.open("wb") as out:
        named = dict(zip(_ARRAYS, arrays, strict=True))
        np.savez(out, allow_pickle=False, **named)
