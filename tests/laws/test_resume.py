"""Laws 3 and 4: a run that was stopped at any moment, in any way, ends with the bytes of one that never was.

Every run here is a process of its own, started by the command line that a person would type, and stopped by what
stops such runs: ``kill -9``, SIGTERM, Ctrl-C, a disk that is full or read-only, and a second run on the same OUTPUT.
``make test`` does each to one or two formats, and kills once; EMBOUNDARY_CAMPAIGN=1 in the environment (``make
campaign``) does each to all formats, and kills 30 times per format.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from emboundary.model.repository import load_model
from emboundary.service import console
from emboundary.service.cli import NAME, create_cli
from emboundary.service.run.pipeline import IN_FLIGHT
from emboundary.service.run.tiling import Tiling, split

CAMPAIGN = os.environ.get("EMBOUNDARY_CAMPAIGN") == "1"
FORMATS = (".zarr", ".tif", ".h5")
KILLS = 30 if CAMPAIGN else 1
SEED = 20260
# So many blocks that a run lasts for seconds: a test on a busy machine must still find it running.
SHAPE, CHUNK, TILE = (24 if CAMPAIGN else 16, 110, 130), (1, 32, 32), 32
ATTEMPTS = 10  # of runs that may be done before the signal comes that should interrupt them
PATIENCE_S = 300  # far beyond what any run here takes: a run that hangs fails instead of blocking the suite


def _heed_ctrl_c() -> None:
    """A suite that a shell started in the background ignores Ctrl-C, and so would every process that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Command:
    """``emboundary predict`` of one volume, into many small blocks."""

    source: Path
    model: Path
    target: Path

    @property
    def arguments(self) -> list[str]:
        options = ["--tile", str(TILE), "--chunk", ",".join(map(str, CHUNK)), "--device", "cpu", "--json"]
        return ["predict", str(self.source), str(self.target), "--model", str(self.model), *options]

    @property
    def line(self) -> list[str]:
        return [sys.executable, "-m", "emboundary.service", *self.arguments]

    @property
    def hidden(self) -> Path:
        return self.target.parent / f".{self.target.name}.partial"

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def finish(self) -> dict[str, Any]:
        """Run to the end; the JSON object that it prints."""
        ended = self.run()
        assert ended.returncode == 0, ended.stderr
        return dict(json.loads(ended.stdout.splitlines()[-1]))

    def done(self) -> set[tuple[int, int]]:
        """Blocks (level, number) that the ledger of an unfinished run calls done."""
        try:
            lines = (self.hidden / "ledger.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return set()
        entries = [json.loads(line) for line in lines[1:] if line.endswith(b"\n")]
        return {(entry["level"], number) for entry in entries for number in entry.get("done", [])}

    def touched(self, tiling: Tiling) -> set[tuple[int, int]]:
        """Blocks of level 0 of which an unfinished Zarr holds bytes, done or not."""
        chunks = self.hidden / "map.zarr" / "0" / "c"
        return {
            (0, number)
            for number, block in enumerate(tiling.grid)
            if any(
                chunks.joinpath(*(str(n // c) for n, c in zip(part.start, CHUNK, strict=True))).exists()
                for part in split(block, CHUNK)
            )
        }

    def stop(self, number: int, moment: Callable[[], bool], delay_s: float) -> tuple[int, str] | None:
        """Run, and send a signal a little after a moment; exit code and stderr, None if it had ended before."""
        with self.start() as process:
            while process.poll() is None and not moment():
                time.sleep(0.001)
            time.sleep(delay_s)
            running = process.poll() is None
            process.send_signal(number)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        assert running or process.returncode == 0, stderr
        return None if process.returncode == 0 else (process.returncode, stderr)

    def marked(self, more: int) -> Callable[[], bool]:
        """The moment at which this many blocks more than now are done."""
        wanted = len(self.done()) + more
        return lambda: len(self.done()) >= wanted


@dataclass(frozen=True)
class Uninterrupted:
    """What a run ends with when nothing stops it: its files, and the number of its blocks."""

    content: dict[str, bytes]
    blocks: int

    def assert_same(self, target: Path) -> None:
        """The map has the very same bytes, and nothing else lies beside it."""
        assert [p.name for p in target.parent.iterdir()] == [target.name]
        found = read_tree(target)
        assert sorted(found) == sorted(self.content)
        assert [name for name in found if found[name] != self.content[name]] == []


def read_tree(path: Path) -> dict[str, bytes]:
    """Every file and every folder below a path, or the file itself, by its name."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"folder" for p in path.rglob("*")}


def assert_clear(ended: tuple[int, str] | subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed with exit code 1 and one line that says why, in these words."""
    code, stderr = ended if isinstance(ended, tuple) else (ended.returncode, ended.stderr)
    assert code == 1, stderr
    assert "Traceback" not in stderr
    last = stderr.rstrip().splitlines()[-1]
    assert last.startswith("emboundary: error: ")
    assert "defect" not in last
    for word in words:
        assert word in last


@pytest.fixture(scope="module")
def inputs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A volume of noise, of which no chunk compresses, and the tiny model."""
    source = tmp_path_factory.mktemp("resume") / "noise.zarr"
    noise = np.random.default_rng(SEED).integers(0, 256, SHAPE, dtype=np.uint8)
    zarr.create_array(source, data=noise, chunks=(4, 64, 64), dimension_names=["z", "y", "x"])
    return source, repository / "d4" / "1" / "model.onnx"


@pytest.fixture(scope="module")
def tiling(inputs: tuple[Path, Path]) -> Tiling:
    """The cut of the volume: far more blocks than are in flight at once."""
    found = Tiling.plan(SHAPE, CHUNK, load_model(inputs[1]).description.footprint, TILE)
    assert len(found.grid) > 5 * IN_FLIGHT
    return found


@pytest.fixture(scope="module")
def uninterrupted(
    inputs: tuple[Path, Path], tiling: Tiling, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Uninterrupted]:
    """The map and the report of a run that nothing stopped, by format; made once."""
    made: dict[str, Uninterrupted] = {}

    def find(suffix: str) -> Uninterrupted:
        if suffix not in made:
            target = tmp_path_factory.mktemp("uninterrupted") / f"map{suffix}"
            # In this process, which saves its start; the bytes must not depend on that either.
            assert console.run(create_cli(), NAME, Command(*inputs, target).arguments) == 0
            made[suffix] = Uninterrupted(read_tree(target), len(tiling.grid))
        return made[suffix]

    return find


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small disk of its own: call it with the options of ``mount``, and again to change them."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        mounted = place.is_mount()
        what = (
            ["-o", f"remount,{options}", str(place)] if mounted else ["-t", "tmpfs", "-o", options, "none", str(place)]
        )
        done = subprocess.run(["mount", *what], capture_output=True, text=True, check=False)
        if not mounted and done.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("suffix", FORMATS if CAMPAIGN else (".zarr", ".h5"))
def test_kill(
    suffix: str,
    inputs: tuple[Path, Path],
    tiling: Tiling,
    uninterrupted: Callable[[str], Uninterrupted],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Runs are killed at random moments and begun again; the moments are counted over as many maps as they need."""
    expected = uninterrupted(suffix)
    chance = random.Random(SEED + FORMATS.index(suffix))
    kills, maps, most_again = 0, 0, 0
    while kills < KILLS:
        (tmp_path / str(maps)).mkdir()
        command = Command(*inputs, tmp_path / str(maps) / f"map{suffix}")
        while kills < KILLS and not command.target.exists():
            moment = command.marked(chance.randint(0, expected.blocks // 3))
            if command.stop(signal.SIGKILL, moment, chance.uniform(0, 0.03)) is not None:
                kills += 1
                if suffix == ".zarr":
                    most_again = max(most_again, len(command.touched(tiling) - command.done()))
        if command.hidden.exists() and command.target.exists():
            # Killed after the map had its name: the ledger, if it is still there, says that this run made it.
            ended = command.run()
            assert ended.returncode == 0 or "exists" in ended.stderr
        elif not command.target.exists():
            done = len([level for level, _ in command.done() if level == 0])
            report = command.finish()
            assert report["blocks_resumed"] == done
            assert report["blocks_done"] == expected.blocks - done
        expected.assert_same(command.target)
        maps += 1
    assert most_again <= IN_FLIGHT
    record_property("kills", kills)
    record_property("maps", maps)
    record_property("blocks per map", expected.blocks)
    if suffix == ".zarr":
        record_property("most blocks stored but not recorded at a kill", most_again)
        record_property("allowed", IN_FLIGHT)


@pytest.mark.parametrize("suffix", FORMATS if CAMPAIGN else (".tif",))
def test_termination_and_ctrl_c(
    suffix: str, inputs: tuple[Path, Path], uninterrupted: Callable[[str], Uninterrupted], tmp_path: Path
) -> None:
    expected = uninterrupted(suffix)
    more = expected.blocks // 8
    for attempt in range(ATTEMPTS):
        (tmp_path / str(attempt)).mkdir()
        command = Command(*inputs, tmp_path / str(attempt) / f"map{suffix}")
        for number in (signal.SIGTERM, signal.SIGINT):
            ended = command.stop(number, command.marked(more), 0)
            if ended is None:
                break  # it was done before the signal came
            assert_clear(ended, "interrupted", "the same command goes on from there")
            assert not command.target.exists()
        else:
            assert len(command.done()) >= 2 * more
            assert command.finish()["blocks_resumed"] >= 2 * more
            expected.assert_same(command.target)
            return
    pytest.fail(f"none of {ATTEMPTS} runs lasted long enough to be interrupted twice")


@pytest.mark.parametrize("suffix", FORMATS if CAMPAIGN else (".zarr",))
def test_a_disk_that_is_full_and_then_read_only(
    suffix: str,
    inputs: tuple[Path, Path],
    uninterrupted: Callable[[str], Uninterrupted],
    disk: Callable[[str], Path],
) -> None:
    expected = uninterrupted(suffix)
    pages = sum(-(-len(content) // 4096) for content in expected.content.values())
    command = Command(*inputs, disk(f"size={4 * (pages // 2)}k") / f"map{suffix}")
    assert_clear(command.run(), "No space left")
    disk(f"ro,size={4 * (pages // 2)}k")
    assert_clear(command.run(), "Read-only")
    disk(f"rw,size={8 * pages + 1024}k")
    command.finish()
    expected.assert_same(command.target)


def test_a_read_only_folder(inputs: tuple[Path, Path], disk: Callable[[str], Path]) -> None:
    folder = disk("ro,size=1m")
    assert_clear(Command(*inputs, folder / "map.zarr").run(), "Read-only", "map.zarr")
    assert list(folder.iterdir()) == []


def test_a_second_run_on_the_same_output_is_refused(
    inputs: tuple[Path, Path], uninterrupted: Callable[[str], Uninterrupted], tmp_path: Path
) -> None:
    expected = uninterrupted(".zarr")
    command = Command(*inputs, tmp_path / "map.zarr")
    with command.start() as first:
        while first.poll() is None and not (command.hidden / "ledger.jsonl").exists():
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)  # so that it is under way, however fast it is
        assert not command.target.exists()
        second = command.run()
        first.send_signal(signal.SIGCONT)
        _, stderr = first.communicate(timeout=PATIENCE_S)
    assert_clear(second, "another run", str(command.target))
    assert first.returncode == 0, stderr
    expected.assert_same(command.target)
