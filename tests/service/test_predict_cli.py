"""``emboundary predict`` as a user meets it: files in, files out, exit codes, and one line per failure."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from emboundary.model.geometry import Box
from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.service.cli import create_cli
from emboundary.service.engine import OnnxEngine
from emboundary.service.preparing.intensity import Intensity, measure
from emboundary.service.run.inference import predict_array
from emboundary.service.volumes import open_volume
from emboundary.service.volumes.place import Place
from emboundary.service.volumes.zarr_output import ZarrOutput

SHAPE = (3, 50, 61)
ARRAY = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


class Shell:
    """Runs ``emboundary`` on a tiny model in a folder of its own."""

    def __init__(self, folder: Path, model: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.model, self._capture = folder, model, capture

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command line."""
        self._capture.readouterr()
        code = console.run(create_cli(), "emboundary", words)
        out, err = self._capture.readouterr()
        return code, out, err

    def predict(self, source: str, target: str, *options: str) -> tuple[int, str, str]:
        """Predict between two names in the folder; other places can be given in full."""
        names = [name if "://" in name else str(self.folder / name) for name in (source, target)]
        return self.run("predict", *names, "--model", str(self.model), "--device", "cpu", *options)

    def refused(self, code: int, source: str, target: str, *options: str) -> str:
        """The one line of a run that must fail, leave nothing behind, and show no traceback."""
        before = sorted(self.folder.rglob("*"))
        found, out, err = self.predict(source, target, *options)
        lines = [line for line in err.splitlines() if line.startswith("emboundary: error: ")]
        assert (found, len(lines), out) == (code, 1, "")
        assert err.splitlines()[-1] == lines[0]
        assert "Traceback" not in err
        assert sorted(self.folder.rglob("*")) == before
        return lines[0].removeprefix("emboundary: error: ")


@pytest.fixture
def shell(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    tifffile.imwrite(tmp_path / "in.tif", ARRAY, photometric="minisblack")
    return Shell(tmp_path, repository / "d4" / "1" / "model.onnx", capsys)


@pytest.fixture(scope="session")
def expected(repository: Path) -> Callable[..., NDArray[np.float32]]:
    """The map of an array through the library, in one tile."""
    engine = OnnxEngine.open(load_model("d4", repository), "cpu")

    def predict(array: NDArray[Any], intensity: Intensity | None = None, *, tta: bool = False) -> NDArray[np.float32]:
        return predict_array(engine, array, intensity or measure(array).intensity, tta=tta)

    return predict


def read(path: Path) -> NDArray[Any]:
    with open_volume(path) as volume:
        z, y, x = volume.shape
        return volume[0:z, 0:y, 0:x]


def assert_levels(found: NDArray[Any], probability: NDArray[np.float32]) -> None:
    """At most one level of uint8 apart (law 1)."""
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.rint(probability * 255).astype(int)).max() <= 1


def write_inputs(folder: Path) -> list[str]:
    zarr.create_array(folder / "v2.zarr", data=ARRAY, chunks=(2, 20, 20), zarr_format=2)
    zarr.create_array(folder / "v3.zarr", data=ARRAY, chunks=(2, 20, 20), zarr_format=3)
    tifffile.imwrite(folder / "strips.tif", ARRAY, photometric="minisblack", compression="zlib", rowsperstrip=7)
    return ["in.tif", "strips.tif", "v2.zarr", "v3.zarr"]


@pytest.mark.parametrize("target", ["out.zarr", "out.tif"])
def test_every_input_gives_the_same_map(shell: Shell, expected: Callable[..., Any], target: str) -> None:
    for source in write_inputs(shell.folder):
        code, out, err = shell.predict(source, target, "--overwrite", "--tile", "24")
        assert (code, out) == (0, ""), err
        assert_levels(read(shell.folder / target), expected(ARRAY))


