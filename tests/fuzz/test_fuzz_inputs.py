"""Truncated, bit-flipped and hostile volumes of every format: a clear error within seconds, or the right voxels.

``make test`` tries a few hundred; EMBOUNDARY_CAMPAIGN=1 in the environment (``make campaign``) some ten thousand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

CAMPAIGN = os.environ.get("EMBOUNDARY_CAMPAIGN") == "1"
EXAMPLES = 400 if CAMPAIGN else 6
# Beyond what Python and the libraries take: the volumes have a few kilobytes.
MOST_MIB = 1024
EXAMINE = Path(__file__).with_name("examine.py")
VOLUMES = [
    *(f"zarr-{layout}" for layout in ("v2", "v3", "gzip", "raw", "sharded", "ome0.4", "ome0.5")),
    *(f"n5-{layout}" for layout in ("raw", "gzip", "blosc")),
    *(f"precomputed-{layout}" for layout in ("raw", "png", "jpeg", "sharded")),
    *(f"hdf5-{layout}" for layout in ("chunked", "plain", "latest")),
    *(f"tiff-{layout}" for layout in ("plain", "strips", "tiles", "zstd", "jpeg", "packbits", "jpeg2000", "big")),
    *(f"tiff-{layout}" for layout in ("imagej", "ome")),
    *(f"png-{depth}" for depth in (8, 16)),
    *(f"sections-{kind}" for kind in ("png", "tif")),
]
Examine = Callable[..., dict[str, Any]]

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not CAMPAIGN,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound volume of every format."""
    folder = tmp_path_factory.mktemp("sound")
    subprocess.run([sys.executable, EXAMINE, "write", folder], check=True)
    assert {path.name for path in folder.iterdir()} == set(VOLUMES)
    return folder


def check(found: dict[str, Any]) -> None:
    """Refused in one line, or read as the format's reference library reads it; soon, and in bounded memory."""
    note(str(found))
    assert found["outcome"] in ("refused", "read"), found
    assert found["mib"] < MOST_MIB, found


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, float, Any]:
    """What is done to a file: its name, the place as a share of the file's length, and a parameter."""
    place = draw(st.floats(0, 1, exclude_max=True))
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flip", "set", "set", "insert", "remove", "empty", "json"]))
    if kind == "flip":
        return kind, place, draw(st.lists(st.tuples(st.integers(0, 24), st.integers(0, 7)), min_size=1, max_size=6))
    if kind in ("set", "insert"):
        hostile = [b"\xff" * 8, b"\xff" * 4, b"\0" * 4, b"\x7f" + b"\xff" * 3, b"\xff\xff\xff\x7f", b"\1", b"\0" * 64]
        return kind, place, draw(st.sampled_from(hostile) | st.binary(min_size=1, max_size=8))
    if kind == "json":
        return kind, place, (draw(st.integers(0, 1 << 30)), draw(st.sampled_from(HOSTILE_JSON)))
    return kind, place, None


HOSTILE_JSON: list[Any] = [
    -1,
    0,
    1,
    2,
    1 << 31,
    1 << 40,
    1 << 60,
    1 << 64,
    1 << 200,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    None,
    True,
    "",
    "x",
    "uint64",
    "../..",
    "/",
    "\0",
    "é\n",
    "x" * 10_000,
    [],
    {},
    [1],
    [1 << 60] * 3,
    [0, 0, 0],
    [-1, -1, -1],
    ["z", "z", "x"],
    {"type": "x"},
    {"name": "regular", "configuration": {}},
]


def damage(path: Path, kind: str, place: float, parameter: Any) -> None:
    """Damage one file."""
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if kind == "cut":
        content = content[:at]
    elif kind == "flip":
        for step, bit in parameter:
            if at + step < len(content):
                content[at + step] ^= 1 << bit
    elif kind == "set":
        content[at : at + len(parameter)] = parameter
    elif kind == "insert":
        content[at:at] = parameter
    elif kind == "empty":
        content = bytearray()
    elif kind == "remove":
        path.unlink()
        return
    elif kind == "json":
        try:
            document = json.loads(content)
        except ValueError:
            content[at : at + 4] = b"\xff" * 4
        else:
            number, hostile = parameter
            content = bytearray(json.dumps(_replaced(document, number, hostile)).encode())
    path.write_bytes(content)


def _replaced(document: Any, number: int, hostile: Any) -> Any:
    """A JSON document with one of its values, the ``number``-th of all, replaced."""
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            visit(value[key])

    visit(document)
    if not places:
        return hostile
    holder, key = places[number % len(places)]
    holder[key] = hostile
    return document


@pytest.mark.parametrize("name", VOLUMES)
def test_sound_volumes_are_read(sound: Path, examine: Examine, name: str) -> None:
    assert examine(sound / name)["outcome"] == "read"


@pytest.mark.parametrize(
    ("kind", "outcome"), [("crash", "crash"), ("hang", "hang"), ("blow-up", "exception"), ("tiff", "lax")]
)
def test_what_must_not_be_is_noticed(sound: Path, examine: Examine, kind: str, outcome: str) -> None:
    assert examine(sound / "png-8", kind, 0.5)["outcome"] == outcome


@pytest.mark.parametrize("name", VOLUMES)
def test_damaged_volumes_are_refused_or_read_right(
    sound: Path, tmp_path: Path, examine: Examine, name: str, record_property: Callable[[str, object], None]
) -> None:
    outcomes: dict[str, int] = {}

    @fuzzed
    @given(st.lists(damages(), min_size=1, max_size=2), st.data())
    def run(done: list[tuple[str, float, Any]], data: st.DataObject) -> None:
        copy = tmp_path / name
        if (sound / name).is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(sound / name, copy)
        else:
            shutil.copyfile(sound / name, copy)
        for kind, place, parameter in done:
            files = sorted(path for path in [copy, *copy.rglob("*")] if path.is_file())
            if not files:
                return
            # Half of the damage goes to metadata: there are few of them among many chunks.
            described = [path for path in files if path.suffix == ".json" or path.name[:2] in (".z", "in")] or files
            chosen = data.draw(st.sampled_from(described) | st.sampled_from(files))
            damage(chosen, kind, place, parameter)
        found = examine(copy)
        outcomes[found["outcome"]] = outcomes.get(found["outcome"], 0) + 1
        check(found)

    run()
    record_property("examples", sum(outcomes.values()))
    for outcome, count in outcomes.items():
        record_property(outcome, count)
