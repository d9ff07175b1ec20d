"""Peak memory of a run, for a volume of 256 MiB and for one of 16 GiB: ``python memory.py``.

Volumes that no disk need hold:

* ``dense``: a Zarr whose chunk files are hard links to a few, each full of different values, so that every voxel is
  read, decoded, run through an engine and stored.  The engine is the bundled network for its first calls, and from
  then on changes nothing; halo, stride, tile and pyramid are the network's and the command line's defaults.
* ``sparse``: a Zarr with a few chunks of noise and else none; the command line itself maps it, with the bundled
  network where there is something and its one answer to the fill value elsewhere.  The intensity is given: of so much
  nothing the statistics would be refused.

Both once with the voxel size of the training data (flat chunks) and once with cubic voxels (cubic chunks, whose
blocks are deeper).  Peak memory is VmHWM of the process that did nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from engines import Copying, map_quietly
from measuring import answer, ask, publish, say

from emboundary.service import console
from emboundary.service.cli import NAME, create_cli
from emboundary.service.run.request import MapRequest

SIZES = {"256 MiB": (64, 2048, 2048), "16 GiB": (1024, 4096, 4096)}
VOXELS_NM = {"flat": (50.0, 4.6, 4.6), "cubic": (8.0, 8.0, 8.0)}
CHUNK = (16, 512, 512)
KINDS = 4  # different chunk files of a dense volume
REAL = 8  # calls of the bundled network on a dense volume, of about a million pixels each
BOUND = 1.5e9


def make_dense(path: Path, shape: tuple[int, int, int]) -> None:
    """A volume full of values, of a few chunk files that are linked everywhere."""
    array = zarr.create_array(path, shape=shape, dtype="uint8", chunks=CHUNK, dimension_names=["z", "y", "x"])
    z, y, x = np.indices(CHUNK, sparse=True)
    for kind in range(KINDS):
        array[: CHUNK[0], : CHUNK[1], kind * CHUNK[2] : (kind + 1) * CHUNK[2]] = (
            7 * z + (3 + kind) * y + 5 * x + 40 * kind
        ) % 251
    files = [path / "c" / "0" / "0" / str(kind) for kind in range(KINDS)]
    for number, place in enumerate(np.ndindex(*(n // c for n, c in zip(shape, CHUNK, strict=True)))):
        file = path.joinpath("c", *map(str, place))
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            os.link(files[number % KINDS], file)


def make_sparse(path: Path, shape: tuple[int, int, int]) -> None:
    """A volume that is empty but for some noise in its last voxels."""
    array = zarr.create_array(
        path, shape=shape, dtype="uint8", chunks=CHUNK, fill_value=0, dimension_names=["z", "y", "x"]
    )
    noise = np.random.default_rng(0).integers(1, 255, (4, 512, 512), dtype=np.uint8)
    array[-4:, -512:, -512:] = noise


def map_dense(source: Path, target: Path, voxel_nm: tuple[float, float, float]) -> None:
    """A run by the library."""
    engine = Copying(real=REAL)
    request = MapRequest(str(source), target, voxel_size_nm=voxel_nm)
    began = time.perf_counter()
    report = map_quietly(request, engine)
    answer(seconds=time.perf_counter() - began, voxels=report.voxels, calls=engine.calls)


def map_sparse(source: Path, target: Path, voxel_nm: tuple[float, float, float]) -> None:
    """A run by the command line, in this process."""
    size = ",".join(map(str, voxel_nm))
    began = time.perf_counter()
    code = console.run(
        create_cli(),
        NAME,
        ["predict", str(source), str(target), "--device", "cpu", "--voxel-size", size, "--intensity", "128,60"],
    )
    if code != 0:
        raise SystemExit(code)
    answer(seconds=time.perf_counter() - began)


MAKE = {"dense": make_dense, "sparse": make_sparse}
MAP = {"dense": map_dense, "sparse": map_sparse}


def measure(kind: str, size: str, voxels: str) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "volume.zarr", Path(scratch) / "map.zarr"
        MAKE[kind](source, SIZES[size])
        found = ask([__file__, "--work", kind, "--voxels", voxels, "--source", source, "--target", target])
        stored = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    row = {"volume": kind, "kind": voxels, "size": size, "shape": SIZES[size], "stored_bytes": stored, **found}
    say(str(row))
    return row


def main() -> None:
    """Measure every volume, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", choices=VOXELS_NM, action="append")
    parser.add_argument("--kind", choices=MAP, action="append")
    parser.add_argument("--work", choices=MAP, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        MAP[given.work](given.source, given.target, VOXELS_NM[given.voxels[0]])
        return
    rows = []
    for kind in given.kind or MAP:
        for voxels in given.voxels or VOXELS_NM:
            small, large = (measure(kind, size, voxels) for size in SIZES)
            large["over_small"] = large["peak_bytes"] / small["peak_bytes"]
            rows += [small, large]
    publish(
        "memory",
        {"rows": rows, "bound_bytes": BOUND, "within_bound": all(row["peak_bytes"] < BOUND for row in rows)},
    )


if __name__ == "__main__":
    main()