def test_json_is_the_last_thing_on_stdout(shell: Shell) -> None:
    code, out, err = shell.predict("in.tif", "out.zarr", "--tile", "32", "--json")
    assert code == 0
    answer = json.loads(out)
    assert out == out.strip() + "\n"
    assert {
        "voxels",
        "seconds",
        "voxels_per_second",
        "model",
        "device",
        "precision",
        "blocks_done",
        "blocks_skipped",
    } <= set(answer)
    assert answer["voxels"] == ARRAY.size
    assert answer["voxels_per_second"] == pytest.approx(ARRAY.size / answer["seconds"])
    assert (answer["model"], answer["device"], answer["precision"]) == ("d4", "cpu", "float32")
    assert (answer["blocks_done"], answer["blocks_skipped"]) == (1, 0)
    assert (answer["blocks_missing"], answer["complete"]) == ([], True)
    assert "model d4, version 1, on CPU, as asked" in err
    assert "voxel/s" in err


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_are_stored_as_they_are(shell: Shell, expected: Callable[..., Any], dtype: str) -> None:
    assert shell.predict("in.tif", "out.zarr", "--dtype", dtype)[0] == 0
    found = read(shell.folder / "out.zarr")
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_allclose(found, expected(ARRAY), rtol=0, atol=1e-5 if dtype == "float32" else 1e-3)


def test_tta_is_the_mean_of_eight(shell: Shell, expected: Callable[..., Any]) -> None:
    assert shell.predict("in.tif", "out.zarr", "--dtype", "float32", "--tta", "--tile", "20")[0] == 0
    found = read(shell.folder / "out.zarr")
    np.testing.assert_allclose(found, expected(ARRAY, tta=True), rtol=0, atol=1e-5)
    assert np.abs(found - expected(ARRAY)).max() > 1e-3


def test_a_roi_is_the_same_map_with_its_place_noted(shell: Shell, expected: Callable[..., Any]) -> None:
    tifffile.imwrite(
        shell.folder / "in.ome.tif",
        ARRAY,
        metadata={"axes": "ZYX"}
        | {f"PhysicalSize{a}": s for a, s in zip("ZYX", (50.0, 4.0, 5.0), strict=True)}
        | {f"PhysicalSize{a}Unit": "nm" for a in "ZYX"},
    )
    box = Box((1, 7, 13), (3, 42, 61))
    assert shell.predict("in.ome.tif", "out.zarr", "--roi", str(box), "--tile", "16", "--dtype", "float32")[0] == 0
    with open_volume(shell.folder / "out.zarr") as volume:
        assert volume.shape == box.shape
        assert volume.voxel_size_nm == (50.0, 4.0, 5.0)
        assert [axis.origin for axis in volume.axes] == [50.0, 28.0, 65.0]
        np.testing.assert_allclose(volume[0:2, 0:35, 0:48], expected(ARRAY)[box.slices], rtol=0, atol=1e-5)


def test_how_the_map_was_made_is_stored_with_it(shell: Shell) -> None:
    assert shell.predict("in.tif", "out.zarr", "--intensity", "100,50", "--tta")[0] == 0
    stored = dict(zarr.open_group(shell.folder / "out.zarr", mode="r").attrs["emboundary"])
    description = load_model(shell.model).description
    assert stored["model"] == "d4"
    assert stored["model_sha256"] == description.sha256
    assert stored["intensity"] == [100.0, 50.0]
    assert stored["tta"] is True
    assert (stored["device"], stored["precision"]) == ("cpu", "float32")
    assert stored["input"] == str(shell.folder / "in.tif")
    assert stored["roi"] == "0:3,0:50,0:61"


def test_a_given_intensity_is_used(shell: Shell, expected: Callable[..., Any]) -> None:
    assert shell.predict("in.tif", "out.tif", "--intensity", "100,50")[0] == 0
    assert_levels(read(shell.folder / "out.tif"), expected(ARRAY, Intensity(100, 50)))


def test_png_in_and_out(shell: Shell, expected: Callable[..., Any]) -> None:
    (shell.folder / "in.png").write_bytes(imagecodecs.png_encode(ARRAY[0]))
    assert shell.predict("in.png", "out.png")[0] == 0
    found = imagecodecs.png_decode((shell.folder / "out.png").read_bytes())
    assert_levels(found[None], expected(ARRAY[:1]))


