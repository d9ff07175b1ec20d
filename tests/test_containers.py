"""What docker/ says fits the service and the project: settings, pins, ports.  Its scripts have tests in tests/docker.

Images are built and run by ``make image-test``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from emboundary.service.operations.server import CLOSING_S
from emboundary.service.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What the image or compose.yaml decides, and nobody else.
DECIDED = {"host", "port", "device", "data_roots", "state_dir", "api_keys_file", "no_auth"}


# compose.yaml


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "restart", "logging"} <= service.keys()


@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_a_service_may_end_what_it_has_begun(name: str) -> None:
    grace = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["drain_s"].default + CLOSING_S


@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_every_setting_can_be_given(name: str) -> None:
    passed = {entry for entry in SERVICES[name]["environment"] if "=" not in entry}
    assert passed == {f"EMBOUNDARY_{field.upper()}" for field in Settings.model_fields.keys() - DECIDED}


def test_the_gpu_is_reserved_and_is_the_default() -> None:
    (device,) = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in SERVICES["cpu"]
    for folder in (ROOT, DOCKER):
        assert "\nCOMPOSE_PROFILES=gpu\n" in (folder / ".env").read_text()


def test_keys_of_ones_own_go_to_both_services() -> None:
    override = yaml.safe_load((DOCKER / "compose.keys.yaml").read_text())
    for name in ("gpu", "cpu"):
        (entry,) = override["services"][name]["environment"]
        assert entry == "EMBOUNDARY_API_KEYS_FILE=/run/secrets/keys"
        assert override["services"][name]["secrets"] == ["keys"]


# docs/docker.md

PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")


def test_the_page_lists_what_can_be_set_and_its_defaults() -> None:
    text = "".join((DOCKER / name).read_text() for name in ("compose.yaml", "compose.keys.yaml"))
    used = set(re.findall(r"\$\{(\w+):-([^}]+)\}", text))
    table = PAGE.split("<!-- variables -->")[1].split("<!-- /variables -->")[0]
    assert set(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", table, re.MULTILINE)) == used


def test_links_within_the_page_lead_somewhere() -> None:
    for page, target in re.findall(r"\]\((\w+\.md)?#([\w-]+)\)", PAGE):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8") if page else PAGE
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert target in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


# The image


def _dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text()


def test_the_image_says_its_version() -> None:
    assert f"\nARG VERSION={PROJECT['version']}\n" in _dockerfile()


def test_the_image_runs_as_nobody_in_particular() -> None:
    for target in ("cpu", "gpu"):
        stage = _dockerfile().split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "\nUSER 10001:10001\n" in f"{stage}\n"


def test_what_the_image_sets_are_settings() -> None:
    names = {name.lower() for name in re.findall(r"\bEMBOUNDARY_(\w+)=", _dockerfile())}
    assert names == {"host", "port", "data_roots", "state_dir", "device"}
    assert names <= Settings.model_fields.keys()


def test_the_builder_gets_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", _dockerfile(), re.MULTILINE):
        *sources, _ = line.split()
        copied |= set(sources)
    assert "*" in lines
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_all_that_the_image_asks_for_is_pinned(runtime: str) -> None:
    extras = re.findall(r"^ARG EXTRAS=(\S+)$", _dockerfile(), re.MULTILINE)
    assert len(set(extras)) == 1
    asked = _requirements(f"{runtime},{extras[0]}").stdout
    pins = (ROOT / "constraints.txt").read_text() + (DOCKER / "constraints.txt").read_text()
    pinned = {_normal(name) for name in re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)}
    assert {_normal(name) for name in re.findall(r"^[\w.-]+", asked, re.MULTILINE)} <= pinned


def test_extras_that_the_project_does_not_have_are_refused() -> None:
    done = _requirements("cpu,tensorflow")
    assert done.returncode == 1
    assert done.stderr.startswith("EXTRAS names 'tensorflow'; it must be some of cpu, gpu, tensorstore, ")


def test_no_extras_are_possible() -> None:
    assert _requirements("cpu,").stdout.splitlines() == [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["cpu"],
    ]


def _requirements(extras: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "docker/requirements.py", extras]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
