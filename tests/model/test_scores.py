import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score, roc_curve

from emboundary.model.scores import average_precision, best_f1, curve, roc_auc

Sample = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=["continuous", "ties", "uint8", "perfect", "worthless"])
def sample(request: pytest.FixtureRequest) -> Sample:
    rng = np.random.default_rng(1)
    truth = rng.random((30, 40)) < 0.2
    score = rng.random(truth.shape) + 0.4 * truth
    match request.param:
        case "ties":
            score = np.round(score, 1)
        case "uint8":
            score = np.round(score / score.max() * 255).astype(np.uint8)
        case "perfect":
            score = truth.astype(float)
        case "worthless":
            score = np.full(truth.shape, 0.5)
    return truth, score


def test_roc_auc_is_that_of_scikit_learn(sample: Sample) -> None:
    truth, score = sample
    assert roc_auc(curve(truth, score)) == pytest.approx(roc_auc_score(truth.ravel(), score.ravel()), abs=1e-12)


def test_average_precision_is_that_of_scikit_learn(sample: Sample) -> None:
    truth, score = sample
    expected = average_precision_score(truth.ravel(), score.ravel())
    assert average_precision(curve(truth, score)) == pytest.approx(expected, abs=1e-12)


def test_curves_are_those_of_scikit_learn(sample: Sample) -> None:
    truth, score = sample
    ours = curve(truth, score)
    precision, recall, threshold = precision_recall_curve(truth.ravel(), score.ravel())
    np.testing.assert_allclose(ours.threshold, threshold[::-1])
    np.testing.assert_allclose(ours.precision, precision[-2::-1])
    np.testing.assert_allclose(ours.recall, recall[-2::-1])
    false_positive_rate, _, _ = roc_curve(truth.ravel(), score.ravel(), drop_intermediate=False)
    np.testing.assert_allclose(ours.false_positive_rate, false_positive_rate[1:])


def test_best_f1_is_the_best_of_all_thresholds(sample: Sample) -> None:
    truth, score = sample
    f1, threshold = best_f1(curve(truth, score))
    assert f1 == pytest.approx(f1_score(truth.ravel(), score.ravel() >= threshold))
    assert f1 >= max(f1_score(truth.ravel(), score.ravel() >= t) for t in np.linspace(0.01, score.max(), 40)) - 1e-12


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^target has 3 pixels and probability 2; they must be the same$"):
        curve([True, False, True], [0.1, 0.2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_cannot_be_ranked_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        curve([True, False], [0.5, bad])


@pytest.mark.parametrize(("truth", "count"), [([True, True], 2), ([False, False], 0)])
def test_a_target_of_one_class_is_refused(truth: list[bool], count: int) -> None:
    with pytest.raises(ValueError, match=rf"^target has {count} boundary pixels of 2; both classes must occur$"):
        curve(truth, [0.1, 0.9])
