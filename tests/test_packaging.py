import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def setuptools_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return table


def test_every_package_on_disk_is_installed(setuptools_table: dict[str, Any]) -> None:
    roots = {"model", "service", "training"}
    found = {
        ".".join(("emboundary", *init.parent.relative_to(ROOT).parts))
        for root in roots
        for init in (ROOT / root).rglob("__init__.py")
    }
    assert set(setuptools_table["packages"]) == found


def test_every_folder_with_modules_is_a_package() -> None:
    for root in ("model", "service", "training"):
        for module in (ROOT / root).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} has modules and no __init__.py"


def test_the_three_folders_are_one_namespace(setuptools_table: dict[str, Any]) -> None:
    assert setuptools_table["package-dir"] == {f"emboundary.{n}": n for n in ("model", "service", "training")}
    assert not (ROOT / "__init__.py").exists()
