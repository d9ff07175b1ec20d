from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from emboundary.service.errors import UsageError
from emboundary.service.settings import Settings, as_toml, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("EMBOUNDARY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "emboundary.toml"
    path.write_text(f"port = 1\nqueue_tiles = 1\ntile = 1\ndata_roots = [{str(tmp_path)!r}]\n")
    return path


def test_options_go_before_the_environment_and_that_before_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBOUNDARY_QUEUE_TILES", "2")
    monkeypatch.setenv("EMBOUNDARY_TILE", "2")
    settings = load_settings(config, tile=3, host=None)
    assert (settings.port, settings.queue_tiles, settings.tile) == (1, 2, 3)
    assert settings.host == "127.0.0.1"
    assert settings.data_roots == (config.parent,)


def test_the_file_may_be_named_by_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().port == 8000
    monkeypatch.setenv("EMBOUNDARY_CONFIG", str(config))
    assert load_settings().port == 1
    assert Settings().port == 8000  # who makes settings in Python names everything there


def test_several_values_stand_between_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("EMBOUNDARY_DATA_ROOTS", f"{tmp_path}, {tmp_path}/a b")
    monkeypatch.setenv("EMBOUNDARY_BUCKET_SIDES", "64,128")
    monkeypatch.setenv("EMBOUNDARY_CORS_ORIGINS", "")
    settings = Settings()
    assert settings.data_roots == (tmp_path, tmp_path / "a b")
    assert settings.bucket_sides == (64, 128)
    assert settings.cors_origins == ()


def test_what_is_printed_is_a_file_that_gives_the_same_settings(config: Path, tmp_path: Path) -> None:
    settings = load_settings(config, api_keys=SecretStr("a:predict:" + "0" * 64), bucket_sides=(32,), model='a"b\\c')
    text = as_toml(settings)
    assert "0" * 64 not in text
    assert '# api_keys = "***"\n' in text
    (tmp_path / "again.toml").write_text(text)
    assert load_settings(tmp_path / "again.toml") == settings.model_copy(update={"api_keys": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queue_tile = 3", "has queue_tile, which is no setting; `emboundary serve --print-settings` lists them all"),
        ("tile = 0", "tile is '0': Input should be greater than or equal to 1; change tile in "),
        ("port = 70000", "port is '70000'"),
        ("api_keys = ['emb_secret']", "api_keys is '***'"),
        ("tile 0", "which cannot be read as TOML"),
        ("\0", "which cannot be read as TOML"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(tmp_path / "bad.toml")
    assert message in str(caught.value)
    assert "emb_secret" not in str(caught.value)


def test_a_value_that_is_wrong_is_found_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"change the option --queue-tiles$"):
        load_settings(queue_tiles=0)
    monkeypatch.setenv("EMBOUNDARY_QUEUE_TILES", "many")
    with pytest.raises(UsageError, match=r"change the environment variable EMBOUNDARY_QUEUE_TILES$"):
        load_settings()


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_settings(tmp_path / "none.toml")
