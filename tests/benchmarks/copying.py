"""Zarr to Zarr with the identity engine, against a plain copy: ``python copying.py --data STACK.tif``.

In turns, each in a process of its own, from the same Zarr of real sections, into
the same chunks with the same codecs:

* ``pipeline``: ``make_map`` with an engine that changes nothing, halo 0, no pyramid, and all that a run does besides:
  ledger, flushes, rename.  The map is compared with INPUT, voxel by voxel, outside the measured time.
* ``copy``: zarr-python, chunk by chunk, ``threads`` chunks at a time; ``copy, synced`` with one flush at its end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from engines import Copying, map_quietly
from measuring import answer, ask, cores, in_turns, publish, ratios, spread
from zarr.codecs import ZstdCodec

from emboundary.model.geometry import BlockGrid, Box, Footprint
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.request import MapRequest

CHUNK = (16, 128, 128)
CODEC = ZstdCodec(level=1, checksum=True)  # what the service stores maps of uint8 with; the result says what was used


def by_pipeline(source: Path, target: Path) -> float:
    """A whole run; seconds."""
    engine = Copying(Footprint((0, 0, 0), (1, 1, 1)))
    request = MapRequest(str(source), target, intensity=Intensity(0, 255), chunk=CHUNK, pyramid=False)
    began = time.perf_counter()
    map_quietly(request, engine)
    return time.perf_counter() - began


def by_copy(source: Path, target: Path, threads: int, sync: bool) -> float:
    """zarr-python alone; seconds."""
    began = time.perf_counter()
    old = zarr.open_array(source, mode="r")
    new = zarr.create_group(target).create_array(
        "0", shape=old.shape, dtype=old.dtype, chunks=CHUNK, compressors=old.compressors, fill_value=0
    )

    def copy(box: Box) -> None:
        new[box.slices] = old[box.slices]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(copy, BlockGrid(Box.of_shape(old.shape), CHUNK)))
    if sync:
        os.sync()
    return time.perf_counter() - began


def work(name: str, source: Path, target: Path, threads: int) -> None:
    """One contender in this process."""
    os.sync()
    if name == "pipeline":
        seconds = by_pipeline(source, target)
    else:
        seconds = by_copy(source, target, threads, sync="synced" in name)
    found, wanted = zarr.open_array(target / "0", mode="r"), zarr.open_array(source, mode="r")
    same = all(np.array_equal(found[z : z + 16], wanted[z : z + 16]) for z in range(0, wanted.shape[0], 16))
    stored = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    answer(seconds=seconds, same=same, stored_bytes=stored, codecs=str(found.metadata.codecs))
    shutil.rmtree(target)


def prepare(source: Path, data: Path, sections: int) -> tuple[int, ...]:
    """A Zarr of real sections, each four times beside itself, repeated up to ``sections``; its shape."""
    stack = tifffile.imread(data)
    wide = np.concatenate([stack, stack[:, :, ::-1]], axis=2)
    wide = np.concatenate([wide, wide[:, ::-1]], axis=1)
    repeated = wide[np.arange(sections) % len(wide)]
    zarr.create_array(source, data=repeated, chunks=CHUNK, compressors=CODEC, dimension_names=["z", "y", "x"])
    return tuple(repeated.shape)


def main() -> None:
    """Measure in turns, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack")
    parser.add_argument("--sections", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.data, given.target, given.threads)
        return
    names = ("pipeline", "copy", "copy, synced")
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source.zarr", Path(scratch) / "map.zarr"
        shape = prepare(source, given.data, given.sections)
        common = [__file__, "--data", source, "--target", target, "--threads", given.threads, "--work"]

        def contender(name: str) -> Callable[[], dict[str, Any]]:
            return lambda: ask([*common, name])

        answers = in_turns({name: contender(name) for name in names}, given.rounds)
    voxels = int(np.prod(shape))
    publish(
        "copying",
        {
            "shape": list(shape),
            "chunk": list(CHUNK),
            "threads": given.threads,
            "rounds": given.rounds,
            "same": all(a["same"] for a in answers["pipeline"]),
            "codecs": sorted({a["codecs"] for found in answers.values() for a in found}),
            "seconds": {name: spread([a["seconds"] for a in answers[name]]) for name in names},
            "voxels_per_second": {n: voxels / spread([a["seconds"] for a in answers[n]])["median"] for n in names},
            "pipeline_over": {n: spread(ratios(answers, "pipeline", n, "seconds")) for n in names[1:]},
            "peak_bytes": {name: max(a["peak_bytes"] for a in answers[name]) for name in names},
        },
    )


if __name__ == "__main__":
    main()