def test_a_stack_to_png_by_roi(shell: Shell) -> None:
    assert shell.predict("in.tif", "out.png", "--roi", "2:3,0:50,0:61")[0] == 0
    assert imagecodecs.png_decode((shell.folder / "out.png").read_bytes()).shape == (50, 61)


def test_a_constant_volume_is_mapped_with_an_intensity(shell: Shell) -> None:
    tifffile.imwrite(shell.folder / "flat.tif", np.full(SHAPE, 9, np.uint8), photometric="minisblack")
    assert shell.predict("flat.tif", "out.tif", "--intensity", "9,1")[0] == 0


def test_blank_sections_and_tiles_are_normal(shell: Shell, expected: Callable[..., Any]) -> None:
    array = ARRAY.copy()
    array[1] = 0
    array[:, :32, :32] = 255
    tifffile.imwrite(shell.folder / "blank.tif", array, photometric="minisblack")
    assert shell.predict("blank.tif", "out.tif", "--tile", "16")[0] == 0
    assert_levels(read(shell.folder / "out.tif"), expected(array))


# Bad input


def save(folder: Path, name: str, array: NDArray[Any], **options: Any) -> str:
    tifffile.imwrite(folder / name, array, **({"photometric": "minisblack"} | options))
    return name


def test_a_missing_input(shell: Shell) -> None:
    assert "nothing.tif does not exist; check the path" in shell.refused(1, "nothing.tif", "out.zarr")


def test_an_empty_input(shell: Shell) -> None:
    (shell.folder / "empty.tif").touch()
    assert "empty.tif is empty (0 bytes)" in shell.refused(1, "empty.tif", "out.zarr")


