from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emboundary.service.errors import OutputError
from emboundary.service.volumes import Place, check_output, storing
from emboundary.service.volumes.place import was_published

SHAPE = (1, 8, 8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(params=["a.tif", "a.zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def fill(place: Path, text: str) -> None:
    """A map as its format would be: a folder for Zarr, else a file."""
    if place.suffix == ".zarr":
        place.mkdir()
        place /= "zarr.json"
    place.write_text(text)


def text(path: Path) -> str:
    return (path / "zarr.json" if path.is_dir() else path).read_text()


def test_a_map_appears_whole_and_nothing_else_is_left(path: Path) -> None:
    with Place.take(path) as place:
        assert place.data.suffix == path.suffix
        fill(place.data, "new")
        place.ledger.write_text("done")
        assert not path.exists()
        place.publish(overwrite=False)
    assert text(path) == "new"
    assert names(path.parent) == [path.name]


def test_a_place_that_was_left_is_entered_again_as_it_was(path: Path) -> None:
    with Place.take(path) as first:
        fill(first.data, "half")
        first.ledger.write_text("one block")
    with Place.take(path) as second:
        assert second.ledger.read_text() == "one block"
        assert text(second.data) == "half"
        second.discard()
    assert names(path.parent) == []


def test_publishing_and_discarding_are_safe_to_repeat(path: Path) -> None:
    with Place.take(path) as place:
        fill(place.data, "new")
        place.publish(overwrite=False)
        place.discard()
        place.release()
    assert names(path.parent) == [path.name]


def test_two_runs_do_not_write_the_same_output(path: Path) -> None:
    with Place.take(path) as first:
        with pytest.raises(OutputError, match=r"another run is writing .*/a\.\w+; wait for it, or give another OUTPUT"):
            Place.take(path)
        fill(first.data, "mine")
        first.publish(overwrite=False)
    assert text(path) == "mine"


KILLED = """
import os, signal, sys
from pathlib import Path
from emboundary.service.volumes import Place
Place.take(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_holds_no_lock(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with Place.take(path) as place:
        place.discard()
    assert names(path.parent) == []


@pytest.mark.parametrize("before", ["a file", "a folder"])
def test_overwriting_replaces_whatever_stands_there(path: Path, before: str) -> None:
    if before == "a file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "old").write_text("old")
    with Place.take(path) as place:
        fill(place.data, "new")
        place.publish(overwrite=True)
    assert text(path) == "new"
    assert names(path.parent) == [path.name]


def test_an_output_that_appears_meanwhile_is_not_replaced(path: Path) -> None:
    with Place.take(path) as place:
        fill(place.data, "new")
        fill(path, "theirs")
        with pytest.raises(OutputError, match="has appeared during the run; move it away, then give the same command"):
            place.publish(overwrite=False)
        assert text(place.data) == "new"
    assert text(path) == "theirs"


def test_a_rename_that_fails_puts_the_old_output_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    fill(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Place.take(path) as place:
        fill(place.data, "new")
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(
            OutputError, match=r"a\.zarr cannot be written: Input/output error; check the disk and give the same"
        ):
            place.publish(overwrite=True)
        assert text(place.data) == "new"
    assert text(path) == "old"


def test_a_run_killed_between_its_two_renames_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with Place.take(path) as place:
        fill(place.folder / "replaced", "old")
        fill(place.data, "new")
    assert not path.exists()
    with Place.take(path) as again:
        assert text(path) == "old"
        again.publish(overwrite=True)
    assert text(path) == "new"
    assert names(tmp_path) == ["a.zarr"]


def test_what_a_run_left_that_was_killed_after_its_last_rename_goes_with_the_next_check(path: Path) -> None:
    with Place.take(path) as place:
        (place.folder / "replaced").write_text("old")
    fill(path, "new")
    with pytest.raises(OutputError, match="exists; move it away"):
        check_output(path, SHAPE, "uint8")
    assert names(path.parent) == [path.name]


def test_the_ledger_of_a_map_that_has_its_name_is_left_for_the_run_that_asks(path: Path) -> None:
    assert not was_published(path)
    with Place.take(path) as place:
        place.ledger.write_text("all blocks")
        fill(place.data, "new")
        assert not was_published(path)
        place.data.rename(path)
        assert place.published
    with pytest.raises(OutputError, match="exists; move it away"):
        check_output(path, SHAPE, "uint8")
    assert was_published(path)


@pytest.mark.parametrize("state", ["held", "unfinished"])
def test_a_check_leaves_a_run_that_is_not_over_alone(path: Path, state: str) -> None:
    fill(path, "old")
    with Place.take(path) as place:
        if state == "unfinished":
            fill(place.data, "half")
            place.release()
        before = tree(path.parent)
        check_output(path, SHAPE, "uint8", overwrite=True)
        assert tree(path.parent) == before


@pytest.mark.parametrize(
    ("code", "kept", "words"),
    [
        (errno.ENOSPC, False, "No space left on device; free some space, or give an OUTPUT on another disk"),
        (errno.EDQUOT, False, "free some space, or give an OUTPUT on another disk"),
        (errno.EROFS, False, "Read-only file system; give an OUTPUT in a folder that you may write to"),
        (errno.EACCES, False, "Permission denied; give an OUTPUT in a folder that you may write to"),
        (errno.EIO, False, "check the disk, and the folder's permissions"),
        (errno.ENOSPC, True, "No space left on device; free some space and give the same command again"),
        (errno.EROFS, True, "Read-only file system; make the folder writable again and give the same command again"),
        (errno.EIO, True, "Input/output error; check the disk and give the same command again"),
    ],
)
def test_errors_of_the_file_system_say_what_to_do(code: int, kept: bool, words: str) -> None:
    with (
        pytest.raises(OutputError, match=r"^a\.zarr cannot be written: ") as caught,
        storing(Path("a.zarr"), kept=kept),
    ):
        raise OSError(code, os.strerror(code))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"a\.zarr cannot be written: Read-only file system; give an OUTPUT"):
        Place.take(tmp_path / "a.zarr")
    assert names(tmp_path) == []
