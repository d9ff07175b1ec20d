"""``emboundary benchmark`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import zarr
from PIL import Image

from emboundary.service import console
from emboundary.service.benchmark.records import Report
from emboundary.service.cli import create_cli


class Shell:
    """Runs the command in its shortest form on the tiny models."""

    def __init__(self, repository: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._repository, self._capture = repository, capture

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        self._capture.readouterr()
        line = ["benchmark", "--quick", "--rounds", "1", "--repository", str(self._repository), *words]
        code = console.run(create_cli(), "emboundary", line)
        out, err = self._capture.readouterr()
        return code, out, err

    def report(self, *words: str) -> Report:
        """What a run that works found."""
        code, out, err = self.run("--json", "--device", "cpu", *words)
        assert code == 0, err
        return Report.model_validate_json(out)

    def refused(self, *words: str) -> str:
        """The one line of a run that is refused."""
        code, out, err = self.run(*words)
        assert (code, out) == (2, "")
        return err.splitlines()[-1].removeprefix("emboundary: error: ")


@pytest.fixture
def shell(repository: Path, capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(repository, capfd)


def test_every_case_is_measured_in_every_round(shell: Shell) -> None:
    report = shell.report("--rounds", "2", "--batch", "1", "--batch", "2", "--tile", "32", "--tta")
    assert [(r.what, r.title, r.shape) for r in report.rows] == [
        ("session", "d4", (1, 1, 48, 48)),
        ("session", "plain", (1, 1, 48, 48)),
        ("session", "d4", (2, 1, 48, 48)),
        ("session", "plain", (2, 1, 48, 48)),
        ("predict", "d4", (1, 64, 64)),
        ("predict", "plain", (1, 64, 64)),
        ("predict", "d4 + 8x", (1, 64, 64)),
        ("predict", "plain + 8x", (1, 64, 64)),
    ]
    for row in report.rows:
        assert len(row.rounds) == 2
        assert row.cost.operations == 30.0
        assert row.of_matrix is not None
        assert row.of_matrix.low > 0


def test_predict_stands_beside_the_bare_session_over_the_same_images(shell: Shell) -> None:
    one, eight = shell.report("--what", "predict", "--model", "d4", "--tta", "--tile", "32").rows
    (round_,) = one.rounds
    assert one.images == (((1, 48, 48), 4),)  # 64 x 64 in tiles of 32, halos of 8
    assert eight.images == (((1, 48, 48), 32),)
    assert round_.pixels == 64 * 64
    assert round_.bare_seconds is not None
    assert one.of_bare is not None
    assert one.of_bare.median == pytest.approx(round_.bare_seconds / round_.seconds)
    assert round_.network is not None
    assert 0 < round_.network <= 1
    assert round_.waiting is not None
    assert sum(round_.waiting) == pytest.approx(1)


def test_the_ratios_are_those_of_the_issue(shell: Shell) -> None:
    report = shell.report("--tta")
    assert [(r.what, r.name) for r in report.ratios] == [
        ("session", "d4 / plain"),
        ("predict", "d4 / plain"),
        ("predict", "d4 + 8x / d4"),
        ("predict", "plain + 8x / d4"),
    ]


def test_a_service_is_loaded_in_a_process_of_its_own(shell: Shell) -> None:
    (row,) = shell.report("--what", "service", "--model", "d4", "--clients", "2").rows
    (round_,) = row.rounds
    assert (row.clients, row.shape, round_.refused) == (2, (64, 64), 0)
    assert round_.pixels == 2 * 64 * 64
    assert round_.p50 is not None
    assert round_.p99 is not None
    assert 0 < round_.p50 <= round_.p99 <= round_.seconds


def test_a_given_volume_is_mapped_and_stays_as_it_is(shell: Shell, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8)
    array = zarr.create_array(str(tmp_path / "mine.zarr"), data=voxels, dimension_names=("z", "y", "x"))
    (row,) = shell.report("--what", "predict", "--model", "d4", "--volume", str(tmp_path / "mine.zarr")).rows
    assert row.shape == voxels.shape
    assert [path.name for path in tmp_path.iterdir()] == ["mine.zarr"]
    np.testing.assert_array_equal(array[:], voxels)


def test_tables_and_findings_are_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = shell.run("--profile", "--device", "cpu", "--what", "session", "--tile", "32")
    assert code == 0
    for text in (
        "bare session: plain",
        "float32, 1 x 1 x 48 x 48",
        "d4 / plain",
        "where the time of d4 float32 goes",
        "this device at best: matrix products ",
        "plain float32: the next bottleneck is ",
    ):
        assert text in out


def test_auto_says_what_it_took(shell: Shell) -> None:
    code, _, err = shell.run("--what", "session", "--model", "d4", "--progress", "lines")
    assert code == 0
    assert err.startswith("on CPU: " if "CUDAExecutionProvider" not in ort.get_available_providers() else "on ")


def test_the_record_and_the_picture_are_written(shell: Shell, tmp_path: Path) -> None:
    code, _, _ = shell.run("--device", "cpu", "--out", str(tmp_path / "new" / "folder"), "--name", "mine")
    assert code == 0
    report = Report.model_validate_json((tmp_path / "new" / "folder" / "mine.json").read_text())
    assert len(report.rows) == 4
    with Image.open(tmp_path / "new" / "folder" / "mine.png") as picture:
        assert picture.height > 58 * len(report.rows)
        assert picture.getcolors(1 << 16)  # neither empty nor noise


def test_what_the_json_says_is_what_was_measured(shell: Shell) -> None:
    _, out, _ = shell.run("--json", "--device", "cpu", "--what", "session", "--model", "plain")
    (row,) = json.loads(out)["rows"]
    (one,) = row["rounds"]
    assert row["pixels_per_second"]["median"] == pytest.approx(one["pixels"] / one["seconds"])
    assert row["of_matrix"]["median"] == pytest.approx(
        one["pixels"] / one["seconds"] * 30.0 / one["limits"]["matrix"]["float32"]
    )
    assert row["of_memory"]["median"] == pytest.approx(
        one["pixels"] / one["seconds"] * row["cost"]["least_bytes"] / one["limits"]["memory"]
    )


def test_a_folder_that_cannot_be_written_to_is_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = shell.run("--what", "session", "--device", "cpu", "--out", str(tmp_path / "file" / "folder"))
    assert code == 1
    assert "which cannot be written to (Not a directory); give another" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rounds", "0"), "rounds is 0; it must be at least 1"),
        (("--tile", "0"), "tile is 0; it must be at least 1"),
        (("--batch", "-1"), "batch is -1; it must be at least 1"),
        (("--clients", "0"), "clients is 0; it must be at least 1"),
        (("--what", "speed"), "what is 'speed'; it must be one of session, predict, service"),
        (("--precision", "int4"), "precision is 'int4'; it must be one of float32, float16, int8"),
        (("--shape", "1,2,3", "--volume", "a.zarr"), "shape is (1, 2, 3) and volume 'a.zarr'; give one of the two"),
        (
            ("--tensorrt", "--what", "service"),
            "what is service with tensorrt, which a service takes from its settings; leave one out",
        ),
        (("--shape", "1,2"), "shape is '1,2'; it must be Z,Y,X in whole voxels, e.g. 16,128,128"),
    ],
)
def test_what_cannot_be_measured_is_refused(shell: Shell, words: tuple[str, ...], message: str) -> None:
    assert shell.refused("--device", "cpu", *words) == message


def test_a_precision_that_no_model_offers_is_refused(shell: Shell) -> None:
    message = shell.refused("--device", "cpu", "--precision", "int8", "--model", "d4")
    assert message.startswith("precision is int8; model d4 runs here in float32")


def test_a_precision_that_a_model_does_not_offer_is_left_out_and_said(shell: Shell) -> None:
    report = shell.report("--what", "session", "--model", "d4", "--precision", "float32", "--precision", "int8")
    assert [row.precision for row in report.rows] == ["float32"]
    assert len(report.refused) == 1
    assert report.refused[0].startswith("precision is int8; model d4 ")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_gpu_that_is_asked_for_and_absent_is_the_engines_error(shell: Shell) -> None:
    code, out, err = shell.run("--device", "cuda")
    assert (code, out) == (1, "")
    assert "emboundary: error: device is cuda, but " in err
