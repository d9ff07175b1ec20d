"""The images' entry point makes the first key, shows it once, and serves the user's models beside the bundled ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emboundary.service.security.keys import Keys
from emboundary.service.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"


class Started:
    """The entry point in a folder of its own, with a command `emboundary` that tells how it was called."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.models = folder / "models"
        self.models.mkdir()
        (folder / "bundled" / "d4" / "1").mkdir(parents=True)
        self._script = folder / "start"
        text = (DOCKER / "start.sh").read_text()
        for name, place in {
            "STATE": self.state,
            "MODELS": self.models,
            "BOTH": folder / "both",
            "FORESEEN": folder / "foreseen",
        }.items():
            text = re.sub(rf"^{name}=/\S+", f"{name}={place}", text, flags=re.MULTILINE)
        self._script.write_text(re.sub(r"^BUNDLED=.+", f"BUNDLED={folder}/bundled", text, flags=re.MULTILINE))
        (folder / "bin").mkdir()
        command = folder / "bin" / "emboundary"
        command.write_text(
            f'#!/bin/sh\nif [ "$1" = keys ]; then exec "{sys.executable}" -W ignore -m emboundary.service "$@"; fi\n'
            'echo "$*|${EMBOUNDARY_API_KEYS_FILE-}|${EMBOUNDARY_REPOSITORY-}"\n'
        )
        command.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EMBOUNDARY_")}
        self._environment = {**kept, "PATH": f"{folder / 'bin'}{os.pathsep}{kept['PATH']}"}

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self._script), *words],
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def started(tmp_path: Path) -> Started:
    return Started(tmp_path)


def test_a_first_start_shows_a_key_that_opens_everything_and_keeps_its_sum(started: Started) -> None:
    done = started("serve")
    (secret,) = re.findall(r"^ +(emb_\S+)$", done.stderr, re.MULTILINE)
    file = started.state / "keys.txt"
    assert done.stdout == f"serve|{file}|\n"
    key = Keys.of(Settings(api_keys_file=file)).find(secret)
    assert key is not None
    assert key.scopes == {"predict", "jobs", "admin"}
    assert file.stat().st_mode & 0o077 == 0
    assert secret not in file.read_text()


def test_a_second_start_shows_nothing(started: Started) -> None:
    started("serve")
    before = (started.state / "keys.txt").read_text()
    done = started("serve")
    assert done.stderr == ""
    assert (started.state / "keys.txt").read_text() == before


def test_prometheus_gets_a_key_that_is_not_shown(started: Started, tmp_path: Path) -> None:
    scrape = tmp_path / "prometheus.key"
    done = started("serve", SCRAPE_KEY_FILE=str(scrape))
    keys = Keys.of(Settings(api_keys_file=started.state / "keys.txt"))
    key = keys.find(scrape.read_text())
    assert key is not None
    assert (key.name, key.scopes) == ("prometheus", {"admin"})
    assert scrape.read_text() not in done.stderr
    assert scrape.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["EMBOUNDARY_API_KEYS_FILE", "EMBOUNDARY_API_KEYS", "EMBOUNDARY_CONFIG"])
def test_no_key_is_made_beside_others(started: Started, name: str) -> None:
    assert started("serve", **{name: "mine"}).returncode == 0
    assert not list(started.state.iterdir())


@pytest.mark.parametrize("words", [["serve", "--no-auth"], ["serve", "--help"], ["doctor", "--help"], ["models"], []])
def test_no_key_is_made_where_none_is_needed(started: Started, words: list[str]) -> None:
    assert started(*words).stdout == f"{' '.join(words)}||\n"
    assert not list(started.state.iterdir())


def test_a_diagnosis_sees_keys_as_the_service_will_and_makes_none(started: Started, tmp_path: Path) -> None:
    assert started("doctor").stdout == f"doctor|{tmp_path / 'foreseen'}|\n"
    assert Keys.of(Settings(api_keys_file=tmp_path / "foreseen"))
    assert not list(started.state.iterdir())
    (started.state / "keys.txt").touch()
    assert started("doctor").stdout == f"doctor|{started.state / 'keys.txt'}|\n"


def test_keys_that_cannot_be_kept_are_refused_with_the_remedy(started: Started) -> None:
    started.state.rmdir()
    done = started("serve")
    assert done.returncode == 1
    assert f"{started.state} cannot be written by user {os.geteuid()}, so that no key can be kept" in done.stderr
    assert "mount a volume there" in done.stderr
    assert "emb_" not in done.stderr


def test_a_key_for_prometheus_that_cannot_be_kept_is_refused_and_no_key_stays(started: Started, tmp_path: Path) -> None:
    done = started("serve", SCRAPE_KEY_FILE=str(tmp_path / "missing" / "key"))
    assert done.returncode == 1
    assert "missing/key cannot be written by user" in done.stderr
    assert not (started.state / "keys.txt").exists()


def test_own_models_stand_beside_the_bundled_ones(started: Started, tmp_path: Path) -> None:
    for name in ("mine", "d4"):
        (started.models / name / "1").mkdir(parents=True)
        (started.models / name / "1" / "model.onnx").touch()
    (tmp_path / "bundled" / "plain").mkdir()
    both = tmp_path / "both"
    for _ in range(2):  # the second time it is there already
        assert started("serve", "--no-auth").stdout == f"serve --no-auth||{both}\n"
    assert {path.name: path.resolve().parent.name for path in both.iterdir()} == {
        "d4": "models",
        "mine": "models",
        "plain": "bundled",
    }
    assert started("serve", "--no-auth", EMBOUNDARY_REPOSITORY="/r").stdout == "serve --no-auth||/r\n"
