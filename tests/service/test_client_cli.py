from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fastapi import FastAPI
from pydantic import SecretStr

from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.service.app import create_app
from emboundary.service.cli import create_cli
from emboundary.service.client.http import BoundaryClient
from emboundary.service.engine import OnnxEngine
from emboundary.service.preparing.intensity import measure
from emboundary.service.run.inference import predict_array
from emboundary.service.security.keys import new_key
from emboundary.service.settings import Settings

ARRAY = np.random.default_rng(0).integers(0, 256, (3, 50, 61), dtype=np.uint8)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tifffile.imwrite(folder / "in.tif", ARRAY, photometric="minisblack")
    return folder


@pytest.fixture(scope="module")
def url(serving_jobs: Callable[[Path], AbstractContextManager[str]], data: Path) -> Iterator[str]:
    with serving_jobs(data) as address:
        yield address


@pytest.fixture
def client(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``emboundary client`` at the service; gives exit code, stdout and stderr."""
    monkeypatch.setenv("EMBOUNDARY_URL", url)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = console.run(create_cli(), "emboundary", ["client", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def engine(repository: Path) -> OnnxEngine:
    return OnnxEngine.open(load_model("d4", repository), "cpu")


@pytest.mark.parametrize("concurrency", ["1", "4"])
@pytest.mark.parametrize("options", [[], ["--tta"], ["--rescale", "--voxel-size", "50,9.2,9.2"]])
def test_a_volume_here_gets_the_map_of_predict(
    client: Run, data: Path, tmp_path: Path, repository: Path, options: list[str], concurrency: str
) -> None:
    shared = ["--tile", "24", "--dtype", "float32", "--progress", "none", *options]
    source, here, there = str(data / "in.tif"), tmp_path / "here.tif", tmp_path / "there.tif"
    model = repository / "d4" / "1" / "model.onnx"
    expected = ["predict", source, str(here), "--model", str(model), "--device", "cpu", *shared]
    assert console.run(create_cli(), "emboundary", expected) == 0
    code, out, err = client("predict", source, str(there), "--concurrency", concurrency, "--json", *shared)
    assert code == 0, err
    np.testing.assert_allclose(tifffile.imread(there), tifffile.imread(here), atol=1e-5, rtol=0)
    said = json.loads(out.splitlines()[-1])
    assert (said["model"], said["device"], said["complete"], said["voxels"]) == ("d4", "cpu", True, ARRAY.size)


def test_a_streamed_map_says_where_it_comes_from(client: Run, data: Path, tmp_path: Path, url: str) -> None:
    code, _, err = client("predict", str(data / "in.tif"), str(tmp_path / "out.zarr"), "--model", "plain")
    assert code == 0, err
    assert f"plain 1 at {url}" in err
    stored = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())
    assert url in json.dumps(stored)
    assert "plain" in json.dumps(stored)


@pytest.mark.parametrize("words", [["--model", "best"], ["--version", "7"]])
def test_a_model_that_is_not_served_leaves_nothing(client: Run, data: Path, tmp_path: Path, words: list[str]) -> None:
    code, out, err = client("predict", str(data / "in.tif"), str(tmp_path / "out.zarr"), *words)
    assert (code, out) == (1, "")
    assert words[1] in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [("predict", ["in.tif", "out.tif"]), ("submit", ["in.tif", "out.tif"]), ("jobs", []), ("cancel", ["a"])],
)
def test_a_service_that_is_not_there_is_named_at_once(client: Run, command: str, words: list[str]) -> None:
    code, out, err = client(command, *words, "--url", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("emboundary: error: http://127.0.0.1:9 cannot be reached")
    assert "trying again" not in err


def test_a_job_is_submitted_and_followed(client: Run, data: Path, engine: OnnxEngine) -> None:
    code, out, err = client("submit", "in.tif", "out.tif", "--dtype", "float32", "--follow", "--json")
    assert code == 0, err
    job = json.loads(out)
    assert (job["state"], job["request"]["dtype"], job["result"]["voxels"]) == ("succeeded", "float32", ARRAY.size)
    expected = predict_array(engine, ARRAY, measure(ARRAY).intensity)
    np.testing.assert_allclose(tifffile.imread(data / "out.tif"), expected, atol=1e-5, rtol=0)
    lines = err.splitlines()
    assert lines[0].startswith(f"job {job['id']} (d4 1): ")
    assert lines[-1] == f"job {job['id']} (d4 1): succeeded"


def test_every_option_reaches_the_job(client: Run) -> None:
    options = [
        *("--roi", "0:2,8:48,8:56", "--tile", "16", "--intensity", "100,50", "--axes", "zyx", "--voxel-size", "50,5,5"),
        *("--chunk", "1,16,16", "--shard", "1,32,32", "--no-pyramid", "--mask", "in.tif", "--fill", "0.5", "--tta"),
        *("--fill-missing", "0.25", "--overwrite", "--model", "plain", "--version", "1"),
    ]
    code, out, err = client("submit", "in.tif", "options.zarr", *options, "--follow", "--json", "--progress", "none")
    assert code == 0, err
    asked = json.loads(out)["request"]
    for name, value in {
        **{"input": "in.tif", "output": "options.zarr", "roi": "0:2,8:48,8:56", "tile": 16, "intensity": "100,50"},
        **{"axes": "zyx", "voxel_size": "50,5,5", "chunk": "1,16,16", "shard": "1,32,32", "pyramid": False},
        **{"mask": "in.tif", "fill": 0.5, "tta": True, "fill_missing": 0.25, "overwrite": True, "model": "plain"},
        **{"version": "1", "ome_zarr": "0.5", "clahe": False, "rescale": False, "dtype": "uint8"},
    }.items():
        assert asked.pop(name) == value, name
    assert asked == {}


def test_a_job_that_is_not_followed_is_named(client: Run) -> None:
    code, out, err = client("submit", "in.tif", "later.tif")
    assert (code, err) == (0, "")
    identity = out.strip()
    code, out, err = client("events", identity)
    assert (code, out) == (0, "")
    assert err.splitlines()[-1].startswith("later.tif: 9150 voxels in ")
    code, out, _ = client("jobs", "--json", "--limit", "1")
    page = json.loads(out)
    assert (code, [job["id"] for job in page["jobs"]]) == (0, [identity])
    assert page["next"] == identity


def test_jobs_are_listed_for_people(client: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = client("submit", "in.tif", "[bold]listed.tif", "--follow", "--json")
    identity = json.loads(out)["id"]
    code, out, err = client("jobs", "--state", "succeeded", "--limit", "1")
    assert code == 0
    [row] = [line.split() for line in out.splitlines() if identity in line]
    assert row[:2] == [identity, "succeeded"]
    assert row[-1] == "[bold]listed.tif"
    assert "there are older ones: --limit shows more" in err


def test_a_job_that_is_refused_says_why(client: Run) -> None:
    code, out, err = client("submit", "missing.tif", "out.tif")
    assert (code, out) == (1, "")
    assert "answered 422: " in err
    assert "missing.tif" in err
    code, out, err = client("submit", "in.tif", "out.tif", "--fill", "2")
    assert (code, out) == (2, "")
    assert "emboundary: error: fill is 2.0: Input should be less than or equal to 1" in err


def test_a_job_is_cancelled_once(client: Run) -> None:
    code, out, _ = client("submit", "in.tif", "ended.tif", "--follow", "--json")
    identity = json.loads(out)["id"]
    code, out, err = client("cancel", identity)
    assert (code, out) == (1, "")
    assert "answered 409: " in err
    assert client("cancel", "../models")[0] == 2


def test_ctrl_c_leaves_the_job_alone(client: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(BoundaryClient, "follow", interrupted)
    code, out, err = client("submit", "in.tif", "alone.tif", "--follow")
    assert (code, out) == (1, "")
    [line] = [line for line in err.splitlines() if "goes on: `emboundary client events " in line]
    identity = line.split("client events ")[1].split()[0]
    assert f"--url {url}` follows" in line
    monkeypatch.undo()
    with BoundaryClient.connect(url) as connected:
        assert list(connected.follow(identity))[-1].state == "succeeded"


def test_a_key_goes_along(
    settings: Settings,
    running: Callable[[FastAPI], AbstractContextManager[str]],
    client: Run,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, kept = new_key("lab", frozenset({"predict"}))
    guarded = settings.model_copy(update={"api_keys": SecretStr(kept.line)})
    arguments = ["predict", str(data / "in.tif"), str(tmp_path / "out.tif"), "--url"]
    with running(create_app(guarded)) as address:
        code, _, err = client(*arguments, address)
        assert code == 1
        assert "answered 401: " in err
        monkeypatch.setenv("EMBOUNDARY_API_KEY", key)
        code, _, err = client(*arguments, address)
        assert code == 0, err
        code, _, err = client("jobs", "--url", address)
        assert code == 1
        assert "answered 403: " in err
        assert key not in err
        code, _, err = client(*arguments, address, "--overwrite", "--api-key", "emb_wrong")
        assert code == 1
        assert "answered 401: " in err
        assert "emb_wrong" not in err
