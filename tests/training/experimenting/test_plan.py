from __future__ import annotations

from pathlib import Path

import pytest

from emboundary.training.classifying.config import ClassifierConfig
from emboundary.training.config import TrainConfig
from emboundary.training.experimenting.file import EXPERIMENTS, find_experiment
from emboundary.training.experimenting.plan import load_experiment
from emboundary.training.strict import ConfigError

HEAD = """
question = "Which?"
base = "base.toml"
sections = [4, 6]
"""

SHIPPED = sorted(EXPERIMENTS.glob("*.toml"))


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    (tmp_path / "base.toml").write_text((trained.parent / "tiny.toml").read_text())
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_experiments_compare_variants_on_the_same_sections_after_as_much_training(path: Path) -> None:
    loaded = load_experiment(path)
    assert loaded.question.endswith("?")
    assert len(loaded.variants) > 1
    steps = {v.config.optimiser.steps for v in loaded.variants}
    pixels = [v.config.optimiser.steps * _pixels(v.config) for v in loaded.variants]
    assert len(steps) == 1 or max(pixels) <= 1.01 * min(pixels)
    assert len({v.scored for v in loaded.variants}) == 1
    for volume, _ in loaded.variants[0].scored:
        assert volume in loaded.variants[0].config.data


def _pixels(config: TrainConfig | ClassifierConfig) -> int:
    """Of a step; images for classifiers."""
    return config.sampling.pixels if isinstance(config, TrainConfig) else config.data.batch


def test_variants_change_the_base_by_dotted_keys(folder: Path) -> None:
    text = HEAD + (
        'set = { "optimiser.steps" = 9, "augment.noise" = 0.5 }\n'
        '[[variant]]\nlabel = "one"\nset = {}\n'
        '[[variant]]\nlabel = "two: more"\n'
        'set = { "model.symmetry" = "plain", "data.0.sections" = [1, 3], "optimiser.steps" = 4, seed = 2 }\n'
    )
    loaded = load_experiment(write(folder, text))
    one, two = loaded.variants
    assert (loaded.question, one.scored[0][1]) == ("Which?", (4, 6))
    assert [volume.name for volume, _ in two.scored] == ["synthetic"]
    assert ((one.label, one.folder), (two.label, two.folder)) == (("one", "one"), ("two: more", "two--more"))
    assert (one.config.optimiser.steps, two.config.optimiser.steps) == (9, 4), "the variant's own goes last"
    assert one.config.augment.noise == two.config.augment.noise == 0.5
    assert (two.config.model.symmetry, two.config.data[0].sections, two.config.seed) == ("plain", (1, 3), 2)
    assert (one.config.model.symmetry, one.config.data[0].sections, one.config.seed) == ("d4", (0, 4), 0)


VARIANT = '[[variant]]\nlabel = "one"\nset = {{ {} }}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD.replace("[4, 6]", "[3, 6]") + VARIANT.format(""),
            ", variant 'one': scored sections [3, 6] overlap the training sections [0, 4] of synthetic; give sections",
        ),
        (
            HEAD + VARIANT.format('"data.0.sections" = [5, 6]'),
            ", variant 'one': scored sections [4, 6] overlap the training sections [5, 6] of synthetic; give sections",
        ),
        (HEAD.replace("[4, 6]", "[6, 4]") + VARIANT.format(""), ": sections is [6, 4]: sections are [first, stop)"),
        (HEAD + 'colour = "red"\n' + VARIANT.format(""), ": colour is not a key that is known here; remove it"),
        (HEAD, ": variant is missing; it has no default"),
        (HEAD + '[[variant]]\nlabel = "one"\n', ": variant.0.set is missing; it has no default"),
        (
            HEAD + VARIANT.format('"model.depth" = 3'),
            ", variant 'one': model.depth is not a key that is known here; remove it, or correct it",
        ),
        (
            HEAD + VARIANT.format('"modle.stem" = 8'),
            ", variant 'one': modle is not a key that is known here; remove it, or correct it",
        ),
        (HEAD + VARIANT.format('"data.1.name" = "x"'), ", variant 'one': data.1.name leads nowhere"),
        (HEAD + VARIANT.format('"data.first.name" = "x"'), ", variant 'one': data.first.name leads nowhere"),
        (HEAD + VARIANT.format('"data.0" = "x"'), ", variant 'one': data.0 leads nowhere"),
        (HEAD + VARIANT.format('"name.more" = 1'), ", variant 'one': name.more leads nowhere"),
        (HEAD + VARIANT.format('"optimiser.steps" = 0'), ", variant 'one': optimiser.steps is 0: Input should be"),
        (
            HEAD + VARIANT.format("") + VARIANT.format("").replace("one", "one") + VARIANT.format("seed = 1"),
            ": 3 variants have the folder one; labels must differ in letters or digits",
        ),
    ],
)
def test_an_experiment_that_breaks_a_rule_is_refused(folder: Path, text: str, message: str) -> None:
    path = write(folder, text)
    with pytest.raises(ConfigError) as refused:
        load_experiment(path)
    assert str(refused.value).startswith(f"experiment {path}{message}") or f"config experiment {path}{message}" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)


def test_a_file_or_a_base_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file or directory"):
        load_experiment(folder / "none.toml")
    path = write(folder, HEAD.replace("base.toml", "other.toml") + VARIANT.format(""))
    with pytest.raises(ConfigError, match=r"other\.toml cannot be read: No such file or directory"):
        load_experiment(path)
    with pytest.raises(ConfigError, match=r"experiment\.toml is not TOML"):
        load_experiment(write(folder, "question"))


