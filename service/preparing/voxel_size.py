"""Does the volume show the network tissue at the scale that it was trained on?"""

from __future__ import annotations

import math

from emboundary.service.errors import UsageError

VoxelSize = tuple[float, float, float]

# Measured with d4 on tissue of its own kind, resampled: a factor of 1.25 costs up to 0.006 of the area under the ROC
# curve, 1.5 up to 0.03, 2 up to 0.1; resampled back to the size trained on, up to 0.002 where detail is not lost.
_TOLERATED = 1.25


def factors(volume_nm: VoxelSize, trained: tuple[VoxelSize, ...]) -> tuple[float, float]:
    """By how much y and x must be enlarged so that a pixel has the nearest size trained on.

    Args:
        volume_nm: voxel size (z, y, x) of the volume.
        trained: voxel sizes (z, y, x) in nm that the network was trained on.

    Raises:
        UsageError: nobody says what the network was trained on.
    """
    if not trained:
        raise UsageError(
            "rescale needs the voxel sizes that the model was trained on, which its description does not say; leave "
            "--rescale out"
        )
    size = nearest(volume_nm, trained)
    return volume_nm[1] / size[1], volume_nm[2] / size[2]


def mismatch(volume_nm: VoxelSize | None, trained: tuple[VoxelSize, ...]) -> str | None:
    """What is wrong with a volume's voxel size and what helps, in one line; None: it fits.

    Args:
        volume_nm: voxel size (z, y, x) of the volume; None where it does not say.
        trained: voxel sizes (z, y, x) in nm that the network was trained on; without any there is nothing to compare.
    """
    if not trained:
        return None
    if volume_nm is None:
        known = " or ".join(f"{_pixel(size)} nm" for size in trained)
        return (
            f"the volume does not say its voxel size; the model was trained on pixels (y, x) of {known}: give "
            "--voxel-size Z,Y,X in nm to have it compared"
        )
    worst = _factor(volume_nm, nearest(volume_nm, trained))
    if worst <= _TOLERATED:
        return None
    return (
        f"the volume has pixels (y, x) of {_pixel(volume_nm)} nm, the model was trained on "
        f"{_pixel(nearest(volume_nm, trained))} nm: they differ by a factor of {worst:.3g}; give --rescale, or "
        "--voxel-size Z,Y,X in nm if the volume's is wrong"
    )


def nearest(volume_nm: VoxelSize, trained: tuple[VoxelSize, ...]) -> VoxelSize:
    """The size trained on, of one at least, that differs by the smallest factor in y and x."""
    return min(trained, key=lambda size: _factor(volume_nm, size))


def _factor(a: VoxelSize, b: VoxelSize) -> float:
    return math.exp(max(abs(math.log(p / q)) for p, q in zip(a[1:], b[1:], strict=True)))


def _pixel(size: VoxelSize) -> str:
    return f"{size[1]:.4g} x {size[2]:.4g}"
