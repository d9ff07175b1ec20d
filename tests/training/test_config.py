import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emboundary.training import config as config_module
from emboundary.training.config import TrainConfig, load_config, parse_table, refuse_seen
from emboundary.training.strict import ConfigError, read_based

Table = dict[str, Any]

CONFIGS = Path(config_module.__file__).parent / "configs"
# The other files are recipes that these stand on.
SHIPPED = sorted(path for path in CONFIGS.glob("*.toml") if "\n[model]" in path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shipped() -> dict[str, TrainConfig]:
    return {path.stem: load_config(path) for path in SHIPPED}


def test_three_models_are_shipped_and_their_recipe(shipped: dict[str, TrainConfig]) -> None:
    assert {"d4", "paper", "plain", "d4-base", "paper-base", "plain-base"} <= set(shipped)
    assert {stem: config.name for stem, config in shipped.items()} == {stem: stem for stem in shipped}


@pytest.mark.parametrize("size", ["", "-base"])
@pytest.mark.parametrize("symmetry", ["d4", "paper"])
def test_shipped_models_learn_from_the_same_crops_in_the_same_steps(
    shipped: dict[str, TrainConfig], symmetry: str, size: str
) -> None:
    config, plain = shipped[symmetry + size], shipped["plain" + size]
    different = {"name", "model", "start"}
    assert config.model_dump(exclude=different) == plain.model_dump(exclude=different)
    widths = {"stem", "a", "b", "c", "blocks", "decoder", "head", "mix"}
    assert config.model.model_dump(include=widths) == plain.model.model_dump(include=widths)


def test_the_baseline_is_augmented_as_it_deserves(shipped: dict[str, TrainConfig]) -> None:
    assert shipped["plain"].augment.symmetry
    assert shipped["paper"].augment.symmetry


def test_shipped_models_learn_from_all_volumes_and_keep_sections_apart(shipped: dict[str, TrainConfig]) -> None:
    for config in (c for stem, c in shipped.items() if not stem.startswith("vnc")):
        assert [volume.name for volume in config.data] == ["vnc", "isbi2012", "snemi3d"]
        for volume in config.data:
            assert volume.validation is not None
            refuse_seen(config, volume, volume.validation, origin=config.name)


def test_a_file_stands_on_its_base(tmp_path: Path) -> None:
    folder = tmp_path / "bases"
    folder.mkdir()
    (folder / "all.toml").write_text("seed = 3\n[optimiser]\nsteps = 5\nlearning_rate = 0.1\n[augment]\nnoise = 0.5\n")
    (tmp_path / "middle.toml").write_text('base = "bases/all.toml"\n[optimiser]\nsteps = 7\n')
    (tmp_path / "top.toml").write_text('base = "middle.toml"\nname = "top"\n[augment]\nsymmetry = true\n')
    assert read_based(tmp_path / "top.toml") == {
        "name": "top",
        "seed": 3,
        "optimiser": {"steps": 7, "learning_rate": 0.1},
        "augment": {"noise": 0.5, "symmetry": True},
    }


def test_a_base_that_leads_nowhere_or_back_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "b.toml"')
    with pytest.raises(ConfigError, match=r"b\.toml cannot be read: No such file"):
        read_based(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text('base = "a.toml"')
    with pytest.raises(ConfigError, match=r"a\.toml: base leads back to the file itself; remove one of the two$"):
        read_based(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("base = 3")
    with pytest.raises(ConfigError, match=r"b\.toml: base is 3; it must be the path of a file, relative to this one$"):
        read_based(tmp_path / "b.toml")


@pytest.mark.parametrize("change", [{"labels": "ids.tif"}, {"membranes": None}])
def test_a_volume_has_one_target(table: Table, change: Table) -> None:
    table["data"][0] |= change
    with pytest.raises(ConfigError, match=r"give either membranes \(a boundary map\) or labels \(neuron ids\)"):
        parse_table(table, origin="tiny.toml")


@pytest.mark.parametrize("validation", [[3, 5], [0, 1], [0, 9]])
def test_validation_sections_are_none_of_the_training_ones(table: Table, validation: list[int]) -> None:
    table["data"][0]["validation"] = validation
    with pytest.raises(ConfigError, match=rf"validation \[{validation[0]}, {validation[1]}\] overlaps the training"):
        parse_table(table, origin="tiny.toml")
    table["data"][0]["validation"] = [4, 6]
    assert parse_table(table, origin="tiny.toml").data[0].validation == (4, 6)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("colour", "red", "colour is not a key that is known here; remove it, or correct it"),
        ("optimiser.nesterov", True, "optimiser.nesterov is not a key that is known here"),
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
        ("model.symmetry", "d8", "model.symmetry is 'd8': Input should be 'plain', 'paper', 'd4' or 'custom'"),
        ("model.angles", 3, "model.angles is 3: Input should be 2, 4 or 8"),
        ("model.stem", 12, "model.stem is 12; a width must be a positive multiple of 8, the order of D4"),
        ("model.blocks", [1, 1], "model.blocks.2 is missing; it has no default"),
        ("data", [], "data is []: "),
        ("data.0.sections", [4, 4], "data.0.sections is [4, 4]: sections are [first, stop) with 0 <= first < stop"),
        ("data.0.sections", [-1, 4], "data.0.sections is [-1, 4]: sections are [first, stop)"),
        ("data.0.sections", ["0", 4], "data.0.sections.0 is '0': Input should be a valid integer"),
        ("data.0.voxel_size_nm", [50.0, 0.0, 4.6], "data.0.voxel_size_nm.1 is 0.0: Input should be greater than 0"),
        ("precision", "float16", "precision is 'float16': Input should be 'float32', 'bfloat16' or 'auto'"),
        ("seed", -1, "seed is -1: Input should be greater than or equal to 0"),
        ("name", "../d4", "name is '../d4': String should match pattern"),
        ("loss", {"boundary_weight": 0.0}, "loss.boundary_weight is 0.0: Input should be greater than 0"),
        ("loss", {"dice": -1.0}, "loss.dice is -1.0: Input should be greater than or equal to 0"),
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
        refuse_seen(config, config.data[0], sections, origin="run r")
    for sections, trained, name in (((3, 5), [0, 4], "synthetic"), ((9, 12), [8, 10], "more")):
        with pytest.raises(ConfigError) as refused:
            refuse_seen(config, config.data[0], sections, origin="run r")
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
