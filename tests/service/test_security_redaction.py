from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from emboundary.service.security.keys import new_key
from emboundary.service.security.redaction import redact
from emboundary.service.settings import Settings


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("data", "more", "state", "models"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_names_inside_the_only_root_become_those_that_a_client_gives(folders: Path) -> None:
    settings = Settings(data_roots=(folders / "data",))
    for text, expected in {
        f"{folders}/data/raw.tif does not exist": "raw.tif does not exist",
        f"'{folders}/data/sub/raw.h5::/raw' is": "'sub/raw.h5::/raw' is",
        f"folder {folders}/data of": "folder <data> of",
        f"folder {folders}/data/ of": "folder <data> of",
        f"({folders}/data)": "(<data>)",
        f"a {folders}/data/x b {folders}/data/y": "a x b y",
    }.items():
        assert redact(text, settings) == expected


def test_several_roots_are_numbered(folders: Path) -> None:
    settings = Settings(data_roots=(folders / "data", folders / "more"), state_dir=folders / "state")
    text = f"{folders}/data/a, {folders}/more/b, {folders}/state/jobs.sqlite"
    assert redact(text, settings) == "<data-1>/a, <data-2>/b, <state>/jobs.sqlite"


def test_a_root_that_is_a_link_is_known_by_both_names(folders: Path) -> None:
    (folders / "link").symlink_to(folders / "data")
    settings = Settings(data_roots=(folders / "link",))
    assert redact(f"{folders}/link/a and {folders}/data/a", settings) == "a and a"


def test_the_places_of_the_program_are_never_told(folders: Path, repository: Path) -> None:
    import emboundary.service.problems

    key_file = folders / "keys"
    key_file.write_text("")
    settings = Settings(
        repository=repository, model=f"{folders}/models/mine/1/model.onnx", api_keys_file=key_file, state_dir=folders
    )
    for path in (
        repository / "d4/1/model.onnx",
        Path(settings.model),
        key_file,
        Path(sys.prefix) / "lib/python/x.py",
        Path(emboundary.service.problems.__file__),
        Path.home() / "x.txt",
        Path.cwd() / "x.txt",
        Path(tempfile.gettempdir()) / "x.txt",
    ):
        found = redact(f"cannot read {path}: no", settings)
        assert f" {path.parent}" not in found
        assert "/home" not in found
        assert found.startswith("cannot read ")
        assert found.endswith(f"{path.name}: no")


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/models/{name}",
        "https://host{root}/x",
        "{root}base/x",
        "{root}-2/x",
        "{root}.zarr",
        "x{root}/y",
        "/group/raw of 3/4",
        "nothing at all",
        "",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    root = Path("/usr/share").resolve()
    text = text.replace("{root}", str(root))
    assert redact(text, Settings(data_roots=(root,))) == text


def test_keys_and_passwords_are_never_told() -> None:
    secret, _ = new_key("lab", frozenset({"predict"}))
    found = redact(f"Bearer {secret}, https://me:pass@host/x and s3://key@bucket/", Settings())
    assert found == "Bearer emb_***, https://***@host/x and s3://***@bucket/"
