from pathlib import Path

import pytest

from emboundary.service.errors import OutputError
from emboundary.training.storing import storing


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with storing(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), storing(path) as partial:
        partial.write_text("half of the new \N{GREEK SMALL LETTER ALPHA}", encoding="ascii")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.txt"
    with pytest.raises(OutputError) as refused, storing(path) as partial:
        partial.write_text("never")
    assert str(refused.value) == (
        f"{path} cannot be written: File exists; give an output folder that can be written and has space left"
    )
