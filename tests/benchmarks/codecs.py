"""How small and how fast boundary maps are stored by the codecs that viewers read: ``python codecs.py --data STACK``.

Maps of real sections by the bundled model, cut into chunks of 16 x 128 x 128, encoded and decoded one by one in one
thread; CPU time, the best of the rounds, so that whatever else runs counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import tifffile
from measuring import publish, say
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray

from emboundary.model.geometry import BlockGrid, Box
from emboundary.model.repository import DEFAULT_MODEL
from emboundary.service.engine import OnnxEngine, find_model
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.probabilities import to_stored
from emboundary.service.run.inference import predict_array

CHUNK = (16, 128, 128)
SHUFFLES = {"none": Blosc.NOSHUFFLE, "bytes": Blosc.SHUFFLE, "bits": Blosc.BITSHUFFLE}


def codecs() -> dict[str, Any]:
    """The candidates by name."""
    plain = {f"zstd {level}": Zstd(level) for level in (1, 3, 5)}
    shuffled = {
        f"blosc {name} {level}, shuffled: {shuffle}": Blosc(name, level, how)
        for name, level in (("zstd", 1), ("zstd", 3), ("zstd", 5), ("lz4", 5))
        for shuffle, how in SHUFFLES.items()
    }
    return {**plain, **shuffled}


def map_sections(data: Path, sections: int) -> NDArray[np.float32]:
    """Boundary maps of the first sections of a stack."""
    stack = tifffile.imread(data)[:sections, :1024, :1024]
    engine = OnnxEngine.open(find_model(DEFAULT_MODEL), "cpu", "float32")
    intensity = Intensity(float(stack.mean()), float(stack.std()))
    return np.concatenate([predict_array(engine, section[None], intensity) for section in stack])


def best(rounds: int, work: Callable[[], Any]) -> float:
    """CPU seconds of the fastest round."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def measure(stored: NDArray[Any], codec: Any, rounds: int) -> dict[str, float]:
    """Size of what is encoded over that of the voxels, and voxels per CPU second."""
    chunks = [np.ascontiguousarray(stored[box.slices]) for box in BlockGrid(Box.of_shape(stored.shape), CHUNK)]
    encoded = [codec.encode(chunk) for chunk in chunks]
    return {
        "size": sum(len(part) for part in encoded) / stored.nbytes,
        "encoded_per_second": stored.size / best(rounds, lambda: [codec.encode(chunk) for chunk in chunks]),
        "decoded_per_second": stored.size / best(rounds, lambda: [codec.decode(part) for part in encoded]),
    }


def main() -> None:
    """Measure every candidate on every type of map, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a TIFF stack")
    parser.add_argument("--sections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    numcodecs.blosc.use_threads = False
    found = map_sections(given.data, given.sections)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for dtype in ("uint8", "float16", "float32"):
        stored = to_stored(found, dtype)
        results[dtype] = {}
        for name, codec in codecs().items():
            results[dtype][name] = measure(stored, codec, given.rounds)
            say(f"{dtype}, {name}: {results[dtype][name]}")
    publish("codecs", {"shape": list(found.shape), "chunk": list(CHUNK), "rounds": given.rounds, "codecs": results})


if __name__ == "__main__":
    main()
