"""N5 and Neuroglancer precomputed, written by tensorstore."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tensorstore
from numpy.typing import NDArray

from emboundary.service.errors import InputError
from emboundary.service.volumes import open_volume

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 40, 50), dtype=np.uint8)
PART = (slice(1, 4), slice(5, 33), slice(17, 50))


def write_n5(path: Path, array: NDArray[Any], compression: str = "gzip", **attributes: Any) -> None:
    """Write an array (z, y, x) as N5, whose axes are x, y, z; more attributes are added afterwards."""
    blocks = [min(extent, 16) for extent in array.shape[::-1]]
    metadata = {
        "dimensions": array.shape[::-1],
        "blockSize": blocks,
        "dataType": str(array.dtype),
        "compression": {"type": compression},
    }
    kvstore = {"driver": "file", "path": f"{path}/"}
    store = tensorstore.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata}, create=True).result()
    store.write(array.T).result()
    document = path / "attributes.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | attributes))


def write_precomputed(path: Path, array: NDArray[Any], offset: tuple[int, int, int] = (0, 0, 0), **scale: Any) -> None:
    """Write an array (c, z, y, x) as precomputed, whose axes are x, y, z, channel."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "multiscale_metadata": {"type": "image", "data_type": str(array.dtype), "num_channels": array.shape[0]},
        "scale_metadata": {
            "size": array.shape[:0:-1],
            "resolution": [4, 5, 50],
            "voxel_offset": offset,
            "chunk_size": [16, 16, 4],
            "encoding": "raw",
        }
        | scale,
    }
    tensorstore.open(spec, create=True).result().write(array.T).result()


