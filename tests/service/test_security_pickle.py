"""A volume is data, whatever it says of itself: no codec that a file may name runs what a file holds."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emboundary.service.codecs import MediaType, decode
from emboundary.service.errors import InputError
from emboundary.service.volumes import open_volume

PICKLE = {"id": "pickle"}
SHUFFLE = {"id": "shuffle", "elementsize": 1}


class Payload:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(tmp_path / "ran")


def test_the_payload_works(payload: Payload, tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(payload))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["|u1", "|O"])
@pytest.mark.parametrize(
    ("filters", "compressor"),
    [([PICKLE], None), (None, PICKLE), ([SHUFFLE, PICKLE], None), ([PICKLE, SHUFFLE], None), ([SHUFFLE], PICKLE)],
)
def test_zarr_2_that_names_pickle_is_refused(
    tmp_path: Path, payload: Payload, dtype: str, filters: Any, compressor: Any
) -> None:
    folder = tmp_path / "raw.zarr"
    folder.mkdir()
    described = {"zarr_format": 2, "shape": [2, 8, 8], "chunks": [2, 8, 8], "fill_value": 0, "order": "C"}
    (folder / ".zarray").write_text(
        json.dumps(described | {"dtype": dtype, "filters": filters, "compressor": compressor})
    )
    (folder / "0.0.0").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError), open_volume(folder, "zyx") as volume:
        volume[0:2, 0:8, 0:8]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pickle", "numcodecs.pickle"])
def test_zarr_3_that_names_pickle_is_refused(tmp_path: Path, payload: Payload, name: str) -> None:
    folder = tmp_path / "raw.zarr"
    (folder / "c/0/0").mkdir(parents=True)
    described = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2, 8, 8],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 8, 8]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}, {"name": name, "configuration": {}}],
    }
    (folder / "zarr.json").write_text(json.dumps(described))
    (folder / "c/0/0/0").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError), open_volume(folder, "zyx") as volume:
        volume[0:2, 0:8, 0:8]
    assert not (tmp_path / "ran").exists()


def test_npy_that_holds_a_pickle_is_refused(tmp_path: Path, payload: Payload) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([payload], dtype=object), allow_pickle=True)
    for content in (stream.getvalue(), pickle.dumps(payload)):
        with pytest.raises(InputError):
            decode(content, MediaType.NPY, limit=1 << 20)
    assert not (tmp_path / "ran").exists()