def test_a_truncated_input(shell: Shell) -> None:
    content = (shell.folder / "in.tif").read_bytes()
    (shell.folder / "cut.tif").write_bytes(content[: len(content) // 2])
    assert "cut.tif is truncated" in shell.refused(1, "cut.tif", "out.zarr")


def test_damage_found_half_way(shell: Shell) -> None:
    zarr.create_array(shell.folder / "in.zarr", data=ARRAY, chunks=(1, 50, 61))
    (shell.folder / "in.zarr" / "c" / "2" / "0" / "0").write_bytes(b"no zstd")
    line = shell.refused(1, "in.zarr", "out.zarr", "--intensity", "128,50", "--tile", "16")
    assert "1 blocks of" in line
    assert "in.zarr cannot be read at " in line
    assert "add --fill-missing 0 to do without them" in line


def test_a_colour_input(shell: Shell) -> None:
    name = save(shell.folder, "rgb.tif", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    assert "RGB" in shell.refused(1, name, "out.zarr")
    zarr.create_array(shell.folder / "rgb.zarr", data=np.zeros((20, 30, 3), np.uint8))
    assert "looks like a colour image" in shell.refused(1, "rgb.zarr", "out.zarr")


def test_a_four_dimensional_input(shell: Shell) -> None:
    name = save(shell.folder, "4d.tif", np.stack([ARRAY, ARRAY]))
    assert "its axes are not named: name them with --axes" in shell.refused(1, name, "out.zarr")
    assert "axis 'c' has 2" in shell.refused(1, name, "out.zarr", "--axes", "czyx")


@pytest.mark.parametrize("dtype", ["complex64", "bool", "uint32"])
def test_an_input_of_another_type(shell: Shell, dtype: str) -> None:
    zarr.create_array(shell.folder / "a.zarr", data=ARRAY.astype(dtype))
    assert f"has voxels of type {dtype}" in shell.refused(1, "a.zarr", "out.zarr")


def test_axes_of_unknown_names(shell: Shell) -> None:
    zarr.create_array(shell.folder / "a.zarr", data=ARRAY, dimension_names=["u", "v", "w"])
    line = shell.refused(1, "a.zarr", "out.zarr")
    assert "has axes u,v,w of shape (3, 50, 61); only z, y and x may be longer than 1" in line
    assert "give --axes if the names are wrong" in line
    assert shell.predict("a.zarr", "out.zarr", "--axes", "zyx")[0] == 0


@pytest.mark.parametrize("axes", ["zy", "zyxc", "abc"])
def test_axes_that_do_not_fit(shell: Shell, axes: str) -> None:
    assert f"axes is '{axes}'" in shell.refused(2, "in.tif", "out.zarr", "--axes", axes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("options", [[], ["--intensity", "0,1"]])
def test_values_that_are_not_finite(shell: Shell, value: float, options: list[str]) -> None:
    array = ARRAY.astype(np.float32)
    array[2, 40, 50] = value
    name = save(shell.folder, "bad.tif", array)
    assert f"holds {value} at voxel (z, y, x) = (2, 40, 50)" in shell.refused(1, name, "out.zarr", *options)


def test_a_constant_volume(shell: Shell) -> None:
    name = save(shell.folder, "flat.tif", np.full(SHAPE, 9, np.uint8))
    assert "constant: every voxel is 9" in shell.refused(1, name, "out.zarr")


@pytest.mark.parametrize("name", ["out.zarr", "out.tif"])
def test_an_output_that_exists(shell: Shell, name: str) -> None:
    (shell.folder / name).write_text("mine")
    assert "exists; move it away, or give --overwrite" in shell.refused(1, "in.tif", name)
    assert (shell.folder / name).read_text() == "mine"


def test_an_output_that_is_the_input(shell: Shell) -> None:
    assert "is INPUT, or holds it" in shell.refused(2, "in.tif", "in.tif", "--overwrite")
    zarr.create_array(shell.folder / "in.zarr" / "raw", data=ARRAY)
    assert "is INPUT, or holds it" in shell.refused(2, "in.zarr/raw", "in.zarr", "--overwrite")


def test_an_output_without_a_folder(shell: Shell) -> None:
    assert "does not exist; create it first" in shell.refused(1, "in.tif", "nowhere/out.zarr")


def test_an_output_of_another_kind(shell: Shell) -> None:
    assert "must end in one of .zarr" in shell.refused(2, "in.tif", "out.jpg")


def test_a_stack_does_not_fit_a_png(shell: Shell) -> None:
    assert "a PNG holds one section of uint8" in shell.refused(2, "in.tif", "out.png")


@pytest.mark.parametrize("target", ["out.zarr", "out.tif"])
def test_no_space_left(shell: Shell, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(ZarrOutput, "_store", full)
    assert f"{target} cannot be written: No space left on device" in shell.refused(1, "in.tif", target)


@pytest.mark.parametrize("roi", ["0:4,0:50,0:61", "0:1,0:1", "1:1,0:50,0:61", "a:b,0:1,0:1"])
def test_a_roi_that_does_not_fit(shell: Shell, roi: str) -> None:
    assert f"roi is {roi}".replace("'", "") in shell.refused(2, "in.tif", "out.zarr", "--roi", roi).replace("'", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "0"], "tile is 0; it must be at least 1"),
        (["--tile", "x"], "--tile"),
        (["--intensity", "128"], "intensity is '128'; it must be two numbers"),
        (["--intensity", "128,0"], "the standard deviation finite and above 0"),
        (["--dtype", "int8"], "--dtype"),
        (["--device", "tpu"], "--device"),
        (["--precision", "float16"], "precision is float16; model d4 runs here in float32"),
        (["--sharpen"], "--sharpen"),
    ],
)
def test_options_that_do_not_fit(shell: Shell, options: list[str], message: str) -> None:
    assert message in shell.refused(2, "in.tif", "out.zarr", *options)


def test_an_unknown_model(shell: Shell) -> None:
    shell.model = Path("nothing")
    assert "model 'nothing' not found; give a name" in shell.refused(1, "in.tif", "out.zarr")


def test_a_model_that_differs_from_its_description(shell: Shell) -> None:
    folder = Path(shutil.copytree(shell.model.parent, shell.folder / "model"))
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    shell.model = folder / "model.onnx"
    assert "the file was changed or damaged" in shell.refused(1, "in.tif", "out.zarr")


# The edge


def test_no_command_and_unknown_commands_are_wrong_usage(shell: Shell) -> None:
    for words in ([], ["foo"], ["predict"], ["predict", "a"]):
        code, _, err = shell.run(*words)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "`emboundary --help` shows the options" in err


def test_help_and_version_are_no_errors(shell: Shell) -> None:
    for words in (["--help"], ["predict", "--help"], ["--version"]):
        code, out, err = shell.run(*words)
        assert (code, err) == (0, "")
        assert out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "out of memory; give a smaller --tile, or free some"),
        (
            ZeroDivisionError("division\nby zero"),
            "a defect of emboundary: ZeroDivisionError: division; EMBOUNDARY_DEBUG=1",
        ),
    ],
)
def test_everything_else_is_one_line_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: BaseException, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(OnnxEngine, "run", fail)
    assert line in shell.refused(1, "in.tif", "out.zarr")


