import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emboundary.training import commands
from emboundary.training.config import ConfigError, TrainConfig, load_config, parse_table, refuse_seen

Table = dict[str, Any]

SHIPPED = sorted((Path(commands.__file__).parent / "configs").glob("*.toml"))


@pytest.fixture(scope="module")
def shipped() -> dict[str, TrainConfig]:
    return {path.stem: load_config(path) for path in SHIPPED}


def test_the_four_models_are_shipped(shipped: dict[str, TrainConfig]) -> None:
    assert set(shipped) == {"d4", "paper", "plain", "plain-noaug"}
    assert {stem: config.name for stem, config in shipped.items()} == {stem: stem for stem in shipped}


@pytest.mark.parametrize("stem", ["d4", "paper", "plain-noaug"])
def test_shipped_models_learn_from_the_same_crops_in_the_same_steps(shipped: dict[str, TrainConfig], stem: str) -> None:
    config, plain = shipped[stem], shipped["plain"]
    for part in ("seed", "precision", "loss_boundary_weight", "data", "sampling", "optimiser"):
        assert getattr(config, part) == getattr(plain, part), part
    assert config.augment.model_copy(update={"symmetry": True}) == plain.augment


def test_shipped_baseline_differs_from_plain_in_its_augmentation_alone(shipped: dict[str, TrainConfig]) -> None:
    plain, bare = shipped["plain"], shipped["plain-noaug"]
    assert plain.augment.symmetry
    assert not bare.augment.symmetry
    assert bare.model == plain.model


def test_shipped_models_have_not_seen_the_sections_of_the_comparison(shipped: dict[str, TrainConfig]) -> None:
    for config in shipped.values():
        refuse_seen(config, (13, 16), origin=config.name)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("colour", "red", "colour is not a key that is known here; remove it, or correct it"),
        ("optimiser.momentum", 0.9, "optimiser.momentum is not a key that is known here"),
        ("optimiser.steps", 0, "optimiser.steps is 0: Input should be greater than or equal to 1"),
        ("optimiser.steps", "100", "optimiser.steps is '100': Input should be a valid integer"),
        ("optimiser.steps", 10.0, "optimiser.steps is 10.0: Input should be a valid integer"),
        ("optimiser.learning_rate", 0.0, "optimiser.learning_rate is 0.0: Input should be greater than 0"),
        ("optimiser.learning_rate", float("inf"), "optimiser.learning_rate is inf: Input should be a finite number"),
        ("optimiser.warmup", 1.5, "optimiser.warmup is 1.5: Input should be less than or equal to 1"),
        ("augment.noise", -0.1, "augment.noise is -0.1: Input should be greater than or equal to 0"),
        ("augment.symmetry", 1, "augment.symmetry is 1: Input should be a valid boolean"),
        ("sampling.crop", 36, "sampling is {'crop': 36, 'batch': 2}: crop must be a multiple of the stride, 8"),
        (
            "sampling.margin",
            16,
            "sampling is {'crop': 32, 'batch': 2, 'margin': 16}: margin must be less than half of crop",
        ),
        ("model.symmetry", "d8", "model.symmetry is 'd8': Input should be 'plain', 'paper' or 'd4'"),
        ("model.angles", 3, "model.angles is 3: Input should be 2, 4 or 8"),
        ("model.stem", 12, "model.stem is 12; a width must be a positive multiple of 8, the order of D4"),
        ("model.blocks", [1, 1], "model.blocks.2 is missing; it has no default"),
        ("data", [], "data is []: "),
        ("data.0.sections", [4, 4], "data.0.sections is [4, 4]: sections are [first, stop) with 0 <= first < stop"),
        ("data.0.sections", [-1, 4], "data.0.sections is [-1, 4]: sections are [first, stop)"),
        ("data.0.sections", ["0", 4], "data.0.sections.0 is '0': Input should be a valid integer"),
        ("data.0.voxel_size_nm", [50.0, 0.0, 4.6], "data.0.voxel_size_nm.1 is 0.0: Input should be greater than 0"),
        ("precision", "float16", "precision is 'float16': Input should be 'float32' or 'bfloat16'"),
        ("seed", -1, "seed is -1: Input should be greater than or equal to 0"),
        ("name", "../d4", "name is '../d4': String should match pattern"),
        ("loss_boundary_weight", 0.0, "loss_boundary_weight is 0.0: Input should be greater than 0"),
    ],
)
def test_a_key_that_breaks_a_rule_is_named(table: Table, place: str, value: object, message: str) -> None:
    *parents, key = place.split(".")
    inner: Any = table
    for parent in parents:
        inner = inner[int(parent)] if isinstance(inner, list) else inner[parent]
    inner[key] = value
    with pytest.raises(ConfigError) as refused:
        parse_table(table, origin="tiny.toml")
    assert str(refused.value).startswith(f"config tiny.toml: {message}")
    assert "\n" not in str(refused.value)


def test_a_missing_key_is_named(table: Table) -> None:
    del table["optimiser"]["steps"]
    with pytest.raises(ConfigError, match=r"^config tiny.toml: optimiser.steps is missing; it has no default$"):
        parse_table(table, origin="tiny.toml")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda _: None, "none.toml", "cannot be read: No such file or directory; give the path of a TOML file"),
        (lambda path: path.mkdir(), "folder.toml", "cannot be read: Is a directory; give the path of a TOML file"),
        (lambda path: path.write_text("name = "), "a.toml", "is not TOML: Invalid value"),
        (lambda path: path.write_bytes(b"name = '\xff'"), "a.toml", "is not TOML: 'utf-8' codec can't decode"),
        (lambda path: path.write_text("{"), "a.json", "is not JSON: Expecting property name"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], object], name: str, message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / name)
    assert str(refused.value).startswith(f"config {tmp_path / name} {message}")


def test_a_configuration_survives_the_json_that_a_run_keeps(table: Table, tmp_path: Path) -> None:
    config = parse_table(table, origin="tiny.toml")
    (tmp_path / "config.json").write_text(config.model_dump_json(indent=2))
    assert load_config(tmp_path / "config.json") == config
    assert json.loads(config.model_dump_json())["optimiser"]["warmup"] == 0.05, "defaults are written down"


def test_the_network_is_what_the_table_says(table: Table) -> None:
    table["model"] |= {"a": 16, "blocks": [1, 2, 3]}
    spec = parse_table(table, origin="tiny.toml").model.spec()
    assert (spec.symmetry, spec.stem, spec.a, spec.blocks) == ("d4", 8, 16, (1, 2, 3))


def test_sections_seen_in_training_are_no_held_out_ones(table: Table) -> None:
    table["data"].append(table["data"][0] | {"name": "more", "sections": [8, 10]})
    table["data"].append(table["data"][0] | {"name": "other", "raw": "other.tif", "sections": [4, 8]})
    config = parse_table(table, origin="tiny.toml")
    for sections in ((4, 8), (10, 12)):
        refuse_seen(config, sections, origin="run r")
    for sections, trained, name in (((3, 5), [0, 4], "synthetic"), ((9, 12), [8, 10], "more")):
        with pytest.raises(ConfigError) as refused:
            refuse_seen(config, sections, origin="run r")
        assert str(refused.value) == (
            f"run r: scored sections {list(sections)} overlap the training sections {trained} of {name}; give sections "
            "that were never trained on"
        )


def test_every_file_of_the_package_is_installed() -> None:
    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = root / "training"
    installed = {path for pattern in patterns["emboundary.training"] for path in folder.glob(pattern)}
    files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files <= installed