@pytest.mark.parametrize("compression", ["raw", "gzip", "bzip2", "xz", "blosc"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_n5_of_all_types_and_compressions(tmp_path: Path, dtype: str, compression: str) -> None:
    array = ARRAY.astype(dtype)
    if compression == "blosc":
        settings = {"type": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
        kvstore = {"driver": "file", "path": f"{tmp_path}/v.n5/"}
        metadata = {"dimensions": [50, 40, 6], "blockSize": [16, 16, 6], "dataType": dtype, "compression": settings}
        store = tensorstore.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata}, create=True).result()
        store.write(array.T).result()
    else:
        write_n5(tmp_path / "v.n5", array, compression)
    with open_volume(tmp_path / "v.n5") as volume:
        assert (volume.shape, volume.dtype, volume.chunks) == (ARRAY.shape, np.dtype(dtype), (6, 16, 16))
        assert volume.voxel_size_nm is None
        np.testing.assert_array_equal(volume[PART], array[PART])


@pytest.mark.parametrize(
    "attributes",
    [
        {"axes": ["x", "y", "z"], "resolution": [4, 5, 50], "units": ["nm", "nm", "nm"]},
        {"resolution": [0.004, 0.005, 0.05], "units": ["um", "um", "um"]},
        {"pixelResolution": {"dimensions": [4, 5, 50], "unit": "nm"}},
        {"pixelResolution": {"dimensions": [4, 5, 50], "unit": "nm"}, "downsamplingFactors": [1, 1, 1]},
    ],
)
def test_n5_brings_its_voxel_size(tmp_path: Path, attributes: dict[str, Any]) -> None:
    write_n5(tmp_path / "v.n5", ARRAY, **attributes)
    with open_volume(tmp_path / "v.n5") as volume:
        assert volume.voxel_size_nm == pytest.approx((50, 5, 4))


@pytest.mark.parametrize(
    "attributes",
    [
        {"resolution": [4, 5, 50]},
        {"pixelResolution": {"dimensions": [4, 5, 50], "unit": "nm"}, "downsamplingFactors": [2, 2, 1]},
        {"pixelResolution": [4, 5, 50]},
    ],
)
def test_a_voxel_size_in_doubt_is_unknown(tmp_path: Path, attributes: dict[str, Any]) -> None:
    write_n5(tmp_path / "v.n5", ARRAY, **attributes)
    with open_volume(tmp_path / "v.n5") as volume:
        assert volume.voxel_size_nm is None
    with open_volume(tmp_path / "v.n5", voxel_size_nm=(30, 8, 8)) as volume:
        assert volume.voxel_size_nm == (30, 8, 8)


def test_names_of_n5_axes_are_honoured(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY.transpose(2, 1, 0), axes=["z", "y", "x"])
    with open_volume(tmp_path / "v.n5") as volume:
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_four_n5_axes_without_names_are_refused_with_the_command(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY[None])
    with pytest.raises(InputError, match=r"emboundary predict \S*v\.n5 OUTPUT --axes czyx"):
        open_volume(tmp_path / "v.n5")
    with open_volume(tmp_path / "v.n5", "czyx") as volume:
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_an_n5_group_is_refused(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5" / "s0", ARRAY)
    (tmp_path / "v.n5" / "attributes.json").write_text('{"n5": "2.5.1"}')
    with pytest.raises(InputError, match=r"is an N5 group, not a dataset; give .*, e\.g\. \S*v\.n5/s0"):
        open_volume(tmp_path / "v.n5")


@pytest.mark.parametrize("encoding", ["raw", "png", "sharded"])
@pytest.mark.parametrize("offset", [(0, 0, 0), (100, -20, 3)])
def test_precomputed_has_its_own_order_and_offset(tmp_path: Path, encoding: str, offset: tuple[int, int, int]) -> None:
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 1,
        "hash": "identity",
        "minishard_bits": 2,
        "shard_bits": 3,
    }
    scale = {"sharding": sharding} if encoding == "sharded" else {"encoding": encoding}
    write_precomputed(tmp_path / "p", ARRAY[None], offset, **scale)
    with open_volume(tmp_path / "p") as volume:
        assert (volume.shape, volume.dtype, volume.chunks) == (ARRAY.shape, np.dtype("uint8"), (4, 16, 16))
        assert volume.voxel_size_nm == (50, 5, 4)
        assert [axis.origin for axis in volume.axes] == [offset[2] * 50, offset[1] * 5, offset[0] * 4]
        np.testing.assert_array_equal(volume[PART], ARRAY[PART])
        np.testing.assert_array_equal(volume[0:6, 0:40, 0:50], ARRAY)


def test_several_channels_are_refused(tmp_path: Path) -> None:
    write_precomputed(tmp_path / "p", np.stack([ARRAY, ARRAY]))
    with pytest.raises(InputError, match=r"axis 'c' has 2: store one channel"):
        open_volume(tmp_path / "p")


def test_types_that_are_no_grey_value_are_refused(tmp_path: Path) -> None:
    write_precomputed(tmp_path / "p", ARRAY[None].astype(np.uint64))
    with pytest.raises(InputError, match=r"has voxels of type uint64; it must be one of"):
        open_volume(tmp_path / "p")


def test_blocks_that_were_never_written_are_zeros(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY)
    (tmp_path / "v.n5" / "0" / "0" / "0").unlink(missing_ok=True)
    with open_volume(tmp_path / "v.n5") as volume:
        assert volume.fill_value == 0
        assert not volume[0:6, 0:16, 0:16].any()
        np.testing.assert_array_equal(volume[0:6, 16:40, 0:50], ARRAY[:, 16:])


@pytest.mark.parametrize("kind", ["n5", "precomputed"])
def test_a_truncated_block_is_refused_when_it_is_read(tmp_path: Path, kind: str) -> None:
    if kind == "n5":
        write_n5(tmp_path / "v", ARRAY)
        damaged = tmp_path / "v" / "0" / "0" / "0"
    else:
        write_precomputed(tmp_path / "v", ARRAY[None])
        damaged = next(path for path in (tmp_path / "v").rglob("0-16_0-16_0-4"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with (
        open_volume(tmp_path / "v") as volume,
        pytest.raises(InputError, match=r"cannot be read at .*; it is damaged or truncated: copy or export it again"),
    ):
        volume[0:6, 0:40, 0:50]


@pytest.mark.parametrize("name", ["attributes.json", "info"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, "\xff", '{"scales": []}', '{"scales": [3]}'])
def test_damaged_metadata_are_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"mend its metadata|copy it again|not a dataset"):
        open_volume(tmp_path)


@pytest.mark.parametrize("hostile", [-1, None, "x", [-1, 0], [[0, 0, 0]], {}])
@pytest.mark.parametrize("key", ["chunk_sizes", "resolution", "size", "voxel_offset"])
def test_senseless_precomputed_metadata_are_refused(tmp_path: Path, key: str, hostile: Any) -> None:
    write_precomputed(tmp_path, ARRAY[None])
    info = json.loads((tmp_path / "info").read_text())
    info["scales"][0][key] = hostile
    (tmp_path / "info").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"mend its metadata"):
        open_volume(tmp_path)


def test_blocks_beyond_memory_are_refused(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY, blockSize=[1 << 20, 1 << 20, 1])
    with pytest.raises(
        InputError, match=r"1\.0 TiB once decoded; it must be at most 2\.0 GiB: store .* smaller chunks"
    ):
        open_volume(tmp_path / "v.n5")


def test_a_huge_volume_opens_and_is_read_in_parts(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY, dimensions=[1 << 20] * 3)
    with open_volume(tmp_path / "v.n5") as volume:
        assert volume.shape == (1 << 20,) * 3
        assert not volume[1 << 19 : (1 << 19) + 4, 0:16, (1 << 20) - 8 : 1 << 20].any()


def test_without_tensorstore_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_n5(tmp_path / "v.n5", ARRAY)
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'emboundary\[tensorstore\]'"):
        open_volume(tmp_path / "v.n5")


def test_threads_read_at_once(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY)
    with open_volume(tmp_path / "v.n5") as volume, ThreadPoolExecutor(4) as pool:
        for z, section in enumerate(pool.map(lambda z: volume[z : z + 1, 0:40, 0:50], list(range(6)) * 8)):
            np.testing.assert_array_equal(section[0], ARRAY[z % 6])


def test_a_web_server_is_enough(tmp_path: Path, served: str) -> None:
    write_n5(tmp_path / "v.n5", ARRAY)
    write_precomputed(tmp_path / "p", ARRAY[None])
    for name in ("v.n5", "p"):
        with open_volume(f"{served}/{name}") as volume:
            np.testing.assert_array_equal(volume[PART], ARRAY[PART])


def test_other_urls_are_refused(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "v.n5"), "/v.n5", recursive=True)
    try:
        with pytest.raises(InputError, match=r"from a folder or from http://, https://, s3://, gs:// only: copy it"):
            open_volume("memory://v.n5")
    finally:
        memory.rm("/", recursive=True)


def test_the_identity_follows_the_metadata(tmp_path: Path) -> None:
    write_n5(tmp_path / "v.n5", ARRAY)
    with open_volume(tmp_path / "v.n5") as volume:
        before = volume.identity()
    with open_volume(tmp_path / "v.n5") as volume:
        assert volume.identity() == json.loads(json.dumps(before)) == before
    document = tmp_path / "v.n5" / "attributes.json"
    document.write_text(document.read_text() + " ")
    with open_volume(tmp_path / "v.n5") as volume:
        assert volume.identity() != before