# Resume


BLOCKS = ("--chunk", "1,16,16", "--tile", "16", "--no-pyramid")
COUNT = 3 * 4 * 4


@pytest.fixture
def half(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell whose run of ``in.tif`` to ``out.zarr`` was interrupted after some blocks."""
    run, calls = OnnxEngine.run, iter(range(1000))

    def interrupted(self: OnnxEngine, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if next(calls) == 20:
            raise KeyboardInterrupt
        return run(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(OnnxEngine, "run", interrupted)
        code, _, err = shell.predict("in.tif", "out.zarr", *BLOCKS)
    assert code == 1
    assert re.search(rf"interrupted; \d+ of {COUNT} blocks are stored, and the same command goes on from there", err)
    assert not (shell.folder / "out.zarr").exists()
    return shell


def test_the_same_command_goes_on_to_the_same_bytes(half: Shell) -> None:
    code, out, err = half.predict("in.tif", "out.zarr", *BLOCKS, "--json")
    assert code == 0
    answer = json.loads(out)
    assert 10 <= answer["blocks_resumed"] <= 20
    assert answer["blocks_done"] == COUNT - answer["blocks_resumed"]
    assert answer["blocks_skipped"] == answer["blocks_resumed"]
    assert f"{answer['blocks_resumed']} of {COUNT} blocks were stored by an earlier run; going on from there" in err
    assert "measuring" not in err
    assert half.predict("in.tif", "once.zarr", *BLOCKS)[0] == 0
    assert files(half.folder / "out.zarr") == files(half.folder / "once.zarr")
    assert sorted(path.name for path in half.folder.iterdir()) == ["in.tif", "once.zarr", "out.zarr"]


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data.replace(b"once", b"out") if name == "zarr.json" else data for name, data in found.items()}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--tta",), "tta was false, is true"),
        (("--intensity", "128,50"), 'intensity was "measured", is [128.0, 50.0]'),
        (("--roi", "0:2,0:50,0:61"), 'roi was "0:3,0:50,0:61", is "0:2,0:50,0:61"'),
        (("--dtype", "float32"), 'dtype was "uint8", is "float32"'),
        (("--fill", "0"), "fill was null, is 0.0"),
        (("--tile", "24"), "tile was [1, 16, 16], is [1, 32, 16]"),
        (("--ome-zarr", "0.4"), 'format was "ome-zarr 0.5", is "ome-zarr 0.4"'),
        (("--chunk", "1,16,32"), "levels was"),
        (("--mask", "in.tif"), "mask was null, is {"),
        (("--voxel-size", "50,4,4"), "input was {"),
    ],
)
def test_another_run_is_refused_and_told_what_differs(half: Shell, options: tuple[str, ...], part: str) -> None:
    if options[0] == "--mask":
        options = ("--mask", str(half.folder / options[1]))
    line = half.refused(1, "in.tif", "out.zarr", *BLOCKS, *options)
    assert "was begun by a run that differs: " in line
    assert part in line
    assert "give the same arguments to go on with it, or --overwrite to start over" in line


def test_another_model_and_another_input_are_refused(half: Shell, repository: Path) -> None:
    model, half.model = half.model, repository / "plain" / "1" / "model.onnx"
    assert 'model_sha256 was "' in half.refused(1, "in.tif", "out.zarr", *BLOCKS)
    half.model = model
    tifffile.imwrite(half.folder / "in.tif", 255 - ARRAY, photometric="minisblack")
    assert "input was {" in half.refused(1, "in.tif", "out.zarr", *BLOCKS)


def test_overwrite_drops_another_run_and_goes_on_with_the_same(half: Shell) -> None:
    code, out, _ = half.predict("in.tif", "out.zarr", *BLOCKS, "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["blocks_resumed"] > 0
    (half.folder / "out.zarr").rename(half.folder / "first.zarr")


def test_overwrite_starts_over_where_arguments_differ(half: Shell, expected: Callable[..., Any]) -> None:
    code, out, err = half.predict("in.tif", "out.zarr", *BLOCKS, "--intensity", "100,50", "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["blocks_resumed"] == 0
    assert "an unfinished run of" in err
    assert_levels(read(half.folder / "out.zarr"), expected(ARRAY, Intensity(100, 50)))


@pytest.mark.parametrize("target", ["out.zarr", "out.tif"])
def test_a_run_that_was_killed_as_it_ended_is_done(shell: Shell, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its map has its name, but its hidden folder is still there: only a kill in that moment leaves that."""
    with monkeypatch.context() as patched:
        patched.setattr(Place, "discard", Place.release)
        assert shell.predict("in.tif", target)[0] == 0
    assert (shell.folder / f".{target}.partial" / "ledger.jsonl").exists()
    kept = shutil.copytree(shell.folder / f".{target}.partial", shell.folder / "kept")

    code, out, err = shell.predict("in.tif", target, "--json")
    answer = json.loads(out)
    assert (code, answer["blocks_done"], answer["blocks_resumed"], answer["complete"]) == (0, 0, 1, True)
    assert "was whole already" in err
    assert not (shell.folder / f".{target}.partial").exists()
    assert "exists; move it away" in shell.refused(1, "in.tif", target)

    shutil.copytree(kept, shell.folder / f".{target}.partial")
    code, _, err = shell.predict("in.tif", target, "--tta")
    assert code == 1
    assert "exists; move it away" in err
    assert not (shell.folder / f".{target}.partial").exists()

    shutil.copytree(kept, shell.folder / f".{target}.partial")
    code, out, _ = shell.predict("in.tif", target, "--tta", "--overwrite", "--json")
    assert (code, json.loads(out)["blocks_done"]) == (0, 1)


def test_an_output_that_appeared_meanwhile_is_kept(half: Shell) -> None:
    (half.folder / "out.zarr").write_text("mine")
    assert "exists; move it away" in half.refused(1, "in.tif", "out.zarr", *BLOCKS)


def test_blocks_that_cannot_be_read_are_listed_and_made_later(shell: Shell, expected: Callable[..., Any]) -> None:
    zarr.create_array(shell.folder / "in.zarr", data=ARRAY, chunks=(1, 50, 61))
    chunk = shell.folder / "in.zarr" / "c" / "1" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(b"no zstd")
    options = ("--chunk", "1,50,61", "--intensity", "128,50", "--json")
    code, out, err = shell.predict("in.zarr", "out.zarr", *options)
    answer = json.loads(out)
    assert code == 1
    assert not (shell.folder / "out.zarr").exists()
    assert (answer["blocks_done"], answer["complete"]) == (2, False)
    assert [block["box"] for block in answer["blocks_missing"]] == ["1:2,0:50,0:61"]
    assert "warning: block 1:2,0:50,0:61 of the map is missing: " in err
    assert "1 blocks of" in err.splitlines()[-1]

    code, out, _ = shell.predict("in.zarr", "out.zarr", *options, "--fill-missing", "0.2")
    answer = json.loads(out)
    assert (code, answer["blocks_resumed"], answer["complete"]) == (0, 2, True)
    found = read(shell.folder / "out.zarr")
    assert (found[1] == 51).all()
    assert_levels(found[[0, 2]], expected(ARRAY, Intensity(128, 50))[[0, 2]])
    noted = dict(zarr.open_group(shell.folder / "out.zarr", mode="r").attrs["emboundary"])["missing"]
    assert [(block["box"], block["value"]) for block in noted] == [("1:2,0:50,0:61", 0.2)]

    chunk.write_bytes(b"no zstd")
    assert shell.predict("in.zarr", "late.zarr", *options)[0] == 1
    chunk.write_bytes(whole)
    code, out, _ = shell.predict("in.zarr", "late.zarr", *options)
    assert (code, json.loads(out)["blocks_done"]) == (0, 1)
    assert_levels(read(shell.folder / "late.zarr"), expected(ARRAY, Intensity(128, 50)))


def test_a_mask_and_constant_parts_are_skipped_and_recorded(shell: Shell, expected: Callable[..., Any]) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 10:30, 5:40] = 1
    tifffile.imwrite(shell.folder / "mask.tif", mask, photometric="minisblack")
    code, out, _ = shell.predict("in.tif", "out.zarr", "--mask", str(shell.folder / "mask.tif"), *BLOCKS, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["blocks_constant"] == answer["blocks_skipped"] == COUNT - 2 * 3
    assert_levels(read(shell.folder / "out.zarr"), expected(ARRAY) * mask)
    stored = dict(zarr.open_group(shell.folder / "out.zarr", mode="r").attrs["emboundary"])
    assert stored["mask"] == str(shell.folder / "mask.tif")


@pytest.mark.parametrize("dtype", ["bool", "uint32", "uint64"])
def test_masks_may_be_labels_of_any_type(shell: Shell, dtype: str) -> None:
    mask = np.zeros(SHAPE, dtype)
    mask[0, 10:30, 5:40] = 1
    zarr.create_array(shell.folder / "mask.zarr", data=mask)
    assert shell.predict("in.tif", "out.zarr", "--mask", str(shell.folder / "mask.zarr"))[0] == 0
    assert (read(shell.folder / "out.zarr")[mask == 0] == 0).all()


def test_a_mask_of_another_shape_is_refused(shell: Shell) -> None:
    tifffile.imwrite(shell.folder / "mask.tif", ARRAY[:2], photometric="minisblack")
    line = shell.refused(2, "in.tif", "out.zarr", "--mask", str(shell.folder / "mask.tif"))
    assert "has shape (z, y, x) = (2, 50, 61), INPUT has (3, 50, 61); they must be equal" in line


def test_layout_options_are_kept(shell: Shell) -> None:
    options = ("--chunk", "1,16,16", "--shard", "3,32,64", "--voxel-size", "50,4,4")
    assert shell.predict("in.tif", "out.zarr", *options)[0] == 0
    array = zarr.open_array(shell.folder / "out.zarr" / "0", mode="r")
    assert (array.chunks, array.shards) == ((1, 16, 16), (3, 32, 64))
    with open_volume(shell.folder / "out.zarr") as volume:
        assert volume.voxel_size_nm == (50, 4, 4)
    assert shell.predict("in.tif", "old.zarr", "--ome-zarr", "0.4")[0] == 0
    assert zarr.open_array(shell.folder / "old.zarr" / "0", mode="r").metadata.zarr_format == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "16,16"], "chunk is '16,16'; it must be Z,Y,X in whole voxels"),
        (["--chunk", "0,16,16"], "chunk is 0,16,16; every extent must be at least 1"),
        (["--shard", "1,20,20", "--chunk", "1,16,16"], "shard is 1,20,20, chunk is 1,16,16"),
        (["--shard", "1,16,16", "--ome-zarr", "0.4"], "OME-Zarr 0.4 knows no shards: leave --shard out"),
        (["--fill", "2"], "fill is 2; it is a probability and must be between 0 and 1"),
        (["--fill-missing", "-1"], "fill-missing is -1; it is a probability"),
        (["--voxel-size", "4,4"], "voxel size is '4,4'; it must be Z,Y,X in nm"),
        (["--voxel-size", "4,4,0"], "every extent must be finite and above 0 nm"),
        (["--rescale"], "rescale needs the voxel size of"),
    ],
)
def test_volume_options_that_do_not_fit(shell: Shell, options: list[str], message: str) -> None:
    assert message in shell.refused(2, "in.tif", "out.zarr", *options)