def test_without_sections_every_volume_is_scored_on_its_validation_sections(folder: Path) -> None:
    text = HEAD.replace("sections = [4, 6]\n", "eight = false\n") + VARIANT.format('"data.0.validation" = [5, 6]')
    loaded = load_experiment(write(folder, text))
    assert not loaded.eight
    assert [(volume.name, sections) for volume, sections in loaded.variants[0].scored] == [("synthetic", (5, 6))]
    with pytest.raises(ConfigError, match="sections is missing, and no volume has validation sections; give one"):
        load_experiment(write(folder, HEAD.replace("sections = [4, 6]\n", "") + VARIANT.format("")))


BUDGETS = """
[budget.small]
note = "Little."
set = { "optimiser.steps" = 3, "augment.noise" = 0.7 }
seeds = [4, 5]
variants = ["one"]
"""


def test_a_budget_changes_the_base_before_the_variant_does(folder: Path) -> None:
    text = HEAD + BUDGETS + VARIANT.format('"augment.noise" = 0.9') + 'budget.small = { "model.a" = 16 }\n'
    path = write(folder, text + VARIANT.format("").replace("one", "two"))
    first, second = load_experiment(path, "small").variants
    assert (first.label, second.label, first.folder, second.folder) == ("one", "one", "one-seed4", "one-seed5")
    assert (first.config.optimiser.steps, first.config.seed, second.config.seed) == (3, 4, 5)
    assert isinstance(first.config, TrainConfig)
    assert (first.config.augment.noise, first.config.model.a) == (0.9, 16)
    assert [v.folder for v in load_experiment(path).variants] == ["one", "two"]
    assert [v.label for v in load_experiment(path, only=["two"]).variants] == ["two"]


@pytest.mark.parametrize(
    ("text", "budget", "only", "message"),
    [
        (BUDGETS + VARIANT.format(""), "huge", (), "budget is 'huge'; experiment {} has small"),
        (VARIANT.format(""), "small", (), "budget is 'small'; experiment {} has none, so leave --budget out"),
        (BUDGETS + VARIANT.format(""), "small", ("two",), "experiment {} has no variant 'two'; it has ['one']"),
        (
            BUDGETS + VARIANT.format("") + VARIANT.format("").replace("one", "two"),
            "small",
            ("two",),
            "variant 'two' is not in this budget of experiment {}; it has ('one',)",
        ),
        ('order = ["none"]\n' + VARIANT.format(""), None, (), "experiment {} has no variant 'none'; it has ['one']"),
        (
            VARIANT.format("") + "budget.small = {}\n",
            None,
            (),
            "experiment {}, variant 'one': there is no budget 'small'",
        ),
    ],
)
def test_a_budget_or_a_variant_that_is_not_there_is_refused(
    folder: Path, text: str, budget: str | None, only: tuple[str, ...], message: str
) -> None:
    path = write(folder, HEAD + text)
    with pytest.raises(ConfigError) as refused:
        load_experiment(path, budget, only)
    assert str(refused.value).startswith(message.format(path))


def test_an_experiment_is_found_by_its_name_or_its_path(folder: Path) -> None:
    assert find_experiment("rotated-mnist") == EXPERIMENTS / "rotated-mnist.toml"
    assert find_experiment(str(folder / "none.toml")) == folder / "none.toml"
    with pytest.raises(
        ConfigError, match=r"experiment 'rotated' does not exist; give the path of a TOML file, or one of"
    ):
        find_experiment("rotated")


def stand(folder: Path, text: str) -> Path:
    """An experiment on top of another, in a folder beside it."""
    write(folder, HEAD + BUDGETS + VARIANT.format('"augment.noise" = 0.9') + 'published = { "AUC" = 1.0 }\n')
    (folder / "beside").mkdir()
    path = folder / "beside" / "other.toml"
    path.write_text('like = "../experiment.toml"\n' + text)
    return path


def test_an_experiment_may_stand_on_another(folder: Path) -> None:
    changes = 'question = "What else?"\n[set]\nseed = 7\n[budget.small]\nnote = "Less."\nseeds = [6]\n'
    two = '[[variant]]\nlabel = "two"\nset = {}\n'
    path = stand(folder, changes + VARIANT.format('"augment.noise" = 0.8') + two)
    assert load_experiment(path).question == "What else?"
    first, second = load_experiment(path).variants
    assert (first.label, second.label, first.config.seed, first.published) == ("one", "two", 7, {"AUC": 1.0})
    assert isinstance(first.config, TrainConfig)
    assert first.config.augment.noise == 0.8
    (small,) = load_experiment(path, "small").variants
    assert (small.config.seed, small.config.optimiser.steps, small.scored) == (6, 3, first.scored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[variant]]\nset = { "seed" = 7 }\n', "variant.0.label is missing; it has no default"),
        ("variant = 5\n", "variant is 5: "),
        ("variant = [5]\n", "variant.0 is 5: "),
        ("[variant]\none = 5\n", "variant is {'one': 5}: "),
    ],
)
def test_variants_of_an_experiment_on_another_are_checked_too(folder: Path, text: str, message: str) -> None:
    path = stand(folder, text)
    with pytest.raises(ConfigError) as refused:
        load_experiment(path)
    assert str(refused.value).startswith(f"experiment {path}: {message}")


def test_an_experiment_that_stands_on_itself_or_on_no_file_is_refused(folder: Path) -> None:
    path = stand(folder, "")
    path.write_text('like = "other.toml"\n')
    with pytest.raises(ConfigError, match="like leads back to the file itself; remove one of the two"):
        load_experiment(path)
    path.write_text("like = 5\n")
    with pytest.raises(ConfigError, match="like is 5; it must be the path of a file, relative to this one"):
        load_experiment(path)
