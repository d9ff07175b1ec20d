from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emboundary.model.lipschitz_penalty import LipschitzPenalty
from emboundary.training.classifying.config import ClassifierConfig, load_classifier_config
from emboundary.training.classifying.runs import SCORES, fit_classifier
from emboundary.training.classifying.scoring import score_images
from emboundary.training.classifying.task import Classification
from emboundary.training.images.sets import ImageSet
from emboundary.training.learning.loop import learn
from emboundary.training.learning.runs import RunError
from emboundary.training.strict import ConfigError

MakeClassifier = Callable[..., ClassifierConfig]
CPU = torch.device("cpu")


def test_a_classifier_learns_what_can_be_learned(
    make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path
) -> None:
    config = make_classifier({"optimiser.steps": 40, "network.dropout": 0.0})
    run = fit_classifier(config, images, tmp_path, device=CPU)
    assert [note["step"] for note in run.scores] == [13, 27, 40]
    assert (run.scores[-1]["train_error"], run.scores[-1]["test_error"]) == (0.0, 0.0)
    assert run.scores[-1]["test_loss"] < 0.1
    assert run.final_loss < 0.6
    assert not run.network.training


def test_a_run_leaves_what_it_says(make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path) -> None:
    config = make_classifier()
    run = fit_classifier(config, images, tmp_path, device=CPU)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "scores.json",
        "weights.safetensors",
    ]
    assert load_classifier_config(tmp_path / "config.json") == config
    assert json.loads((tmp_path / SCORES).read_text()) == run.scores
    stored = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in run.network.state_dict().items())
    last = run.scores[-1]
    scores = score_images(run.network, images, images.test_images, images.test_labels)
    assert (scores.error, scores.loss) == (last["test_error"], pytest.approx(last["test_loss"]))


def test_a_finished_run_is_taken_up_as_it_is(make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path) -> None:
    first = fit_classifier(make_classifier(), images, tmp_path, device=CPU)
    steps: list[int] = []
    again = fit_classifier(make_classifier(), images, tmp_path, device=CPU, report=lambda r: steps.append(r.step))
    assert (steps, again.scores, again.final_loss) == ([], first.scores, first.final_loss)


def test_a_resumed_classifier_ends_with_the_same_bits(
    make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path
) -> None:
    task = Classification(make_classifier(), images)
    straight = learn(task, tmp_path / "straight", device=CPU)
    learn(task, tmp_path / "resumed", device=CPU, stop_after=3)
    torch.rand(3)  # what others draw in between does not matter
    resumed = learn(task, tmp_path / "resumed", device=CPU)
    assert straight.losses == resumed.losses
    pairs = zip(straight.network.state_dict().values(), resumed.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_training_leaves_the_callers_random_numbers_alone(
    make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    learn(Classification(make_classifier(), images), tmp_path, device=CPU)
    assert torch.equal(torch.rand(4), expected)


def test_dropout_differs_from_step_to_step(make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path) -> None:
    changes = {"optimiser.learning_rate": 1e-12, "data.batch": 20, "network.dropout": 0.5}
    losses = learn(Classification(make_classifier(changes), images), tmp_path, device=CPU).losses
    assert len(set(losses)) == len(losses)


def test_a_folder_of_another_run_is_refused(make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path) -> None:
    fit_classifier(make_classifier(), images, tmp_path, device=CPU)
    with pytest.raises(RunError, match=r"holds a run of another configuration; give another --runs"):
        fit_classifier(make_classifier({"seed": 1}), images, tmp_path, device=CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": 0}, "evaluations is 0: Input should be greater than or equal to 1"),
        ({"network.kind": "vgg"}, "network is "),
        ({"network.colour": "red"}, "network.pooling-cnn.colour is not a key that is known here"),
        ({"data.dataset": "imagenet"}, "data.dataset is 'imagenet': Input should be 'mnist', "),
        ({"optimiser.schedule": "steps"}, "optimiser is "),
        ({"optimiser.algorithm": "lbfgs"}, "optimiser.algorithm is 'lbfgs': Input should be 'adamw' or 'sgd'"),
    ],
)
def test_a_key_that_breaks_a_rule_is_named(
    make_classifier: MakeClassifier, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make_classifier(changes)
    assert f"config of a test: {message}" in str(refused.value)


def test_the_penalty_keeps_convolutions_from_expanding_and_resumes(
    make_classifier: MakeClassifier, images: ImageSet, tmp_path: Path
) -> None:
    changes = {"optimiser.steps": 30}
    free = learn(Classification(make_classifier(changes), images), tmp_path / "free", device=CPU)
    task = Classification(make_classifier({**changes, "lipschitz": 1.0}), images)
    held = learn(task, tmp_path / "held", device=CPU)
    assert free.learner.penalty is None
    assert isinstance(held.learner.penalty, LipschitzPenalty)
    expansions = [LipschitzPenalty(state.network, iterations=20) for state in (free, held)]
    norms = [sum(p.norms().values()) for p in expansions if p()]
    assert norms[1] < 0.8 * norms[0]
    learn(task, tmp_path / "resumed", device=CPU, stop_after=11)
    assert learn(task, tmp_path / "resumed", device=CPU).losses == held.losses
