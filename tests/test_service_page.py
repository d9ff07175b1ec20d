"""What docs/service.md shows works: its commands and programs are run, its tables are what the code says."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emboundary.service.app import create_app
from emboundary.service.settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "service.md"
TEXT = PAGE.read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"
SECONDS = 300


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def between(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", TEXT, re.DOTALL)
    assert found is not None, f"the page has lost its markers around {name}"
    return found.group(1)


SERVE, *COMMANDS = blocks("sh")


@pytest.fixture(scope="module")
def settings(repository: Path) -> Settings:
    return Settings(repository=repository, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the page stands: files of his own, and a data root."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "data").mkdir()
    volume = np.random.default_rng(0).integers(0, 256, (4, 150, 130), dtype=np.uint8)
    for name in ("volume.tif", "stack.tif", "data/volume.tif"):
        tifffile.imwrite(folder / name, volume, photometric="minisblack")
    Image.fromarray(volume[0]).save(folder / "section.png")
    # curl takes an error answer for a success unless it is told otherwise.
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    (folder / "bin").mkdir()
    command = folder / "bin" / "emboundary"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m emboundary.service "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def environment(folder: Path, repository: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBOUNDARY_")}
    path = os.pathsep.join((str(folder / "bin"), kept["PATH"]))
    tiny = {"EMBOUNDARY_REPOSITORY": str(repository), "EMBOUNDARY_DEVICE": "cpu", "EMBOUNDARY_PORT": "0"}
    return {**kept, **tiny, "HOME": str(folder), "PATH": path}


@pytest.fixture(scope="module")
def address(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Of the service as the page's first command starts it."""
    with (folder / "log").open("w") as log:
        service = subprocess.Popen(
            SERVE.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert service.stdout is not None
            said = re.search(r"http://(\S+)", service.stdout.readline())
            assert said is not None, (folder / "log").read_text()
            yield said.group(1)
        finally:
            service.terminate()
            assert service.wait(SECONDS) == 0, (folder / "log").read_text()
            service.stdout.close()


def run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands need curl")
def test_the_commands_work(folder: Path, environment: dict[str, str], address: str) -> None:
    script = "set -euo pipefail\n" + "\n".join(COMMANDS).replace(ADDRESS, address)
    told = run(["bash", "-c", script], folder, environment)
    for name in ("boundary.png", "boundary.npy", "boundary.zarr", "keys.txt"):
        assert (folder / name).exists(), name
    for name in ("followed.zarr", "boundary.zarr", "by-curl.zarr"):
        assert (folder / "data" / name).is_dir(), name
    assert np.load(folder / "boundary.npy").shape == (4, 150, 130)
    assert "event: end" in told
    assert told.count('"status":"ready"') == 1


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_programs_work(folder: Path, environment: dict[str, str], address: str, number: int) -> None:
    program = blocks("python")[number].replace(ADDRESS, address)
    run([sys.executable, "-c", program], folder, environment)


def settings_table() -> str:
    words = (inspect.getdoc(Settings) or "").partition("Attributes:")[2]
    meanings = dict(re.findall(r"^ {4}(\w+): ((?:.+\n?)(?: {8}.+\n?)*)", words, re.MULTILINE))
    rows = ["| setting | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "bundled" if name == "repository" else field.default
        shown = "" if default in (None, ()) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        meaning = " ".join(meanings[name].replace("``", "`").replace("None:", "not set:").split())
        rows.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(rows) + "\n"


def test_the_settings_are_those_of_the_code() -> None:
    assert between("settings") == settings_table(), "`python tests/test_service_page.py` writes the table anew"


def test_every_metric_is_listed(settings: Settings) -> None:
    state = create_app(settings).state.service
    text, _ = state.metrics.exposition()
    found = {
        name for name in re.findall(r"^# TYPE (\w+)", text.decode(), re.MULTILINE) if not name.endswith("_created")
    }
    listed = set(re.findall(r"`(emboundary_\w+)`", between("metrics")))
    assert listed == {name for name in found if name.startswith("emboundary_")} | {"emboundary_jobs"}


def test_every_status_is_listed(settings: Settings) -> None:
    document = create_app(settings).openapi()
    answered = {
        status
        for path in document["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
        if status.isdecimal() and status >= "400"
    }
    assert answered <= set(re.findall(r"\b[45]\d\d\b", between("statuses")))


@pytest.mark.parametrize("name", re.findall(r"\]\(#([\w-]+)\)", TEXT))
def test_links_within_the_page_lead_somewhere(name: str) -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    assert name in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    PAGE.write_text(TEXT.replace(between("settings"), settings_table()), encoding="utf-8")
