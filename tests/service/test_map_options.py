"""The options of a map stand in one place: every command that makes one has them all, and passes them all on."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from emboundary.service import console
from emboundary.service.commands.map_options import MapOptions, with_map_options
from emboundary.service.errors import UsageError
from emboundary.service.preparing.intensity import Intensity
from emboundary.service.run.request import MapRequest

NONE_AT_THEIR_DEFAULT = [
    *("--roi", "0:1,0:9,0:8", "--tile", "24", "--dtype", "float16", "--intensity", "3,2", "--axes", "zyx"),
    *("--voxel-size", "40,4,4", "--chunk", "1,8,8", "--shard", "1,16,16", "--ome-zarr", "0.4", "--no-pyramid"),
    *("--mask", "mask.tif", "--fill", "0.5", "--fill-missing", "0.25", "--clahe", "--rescale", "--overwrite", "--tta"),
]


def run(*words: str) -> tuple[int, list[tuple[str, MapOptions]]]:
    seen: list[tuple[str, MapOptions]] = []

    @with_map_options
    def remember(*, name: str = "nobody", chosen: MapOptions) -> None:
        """Remember."""
        seen.append((name, chosen))

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(remember)
    return console.run(app, "remember", words), seen


def test_every_option_reaches_the_request() -> None:
    code, [(name, chosen)] = run("in.tif", "out.zarr", "--name", "somebody", *NONE_AT_THEIR_DEFAULT)
    assert (code, name, chosen.tta) == (0, "somebody", True)
    assert chosen.request() == MapRequest(
        source="in.tif",
        target=Path("out.zarr"),
        axes="zyx",
        voxel_size_nm=(40, 4, 4),
        roi="0:1,0:9,0:8",
        tile=24,
        dtype="float16",
        intensity=Intensity(3, 2),
        overwrite=True,
        chunk=(1, 8, 8),
        shard=(1, 16, 16),
        ome_zarr="0.4",
        pyramid=False,
        mask="mask.tif",
        fill=0.5,
        fill_missing=0.25,
        clahe=True,
        rescale=True,
    )
    for field in fields(MapRequest)[2:]:  # INPUT and OUTPUT have no default
        assert getattr(chosen.request(), field.name) != field.default, f"{field.name} was not tried"


def test_the_defaults_are_those_of_a_request() -> None:
    code, [(_, chosen)] = run("in.tif", "out.zarr")
    assert (code, chosen.request()) == (0, MapRequest("in.tif", Path("out.zarr")))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chunk", "1,2"], "chunk is '1,2'; it must be Z,Y,X"),
        (["--intensity", "1"], "intensity is '1'"),
        (["--voxel-size", "0,1,1"], "voxel size is 0,1,1; every extent must be finite and above 0 nm"),
        (["--fill", "2"], "fill is 2; it is a probability"),
    ],
)
def test_a_malformed_option_is_wrong_usage(words: list[str], message: str) -> None:
    _, [(_, chosen)] = run("in.tif", "out.zarr", *words)
    with pytest.raises(UsageError, match=message):
        chosen.request()


def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("in.tif", "out.zarr", "--colour", "red") == (2, [])
    assert "No such option: --colour" in capsys.readouterr().err


def test_the_signature_is_that_of_both() -> None:
    @with_map_options
    def command(*, before: int = 1, chosen: MapOptions, after: int = 2) -> None: ...

    names: list[Any] = list(inspect.signature(command).parameters)
    assert names == ["before", *(field.name for field in fields(MapOptions)), "after"]
