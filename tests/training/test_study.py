from __future__ import annotations

from pathlib import Path

import pytest

from emboundary.training import study as study_module
from emboundary.training.strict import ConfigError
from emboundary.training.study import load_study

SHIPPED = sorted((Path(study_module.__file__).parent / "studies").glob("*.toml"))

BASE = """
base = "tiny.toml"
[[data]]
name = "a"
raw = "raw.tif"
membranes = "membranes.tif"
sections = [0, 4]
validation = [4, 6]
voxel_size_nm = [50.0, 4.6, 4.6]
citation = "made up"
[[data]]
name = "b"
raw = "raw-b.tif"
membranes = "membranes-b.tif"
sections = [1, 6]
voxel_size_nm = [50.0, 4.6, 4.6]
citation = "made up"
"""

SERIES = """
question = "Which?"
[models]
one = "one.toml"
two = "two.toml"
[[series]]
key = "all"
title = "All of it"
models = ["one", "two"]
seeds = [0, 3]
train = ["a", "b"]
score = ["a"]
[[series]]
key = "few"
title = "Few sections"
models = ["two"]
seeds = [1]
train = ["b"]
score = ["a"]
sections = 2
set = { "optimiser.steps" = 2, "loss.deep" = 0.5 }
"""


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    (tmp_path / "tiny.toml").write_text((trained.parent / "tiny.toml").read_text())
    (tmp_path / "one.toml").write_text(BASE)
    (tmp_path / "two.toml").write_text(BASE + '[model]\nsymmetry = "plain"\n')
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_every_series_is_its_models_with_its_seeds(folder: Path) -> None:
    study = load_study(written(folder, SERIES))
    names = ["all/one-0", "all/two-0", "all/one-3", "all/two-3", "few/two-1"]
    assert [str(run.folder) for run in study.runs] == names
    assert [run.config.seed for run in study.runs] == [0, 0, 3, 3, 1]
    assert [run.config.model.symmetry for run in study.runs] == ["d4", "plain", "d4", "plain", "plain"]
    assert [[v.name for v in run.config.data] for run in study.runs] == [["a", "b"]] * 4 + [["b"]]
    assert {run.scored[0].validation for run in study.runs} == {(4, 6)}
    assert study.of("few") == study.runs[4:]


def test_a_series_changes_what_it_sets_and_how_much_is_seen(folder: Path) -> None:
    *_, whole, few = load_study(written(folder, SERIES)).runs
    assert (whole.config.optimiser.steps, few.config.optimiser.steps) == (6, 2)
    assert (whole.config.loss.deep, few.config.loss.deep) == (0.0, 0.5)
    assert (whole.config.data[1].sections, few.config.data[0].sections) == ((1, 6), (1, 3))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('models = ["one", "two"]', 'models = ["three"]', "models are one, two; give one of them, or add it to"),
        ('train = ["a", "b"]', 'train = ["c"]', "the volumes are a, b; c is none of them"),
        ('score = ["a"]', 'score = ["b"]', "b has no validation sections to be scored on; give it some"),
        ("seeds = [0, 3]", "seeds = [0, 0]", "two runs have one folder; keys of series, and seeds in a series, must"),
        ('key = "few"', 'key = "../few"', "series.1.key is '../few': String should match pattern"),
        ("sections = 2", "sections = 0", "series.1.sections is 0: Input should be greater than or equal to 1"),
        ('one = "one.toml"', 'one = "none.toml"', "none.toml cannot be read: No such file or directory"),
        ('"optimiser.steps" = 2', '"optimiser.pace" = 2', "optimiser.pace is not a key that is known here"),
    ],
)
def test_a_study_that_breaks_a_rule_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_study(written(folder, SERIES.replace(old, new, 1)))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_compares_like_with_like(path: Path) -> None:
    study = load_study(path)
    assert study.question.endswith("?")
    for series in study.series:
        configs = [run.config for run in study.of(series.key)]
        for config in configs:
            assert config.model_dump(exclude={"name", "model", "seed", "start"}) == configs[0].model_dump(
                exclude={"name", "model", "seed", "start"}
            )


def test_a_study_says_of_which_volumes_crops_may_be_shown(folder: Path) -> None:
    assert load_study(written(folder, SERIES)).show is None
    assert load_study(written(folder, 'show = ["a"]\n' + SERIES)).show == ("a",)


def test_the_shipped_study_shows_only_what_may_be_copied() -> None:
    assert [load_study(path).show for path in SHIPPED] == [("vnc",)]
