"""Reads damaged volumes, each in a child of its own, so that a crash, a hang or a blow-up is a result like any other.

Run as a program: ``write FOLDER`` writes one sound volume of every format into FOLDER, each by its format's own
library; ``serve`` reads lines of JSON ``{"where": path, "kind": format, "seconds": limit}`` on standard input, and
answers each with a line ``{"outcome": ..., "text": ..., "seconds": ..., "mib": ...}``.  It forks a child per line,
before any library has started a thread.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import select
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import tensorstore
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from emboundary.service.errors import EmboundaryError
from emboundary.service.volumes import Volume, open_volume

# The largest chunk that is accepted has 2 GiB; it stands in memory once encoded, once decoded and once copied.
ADDRESS_SPACE = 7 << 30
_WHOLE_VOXELS = 1 << 20
_SHAPE = (6, 20, 24)


def main() -> None:
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
        return
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(apart(**request)) + "\n")
        sys.stdout.flush()


def apart(where: str, kind: str, seconds: float) -> dict[str, Any]:
    """Examine a volume in a child with limits; a child that does not answer was killed, and by what is the outcome."""
    receive, send = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receive)
        os.close(0)
        limit = _address_space() + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        outcome = examine(where, kind)
        os.write(send, json.dumps(outcome).encode()[:60_000])
        os._exit(0)
    os.close(send)
    answered, _, _ = select.select([receive], [], [], seconds)
    if not answered:
        os.kill(child, signal.SIGKILL)
    answer = b""
    while part := os.read(receive, 1 << 16):
        answer += part
    os.close(receive)
    _, status, usage = os.wait4(child, 0)
    found = {"seconds": time.monotonic() - start, "mib": usage.ru_maxrss >> 10}
    if not answered:
        return found | {"outcome": "hang", "text": f"no answer within {seconds} s"}
    if not answer or status != 0:
        return found | {"outcome": "crash", "text": f"status {status}: {answer!r}"}
    outcome, text = json.loads(answer)
    return found | {"outcome": outcome, "text": text}


def examine(where: str, kind: str) -> tuple[str, str]:
    """What comes of reading a volume: ``refused``, ``read``, or what must not be."""
    try:
        FAULTS.get(kind, lambda: None)()
        try:
            with open_volume(where) as volume:
                blocks = [(box, volume[box]) for box in boxes(volume.shape)]
        except EmboundaryError as error:
            text = str(error)
            return ("refused" if "\n" not in text and text.strip() else "unclear"), text
        logging.disable()
        warnings.simplefilter("ignore")
        try:
            expected = [REFERENCES[kind](where, volume, box) for box, _ in blocks]
        except Exception as error:
            return "lax", f"the reference refuses what we read: {error!r}"
        for (box, block), reference in zip(blocks, expected, strict=True):
            if block.dtype != volume.dtype or not np.array_equal(block, reference):
                return "wrong", f"other voxels than the reference's at {box}"
        return "read", f"{volume.shape} {volume.dtype}"
    except BaseException as error:
        import traceback

        return "exception", "".join(traceback.format_exception(error)[-6:])


def boxes(shape: tuple[int, int, int]) -> list[tuple[slice, slice, slice]]:
    """All of a small volume; the first and the last corner of a large one."""
    if math.prod(shape) <= _WHOLE_VOXELS:
        return [tuple(slice(0, extent) for extent in shape)]  # type: ignore[list-item]
    corner = [min(extent, 32) for extent in shape]
    return [
        tuple(slice(0, n) for n in corner),  # type: ignore[list-item]
        tuple(slice(extent - n, extent) for n, extent in zip(corner, shape, strict=True)),  # type: ignore[list-item]
    ]


def _placed(array: Any, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
    """The box of an array whose axes stand as our reader found them; which is which is told, not examined, here."""
    places = [place for place in volume._places if place is not None]
    key: list[slice | int] = [0] * len(array.shape)
    for place, part in zip(places, box[-len(places) :], strict=True):
        key[place] = part
    block = np.asarray(array[tuple(key)])
    order = sorted(places)
    block = block.transpose([order.index(place) for place in places])
    return block[None][box[0]] if block.ndim == 2 else block


def _read_zarr(where: str, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
    node: Any = zarr.open(where, mode="r")
    if isinstance(node, zarr.Group):
        attributes = node.attrs.asdict()
        image = attributes.get("ome", {}).get("multiscales") or attributes["multiscales"]
        node = node[image[0]["datasets"][0]["path"]]
    return _placed(node, volume, box)


def _read_tensorstore(driver: str) -> Any:
    def read(where: str, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{where}/"}}
        store = tensorstore.open(spec, read=True).result()
        return _placed(store.T[tensorstore.d[:].translate_to[0]], volume, box)

    return read


def _read_hdf5(where: str, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
    name, _, inside = where.rpartition("::")
    with h5py.File(name, "r") as file:
        return _placed(file[inside], volume, box)


def _read_tiff(where: str, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
    with tifffile.TiffFile(where) as file:
        return _placed(file.series[0].asarray(), volume, box)


def _read_png(where: str, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
    with Image.open(where) as image:
        return _placed(np.asarray(image).astype(volume.dtype), volume, box)


def _read_sections(where: str, volume: Volume, box: tuple[slice, ...]) -> NDArray[Any]:
    names = sorted(path for path in Path(where).iterdir() if path.suffix in (".png", ".tif"))
    sections = []
    for path in names:
        if path.suffix == ".tif":
            sections.append(tifffile.imread(path).squeeze())
        else:
            with Image.open(path) as image:
                sections.append(np.asarray(image).astype(volume.dtype))
    return _placed(np.stack(sections), volume, box)


REFERENCES = {
    "zarr": _read_zarr,
    "n5": _read_tensorstore("n5"),
    "precomputed": _read_tensorstore("neuroglancer_precomputed"),
    "hdf5": _read_hdf5,
    "tiff": _read_tiff,
    "png": _read_png,
    "sections": _read_sections,
}


# What the examination must notice, on request.
FAULTS = {
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": lambda: time.sleep(60),
    "blow-up": lambda: bytearray(2 * ADDRESS_SPACE),
}


def write(folder: Path) -> None:
    """One sound volume per format and layout, named KIND-LAYOUT."""
    array = (np.arange(math.prod(_SHAPE), dtype=np.uint32) * 2654435761 >> 24).astype(np.uint8).reshape(_SHAPE)
    array[:, 5:15] >>= 4  # something to compress
    wide = array.astype(np.uint16) * 257
    _write_zarr(folder, array)
    _write_by_tensorstore(folder, array)
    with h5py.File(folder / "hdf5-chunked", "w") as file:
        file.create_dataset("v", data=wide, chunks=(2, 16, 16), compression="gzip", shuffle=True, fletcher32=True)
    with h5py.File(folder / "hdf5-plain", "w", libver="latest") as file:
        file.create_dataset("v", data=array)
        file["v"].attrs["element_size_um"] = [0.05, 0.004, 0.004]
    with h5py.File(folder / "hdf5-latest", "w", libver="latest") as file:
        file.create_dataset("v", data=wide, chunks=(2, 16, 16), compression="gzip", maxshape=(None, 20, 24))
    layouts: dict[str, dict[str, Any]] = {
        "plain": {},
        "strips": {"compression": "zlib", "rowsperstrip": 7},
        "tiles": {"compression": "lzw", "tile": (16, 16), "predictor": True},
        "zstd": {"compression": "zstd", "tile": (16, 16)},
        "jpeg": {"compression": "jpeg"},
        "packbits": {"compression": "packbits", "rowsperstrip": 20},
        "jpeg2000": {"compression": "jpeg2000"},
        "big": {"bigtiff": True, "byteorder": ">", "compression": "deflate"},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 0.05, "unit": "micron"}},
        "ome": {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 4.0}},
    }
    for name, options in layouts.items():
        tifffile.imwrite(folder / f"tiff-{name}", array, photometric="minisblack", **options)
    (folder / "png-8").write_bytes(imagecodecs.png_encode(array[0]))
    (folder / "png-16").write_bytes(imagecodecs.png_encode(wide[0]))
    for suffix in ("png", "tif"):
        (folder / f"sections-{suffix}").mkdir()
        for number, section in enumerate(array[:3]):
            path = folder / f"sections-{suffix}" / f"s{number}.{suffix}"
            if suffix == "png":
                path.write_bytes(imagecodecs.png_encode(section))
            else:
                tifffile.imwrite(path, section, compression="zlib", rowsperstrip=9)


def _write_zarr(folder: Path, array: NDArray[Any]) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

    chunks = {"chunks": (4, 16, 16)}
    zarr.create_array(folder / "zarr-v2", data=array, zarr_format=2, **chunks)
    zarr.create_array(folder / "zarr-v3", data=array.astype(np.float32), compressors=[BloscCodec()], **chunks)
    zarr.create_array(folder / "zarr-gzip", data=array, compressors=[GzipCodec(), Crc32cCodec()], **chunks)
    zarr.create_array(folder / "zarr-raw", data=array.astype(">u2"), compressors=None, **chunks)
    zarr.create_array(
        folder / "zarr-sharded", data=array, chunks=(2, 8, 8), shards=(4, 16, 16), compressors=[ZstdCodec()]
    )
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [50, 4, 4]}]}
    image = {"axes": axes, "datasets": [scale], "name": "v"}
    for version in ("0.4", "0.5"):
        group = zarr.create_group(folder / f"zarr-ome{version}", zarr_format=2 if version == "0.4" else 3)
        group.create_array("0", data=array, **chunks)
        old = {"multiscales": [image | {"version": version}]}
        group.attrs.update(old if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}})


def _write_by_tensorstore(folder: Path, array: NDArray[Any]) -> None:
    for name in ("raw", "gzip", "blosc"):
        extra = {"cname": "lz4", "clevel": 5, "shuffle": 1} if name == "blosc" else {}
        metadata = {
            "dimensions": array.shape[::-1],
            "blockSize": [16, 16, 4],
            "dataType": "uint8",
            "compression": {"type": name} | extra,
        }
        _create(folder / f"n5-{name}", {"driver": "n5", "metadata": metadata}, array.T)
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 1,
        "hash": "identity",
        "minishard_bits": 1,
        "shard_bits": 1,
        "data_encoding": "gzip",
    }
    encodings: dict[str, dict[str, Any]] = {
        "raw": {},
        "png": {"encoding": "png"},
        "jpeg": {"encoding": "jpeg", "jpeg_quality": 90},
        "sharded": {"sharding": sharding},
    }
    for name, encoding in encodings.items():
        scale = {"size": array.shape[::-1], "resolution": [4, 4, 50], "chunk_size": [16, 16, 4], "encoding": "raw"}
        spec = {
            "driver": "neuroglancer_precomputed",
            "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
            "scale_metadata": scale | encoding,
        }
        _create(folder / f"precomputed-{name}", spec, array.T[..., None])


def _create(path: Path, spec: dict[str, Any], array: NDArray[Any]) -> None:
    kvstore = {"driver": "file", "path": f"{path}/"}
    tensorstore.open(spec | {"kvstore": kvstore}, create=True).result().write(array).result()


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
