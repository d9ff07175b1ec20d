"""The tests of the service on other versions of Python: which versions, which tests."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((TESTS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# As pytest itself fails where a package is missing: in a module, and in the conftest.py of a folder.
MISSING = "raise ModuleNotFoundError(\"No module named '{}'\", name='{}')\n"


@pytest.fixture(scope="module")
def pythons() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pythons", TESTS / "pythons.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_in(folder: Path, *options: str) -> str:
    """What a run of pytest with this project's conftest.py says of the tests in a folder."""
    shutil.copy(TESTS / "conftest.py", folder)
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # half of the time, and nothing here needs them
    ended = subprocess.run(
        [*line, "--rootdir", ".", "."], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ended.stdout + ended.stderr


def lay(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_needs_training_is_skipped_and_named(tmp_path: Path) -> None:
    lay(tmp_path, test_a="def test_a(): pass\n", test_b=MISSING.format("torch", "torch"))
    lay(tmp_path / "deep", conftest=MISSING.format("onnxscript", "onnxscript"), test_c="def test_c(): pass\n")
    said = pytest_in(tmp_path, "--serving=whole")
    assert re.search(r"SKIPPED \[1\] test_b\S* it needs torch, which only training installs", said), said
    assert re.search(r"SKIPPED \[1\] deep\S* it needs onnxscript, which only training installs", said), said
    assert "1 passed, 2 skipped" in said


@pytest.mark.parametrize(("options", "package"), [(["--serving=short"], "emboundary.nothing"), ([], "torch")])
def test_nothing_else_is_skipped(tmp_path: Path, options: list[str], package: str) -> None:
    lay(tmp_path, test_a="def test_a(): pass\n", test_b=MISSING.format(package, package))
    said = pytest_in(tmp_path, *options)
    assert "ERROR test_b.py" in said
    assert "1 error" in said


@pytest.mark.parametrize(("length", "counts"), [("short", "1 passed, 1 skipped"), ("whole", "2 passed")])
def test_what_is_long_is_skipped_unless_it_is_asked_for(tmp_path: Path, length: str, counts: str) -> None:
    lay(tmp_path, test_a="def test_a(): pass\n")
    lay(tmp_path / "tests/laws", test_tiling="def test_b(): pass\n")
    said = pytest_in(tmp_path, f"--serving={length}")
    assert counts in said
    assert ("--serving=whole runs it" in said) == (length == "short")


def test_every_file_that_is_called_long_exists() -> None:
    text = (TESTS / "conftest.py").read_text(encoding="utf-8")
    named = re.findall(r'^    "(tests/\S+\.py)",$', text, re.MULTILINE)
    assert named
    assert [name for name in named if not (TESTS.parent / name).is_file()] == []


def test_the_tests_of_the_service_install_nothing_of_training() -> None:
    extras = PROJECT["optional-dependencies"]
    names = [re.match(r"[\w-]+", requirement) for requirement in extras["serving-tests"]]
    assert {name[0] for name in names if name} & {"torch", "onnxscript", "safetensors", "matplotlib", "waterz"} == set()
    assert "emboundary[serving-tests]" in extras["dev"]


def test_the_oldest_version_that_is_claimed_is_the_oldest_that_installs(pythons: ModuleType) -> None:
    assert PROJECT["requires-python"] == f">={pythons.claimed()[0]}"


def test_an_interpreter_is_found_by_its_version_and_no_other(pythons: ModuleType) -> None:
    here = "{}.{}".format(*sys.version_info[:2])
    assert pythons.find(here) == sys.executable
    assert pythons.find("3.999") is None


def test_a_version_that_is_not_found_is_named_and_fails_where_every_one_is_wanted(
    pythons: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pythons, "claimed", lambda: ["3.11", "3.999"])
    monkeypatch.setattr(sys, "argv", ["pythons.py", "--except", "3.11"])
    assert pythons.main() == 0
    assert "Python 3.11: by make test\nPython 3.999: NOT TESTED" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["pythons.py", "--except", "3.11", "--every"])
    assert pythons.main() == 1


def test_a_version_whose_tests_fail_is_a_failure(
    pythons: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pythons, "claimed", lambda: ["3.11", "3.12"])
    monkeypatch.setattr(pythons, "find", lambda version: f"/python{version}")
    monkeypatch.setattr(
        pythons, "make", lambda target, python, _: (target != "test-serving" or "3.11" in python, "1 failed")
    )
    monkeypatch.setattr(sys, "argv", ["pythons.py"])
    assert pythons.main() == 1
    said = capsys.readouterr().out
    assert "Python 3.11: passed (/python3.11)\nPython 3.12: FAILED (/python3.12)" in said
