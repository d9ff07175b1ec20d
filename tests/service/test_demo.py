from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from emboundary.service.cli import create_cli
from emboundary.service.client.http import BoundaryClient
from emboundary.service.console import run
from emboundary.service.demo.background import background_service
from emboundary.service.demo.contest import MEMBRANES, RAW, SAMPLE
from emboundary.service.demo.picture import EMBER, TEAL, Panel, overlay, plain, sheet
from emboundary.service.errors import RemoteError
from emboundary.service.volumes import open_volume


@pytest.fixture
def _tiny_models(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOUNDARY_REPOSITORY", str(repository))
    monkeypatch.setenv("COLUMNS", "120")


def gone(url: str) -> bool:
    """Whether nothing answers at an address any more; waits a little for the end."""
    for _ in range(100):
        try:
            httpx.get(url, timeout=1)
        except httpx.TransportError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.usefixtures("_tiny_models")
def test_the_demo_goes_from_the_sample_to_maps_a_picture_and_scores(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo" / "boundary.zarr").mkdir(parents=True)  # of an earlier demo, to be replaced
    assert run(create_cli(), "emboundary", ["demo", "--output", str(tmp_path / "demo")]) == 0
    out, err = capfd.readouterr()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[:2] for row in rows[-2:]] == [["d4", "1"], ["plain", "8"]]
    assert all(0 < float(cell) < 1 for row in rows for cell in row[4:])
    assert gone(next(word for word in err.split() if word.startswith("http://")))
    for name in ("boundary.zarr", "boundary_plain_8x.zarr"):
        with open_volume(tmp_path / "demo" / name) as found, open_volume(RAW) as raw:
            assert found.shape == raw.shape
            assert found.voxel_size_nm == pytest.approx(raw.voxel_size_nm)
    with Image.open(tmp_path / "demo" / "overlay.png") as picture:
        assert picture.size == (1584, 1640)


@pytest.mark.usefixtures("_tiny_models")
def test_the_service_stops_whatever_happens() -> None:
    urls = []

    def fail_beside_a_service() -> None:
        with background_service() as url, BoundaryClient.connect(url) as client:
            urls.append(url)
            assert client.models().default == "d4"
            raise RuntimeError("anything")

    with pytest.raises(RuntimeError, match="anything"):
        fail_beside_a_service()
    assert gone(urls[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_takes_its_service_along(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "emboundary.service", "demo", "--output", str(tmp_path / "demo")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"EMBOUNDARY_REPOSITORY": str(repository)},
        # A shell starts its background jobs with SIGINT ignored, and this suite may be one.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    url = next(line for line in process.stderr if "http://" in line).split()[-1]
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 1
    assert rest.splitlines()[-1] == "emboundary: error: interrupted"
    assert gone(url)


def test_a_service_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBOUNDARY_REPOSITORY", str(tmp_path))
    with pytest.raises(RemoteError, match="the service did not start: model 'd4' not found"), background_service():
        pytest.fail("nothing to serve")


def test_an_output_that_cannot_be_a_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(create_cli(), "emboundary", ["demo", "--output", str(tmp_path / "file" / "demo")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be made (Not a directory); give another --output" in line


def test_the_sample_is_labelled_calibrated_and_licensed() -> None:
    with open_volume(RAW) as raw, open_volume(MEMBRANES) as membranes:
        assert raw.shape == membranes.shape == (3, 384, 384)
        assert raw.voxel_size_nm == pytest.approx((50, 4.6, 4.6))
        labels = membranes[slice(None), slice(None), slice(None)]
    assert set(np.unique(labels)) == {0, 255}
    notice = (SAMPLE / "NOTICE.md").read_text()
    assert "CC BY-NC-SA 3.0" in notice
    assert "10.6084/m9.figshare.856713" in notice


def test_an_overlay_shows_as_much_as_there_is() -> None:
    grey = np.full((1, 3), 100, np.uint8)
    shown = overlay(grey, np.array([[0.0, 0.5, 1.0]]), EMBER)
    np.testing.assert_array_equal(shown[0, 0], [100, 100, 100])
    # 15 % of the grey stay visible under a certain boundary
    np.testing.assert_array_equal(shown[0, 2], np.rint(0.15 * 100 + 0.85 * np.array(EMBER[1])))
    distance = np.abs(shown[0].astype(int) - 100).sum(axis=1)
    assert distance[0] < distance[1] < distance[2]


def test_a_sheet_keeps_every_panel() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    panels = [Panel("a", plain(grey)), Panel("b", overlay(grey, np.ones((3, 4)), TEAL)), Panel("c", plain(255 - grey))]
    pixels = np.asarray(sheet(panels))
    # two panels of 8x6 in a row with a gap of 16 around each; titles of 44 above each of two rows
    assert pixels.shape == (2 * (6 + 44) + 16, 2 * 8 + 3 * 16, 3)
    first, second, third = pixels[44:50, 16:24], pixels[44:50, 40:48], pixels[94:100, 16:24]
    assert first[0, 0].tolist() < first[-1, -1].tolist()
    assert third[0, 0].tolist() > third[-1, -1].tolist()
    assert second[..., 2].min() > second[..., 0].max()
