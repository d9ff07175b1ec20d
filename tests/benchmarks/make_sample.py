"""Cut the bundled sample out of the labelled VNC stack: ``python tests/benchmarks/make_sample.py DATA``.

DATA is the folder that holds ``vnc/stack1_raw.tif`` and ``vnc/stack1_membranes.tif``.  The sections are those that
the bundled models were not trained on; the licence of what is written stands beside it in NOTICE.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tifffile

SAMPLE = Path(__file__).parents[2] / "service" / "sample"
CROP = (slice(13, 16), slice(400, 784), slice(352, 736))  # z, y, x
VOXEL_SIZE_NM = {"Z": 50.0, "Y": 4.6, "X": 4.6}


def main(data: Path) -> None:
    """Write ``raw.ome.tif`` and ``membranes.ome.tif`` into the package."""
    scale = {f"PhysicalSize{axis}": size for axis, size in VOXEL_SIZE_NM.items()}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in VOXEL_SIZE_NM}
    for name in ("raw", "membranes"):
        tifffile.imwrite(
            SAMPLE / f"{name}.ome.tif",
            tifffile.imread(data / "vnc" / f"stack1_{name}.tif")[CROP],
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 9},
            metadata={"axes": "ZYX", **scale, **units},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
