"""What outputs say beyond metrics, against slow loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from vicinal.studies.predictions import confusion, disagreements, reliability, successes
from vicinal.training.trial_result import Outputs


def seeds_of(count=3, n=60, classes=4):
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, n)
    return [Outputs(2 * random.normal(size=(n, classes)), None, targets) for _ in range(count)]


def test_the_confusion_matrix_is_the_mean_of_those_of_scikit_learn():
    seeds = seeds_of()
    each = [
        confusion_matrix(one.targets, one.last.argmax(1), labels=range(4), normalize="true")
        for one in seeds
    ]
    np.testing.assert_allclose(confusion(seeds), np.mean(each, axis=0))


def test_a_class_without_test_examples_has_no_confusions():
    one = Outputs(np.eye(3)[[0, 1]], None, np.array([0, 1]))
    assert np.isnan(confusion([one])[2]).all()
    assert confusion([one])[:2].tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("task", ["classification", "multi-label"])
def test_the_reliability_diagram_equals_a_slow_loop(task):
    seeds = seeds_of()
    if task == "multi-label":
        seeds = [one._replace(targets=np.eye(4)[one.targets]) for one in seeds]
    pairs = []
    for one in seeds:
        for row, true in zip(one.last, one.targets, strict=True):
            if task == "classification":
                chances = np.exp(row) / np.exp(row).sum()
                pairs.append((chances.max(), chances.argmax() == true))
            else:
                pairs += zip(1 / (1 + np.exp(-row)), true > 0, strict=True)
    # The number of pairs is a multiple of 15.
    bins = np.array(sorted(pairs), dtype=float).reshape(15, -1, 2)
    given, right, count = reliability(seeds, task)
    np.testing.assert_allclose(given, bins[..., 0].mean(1))
    np.testing.assert_allclose(right, bins[..., 1].mean(1))
    assert count.tolist() == [len(pairs) / 15] * 15


def test_the_examples_with_the_largest_differences_are_chosen_in_both_directions():
    targets = np.array([0, 0, 0, 1])

    def logits(*right):  # the probability of the true class of each example
        pairs = [(p, 1 - p) if true == 0 else (1 - p, p) for p, true in zip(right, targets)]  # noqa: B905
        return Outputs(np.log(pairs), None, targets)

    baseline = [logits(0.5, 0.5, 0.9, 0.5), logits(0.7, 0.5, 0.7, 0.5)]
    arm = [logits(0.7, 0.4, 0.8, 0.8)] * 2
    change = successes(arm, "classification") - successes(baseline, "classification")
    assert change == pytest.approx([0.1, -0.1, 0, 0.3])
    better, worse = disagreements(baseline, arm, "classification")
    assert better[:2] == [3, 0]
    assert worse[0] == 1
    assert 0 not in worse


def test_of_real_values_and_labels_the_closer_predictions_are_better():
    real = [Outputs(np.array([[1.0, 2.0]]), None, np.array([[2.0, 4.0]]))]
    assert successes(real, "regression").tolist() == [-1.5]
    labels = [Outputs(np.zeros((1, 2)), None, np.array([[0.0, 1.0]]))]
    assert successes(labels, "multi-label").tolist() == [0.5]
