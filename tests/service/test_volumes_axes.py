from __future__ import annotations

import numpy as np
import pytest

from emboundary.service.errors import InputError, UsageError
from emboundary.service.volumes.axes import Axis, assign, calibrated, canonical_unit

U8 = np.dtype("uint8")


def named(text: str) -> tuple[Axis, ...]:
    return tuple(Axis("" if letter == "?" else letter) for letter in text)


@pytest.mark.parametrize(
    ("shape", "axes", "told", "places"),
    [
        ((20, 30), "??", None, (None, 0, 1)),
        ((5, 20, 30), "???", None, (0, 1, 2)),
        ((20, 30, 5), "yxz", None, (2, 0, 1)),
        ((1, 5, 1, 20, 30), "tzcyx", None, (1, 3, 4)),
        ((1, 20, 30), "cyx", None, (None, 1, 2)),
        ((20, 30, 3), "???", "zyx", (0, 1, 2)),
        ((1, 5, 20, 30), "????", "czyx", (1, 2, 3)),
        ((5, 20, 30), "cyx", "ZYX", (0, 1, 2)),
    ],
)
def test_axes_come_from_names_or_the_user(
    shape: tuple[int, ...], axes: str, told: str | None, places: tuple[int | None, int, int]
) -> None:
    found = assign("v", shape, U8, named(axes), told)
    assert found.places == places
    assert [axis.name for axis in found.axes] == ["z", "y", "x"]


@pytest.mark.parametrize("dtype", ["uint8"])
@pytest.mark.parametrize("channels", [3, 4])
def test_what_looks_like_colour_is_not_taken_for_a_stack(channels: int, dtype: str) -> None:
    with pytest.raises(InputError, match=r"looks like a colour image: convert .* or give --axes zyx if it is a stack"):
        assign("v", (64, 80, channels), np.dtype(dtype), named("???"), None)


@pytest.mark.parametrize(("shape", "dtype"), [((64, 80, 5), "uint8"), ((64, 80, 3), "float32"), ((8, 80, 3), "uint8")])
def test_narrow_stacks_are_not_taken_for_colour(shape: tuple[int, ...], dtype: str) -> None:
    assert assign("v", shape, np.dtype(dtype), named("???"), None).places == (0, 1, 2)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((2, 5, 20, 30), "czyx", r"only z, y and x may be longer than 1, axis 'c' has 2: store one channel"),
        ((5, 20, 30), "tyx", r"axis 't' has 5: store .* or give --axes if the names are wrong"),
        ((2, 5, 20, 30), "????", r"its axes are not named: name them with --axes, e\.g\. --axes czyx"),
        ((20, 30, 5), "?x?", r"its axes are not named: name them with --axes, e\.g\. --axes zyx"),
        ((5, 20, 30), "zyy", "one of them twice"),
        ((5, 1, 30), "zax", "y and x must be among them"),
    ],
)
def test_axes_are_never_guessed(shape: tuple[int, ...], axes: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assign("v", shape, U8, named(axes), None)


@pytest.mark.parametrize("told", ["", "yx", "zyxc", "zzx", "zyw", "zcx", "z,y"])
def test_told_axes_must_fit(told: str) -> None:
    with pytest.raises(UsageError, match=rf"axes is {told!r}, but v has shape \(5, 20, 30\): give 3 different letters"):
        assign("v", (5, 20, 30), U8, named("???"), told)


def test_told_axes_still_exclude_channels() -> None:
    with pytest.raises(InputError, match="axis 'c' has 5"):
        assign("v", (5, 20, 30), U8, named("???"), "cyx")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nm", "nanometer"),
        ("µm", "micrometer"),
        ("\\u00B5m", "micrometer"),
        ("micron", "micrometer"),
        ("Å", "angstrom"),
        ("Nanometre", "nanometer"),
        ("pixel", "pixel"),
        ("", None),
        (None, None),
    ],
)
def test_units_are_spelled_as_ome_zarr_does(text: str | None, canonical: str | None) -> None:
    assert canonical_unit(text) == canonical


def test_voxel_sizes_are_in_nanometres_or_unknown() -> None:
    assert Axis("z", 0.05, "micrometer").voxel_size_nm == pytest.approx(50)
    assert Axis("z", 50, None).voxel_size_nm is None
    assert Axis("z", None, "nanometer").voxel_size_nm is None
    assert Axis("z", 50, "pixel").voxel_size_nm is None


def test_cropping_moves_the_origin_by_voxels() -> None:
    assert Axis("z", 50.0, "nanometer", 100.0).cropped(3).origin == 250.0
    assert Axis("z").cropped(3).origin == 3.0


@pytest.mark.parametrize(
    ("shape", "letters"),
    [
        ((1, 5, 20, 30), "czyx"),
        ((5, 1, 20, 30), "zcyx"),
        ((5, 20, 30, 1), "zyxc"),
        ((2, 5, 20, 30), "czyx"),
        ((1, 1, 5, 20, 30), "tczyx"),
    ],
)
def test_axes_without_names_are_refused_with_the_command_that_is_right(shape: tuple[int, ...], letters: str) -> None:
    message = rf"--axes {letters}: emboundary predict 'my volume\.h5::/raw' OUTPUT --axes {letters}$"
    with pytest.raises(InputError, match=message):
        assign("my volume.h5::/raw", shape, U8, (Axis(),) * len(shape), None)
    if 1 in shape:
        assert assign("v", shape, U8, (Axis(),) * len(shape), letters).places is not None


@pytest.mark.parametrize(
    ("axis", "origin"),
    [
        (Axis("z", 0.05, "micrometer", 1.0), 1000.0),
        (Axis("z", 2.0, "pixel", 10.0), 250.0),
        (Axis("z", None, None, 3.0), 150.0),
        (Axis("z", float("nan"), None, 3.0), 0.0),
    ],
)
def test_a_voxel_size_that_is_told_keeps_the_place(axis: Axis, origin: float) -> None:
    z, y, _ = calibrated((axis, Axis("y"), Axis("x")), (50, 4, 4))
    assert (z.scale, z.unit, z.origin) == (50.0, "nanometer", pytest.approx(origin))
    assert (y.voxel_size_nm, y.origin) == (4.0, 0.0)
