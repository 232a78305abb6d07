"""Metrics against scikit-learn, and their influences against a jackknife."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from vicinal.errors import UserError
from vicinal.training.metrics import (
    DEFAULT_METRICS,
    METRICS,
    TASKS,
    check_metrics,
    constant_value,
    least_difference,
    metric_text,
    metric_values,
    primary_metric,
)

N = 240


def classes_of(count, seed=0, n=N):
    """Return logits and classes, of which the later ones are rarer."""
    chance = np.random.default_rng(seed)
    share = np.arange(count, 0, -1) / np.arange(1, count + 1).sum()
    classes = chance.choice(count, n, p=share)
    logits = chance.normal(size=(n, count)) + 1.5 * np.eye(count)[classes]
    return logits, classes


def labels_of(count=4, seed=0, n=N):
    chance = np.random.default_rng(seed)
    labels = (chance.random((n, count)) < np.linspace(0.1, 0.6, count)).astype(np.float32)
    return chance.normal(size=(n, count)) + 2 * labels - 1, labels


def reals_of(count=3, seed=0):
    chance = np.random.default_rng(seed)
    targets = chance.normal(5, 2, (N, count)) * [1, 10, 0.1][:count]
    return targets + chance.normal(0, 0.5, (N, count)) * [1, 10, 0.1][:count], targets


LARGE = {
    "classification": classes_of(6, n=2000),
    "multi-label": labels_of(n=2000),
    "regression": reals_of(),
}
DATA = {"classification": classes_of(7), "multi-label": labels_of(), "regression": reals_of()}


def of_each_class(score):
    """Return the mean of a score over one-against-rest problems."""

    def mean(p, y):
        return np.mean([score(y == k, p[:, k]) for k in range(p.shape[1])])

    return mean


def of_columns(score):
    return lambda p, y: np.mean([score(y[:, k], p[:, k]) for k in range(y.shape[1])])


ORACLES = {
    ("accuracy", "classification"): lambda p, y: sk.accuracy_score(y, p.argmax(1)),
    ("balanced-accuracy", "classification"): lambda p, y: sk.balanced_accuracy_score(
        y, p.argmax(1)
    ),
    ("macro-f1", "classification"): lambda p, y: sk.f1_score(y, p.argmax(1), average="macro"),
    ("auroc", "classification"): lambda p, y: sk.roc_auc_score(
        y, p, multi_class="ovr", average="macro"
    ),
    ("average-precision", "classification"): of_each_class(sk.average_precision_score),
    ("top-5", "classification"): lambda p, y: sk.top_k_accuracy_score(y, p, k=5),
    ("nll", "classification"): lambda p, y: sk.log_loss(y, p),
    ("brier", "classification"): lambda p, y: sum(
        sk.brier_score_loss(y == k, p[:, k]) for k in range(p.shape[1])
    ),
    ("ece", "classification"): lambda p, y: np.mean(  # N is a multiple of 15
        np.abs(
            np.subtract(
                *calibration_curve(p.argmax(1) == y, p.max(1), n_bins=15, strategy="quantile")
            )
        )
    ),
    ("accuracy", "multi-label"): lambda p, y: 1 - sk.hamming_loss(y, p > 0.5),
    ("macro-f1", "multi-label"): lambda p, y: sk.f1_score(y, p > 0.5, average="macro"),
    ("auroc", "multi-label"): lambda p, y: sk.roc_auc_score(y, p, average="macro"),
    ("average-precision", "multi-label"): lambda p, y: sk.average_precision_score(
        y, p, average="macro"
    ),
    ("nll", "multi-label"): of_columns(sk.log_loss),
    ("brier", "multi-label"): of_columns(sk.brier_score_loss),
    ("rmse", "regression"): lambda p, y: np.mean(
        sk.root_mean_squared_error(y, p, multioutput="raw_values")
    ),
    ("mae", "regression"): lambda p, y: sk.mean_absolute_error(y, p),
    ("r2", "regression"): lambda p, y: sk.r2_score(y, p),
}


def predicted(outputs, task):
    """Return outputs as scikit-learn expects them."""
    if task == "regression":
        return outputs
    return expit(outputs) if task == "multi-label" else softmax(outputs, 1)


def test_every_metric_of_every_task_has_an_oracle():
    assert ORACLES.keys() == {(name, task) for name, one in METRICS.items() for task in one.tasks}


@pytest.mark.parametrize(("name", "task"), ORACLES)
def test_the_mean_of_the_values_is_the_metric_of_another_library(name, task):
    outputs, targets = DATA[task]
    values = metric_values(name, outputs, targets, task)
    assert (values.shape, values.dtype) == ((N,), np.float64)
    expected = ORACLES[name, task](predicted(outputs, task), targets)
    assert values.mean() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "task"), ORACLES)
def test_the_values_are_those_of_a_jackknife(name, task):
    # Of many examples, since the jackknife of a class of few is wider by n / (n - 1).
    outputs, targets = LARGE[task]
    count = len(outputs)
    values = metric_values(name, outputs, targets, task)
    some = np.random.default_rng(1).choice(count, 150, replace=False)
    without = []
    for k in some:
        kept = np.arange(count) != k
        without.append(metric_values(name, outputs[kept], targets[kept], task).mean())
    jackknife = count * values.mean() - (count - 1) * np.array(without)
    assert np.corrcoef(values[some], jackknife)[0, 1] > 0.998
    assert values[some].std() == pytest.approx(jackknife.std(), rel=0.03)


@pytest.mark.parametrize("levels", [2, 3, 10])
def test_tied_scores_count_half_in_auroc_and_share_their_precision(levels):
    chance = np.random.default_rng(0)
    y = chance.integers(0, 2, N)
    margin = np.round(levels * expit(chance.normal(size=N) + y)) / levels
    logits = np.stack([-margin, margin], 1)
    values = metric_values("auroc", logits, y, "classification")
    assert values.mean() == pytest.approx(sk.roc_auc_score(y, margin))
    rarer = int(y.mean() <= 0.55)
    values = metric_values("average-precision", logits, y, "classification")
    score = margin if rarer else -margin
    assert values.mean() == pytest.approx(sk.average_precision_score(y == rarer, score))


def test_the_auroc_of_constant_outputs_is_one_half():
    _, y = classes_of(3)
    assert metric_values("auroc", np.zeros((N, 3)), y, "classification").mean() == 0.5


def test_auroc_has_the_variance_of_delong():
    logits, y = classes_of(2)
    margin = logits[:, 1] - logits[:, 0]
    ours, others = margin[y == 1], margin[y == 0]
    above = (ours[:, None] > others) + 0.5 * (ours[:, None] == others)
    expected = above.mean(1).var(ddof=1) / len(ours) + above.mean(0).var(ddof=1) / len(others)
    values = metric_values("auroc", logits, y, "classification")
    assert values.var(ddof=1) / N == pytest.approx(expected, rel=0.02)


def test_of_equal_logits_the_first_classes_are_predicted():
    zeros, y = np.zeros((7, 7)), np.arange(7)
    assert metric_values("accuracy", zeros, y, "classification").tolist() == [1] + [0] * 6
    assert metric_values("top-5", zeros, y, "classification").tolist() == [1] * 5 + [0] * 2


def test_a_class_without_test_examples_is_left_out_of_averages():
    logits, y = classes_of(4)
    kept = y != 2
    logits, y = logits[kept], y[kept]
    p, present = softmax(logits, 1), [0, 1, 3]
    expected = {
        "balanced-accuracy": np.mean([(p.argmax(1) == k)[y == k].mean() for k in present]),
        "auroc": np.mean([sk.roc_auc_score(y == k, p[:, k]) for k in present]),
        "average-precision": np.mean(
            [sk.average_precision_score(y == k, p[:, k]) for k in present]
        ),
        "macro-f1": sk.f1_score(y, p.argmax(1), average="macro", labels=present),
    }
    for name, value in expected.items():
        found = metric_values(name, logits, y, "classification")
        assert found.mean() == pytest.approx(value), name
        assert np.isfinite(found).all()


def test_metrics_are_nan_where_they_are_undefined():
    zeros = np.zeros(5, np.int64)
    logits = np.random.default_rng(0).normal(size=(5, 2))
    for name in ("auroc", "average-precision"):
        assert np.isnan(metric_values(name, logits, zeros, "classification")).all()
        assert np.isnan(metric_values(name, logits, np.ones((5, 2)), "multi-label")).all()
    assert np.isnan(metric_values("r2", logits, np.ones((5, 2)), "regression")).all()


def test_perfect_outputs_have_the_best_values_and_no_division_by_zero():
    _, y = classes_of(7)
    perfect = 50 * np.eye(7)[y]
    for name, metric in METRICS.items():
        if "classification" in metric.tasks:
            found = metric_values(name, perfect, y, "classification").mean()
            assert found == pytest.approx(1 if metric.higher else 0, abs=1e-12), name
    outputs, _ = reals_of()
    assert [
        metric_values(n, outputs, outputs, "regression").mean() for n in ("rmse", "mae", "r2")
    ] == [0, 0, 1]


def test_large_logits_and_float32_overflow_nothing():
    logits = np.array([[3e38, -3e38], [3e38, -3e38]], np.float32)
    found = metric_values("nll", logits / 10, np.array([0, 1]), "classification")
    assert found[0] == 0
    assert np.isfinite(found).all()


def test_one_column_of_real_targets_has_any_shape():
    outputs, targets = reals_of(1)
    for name in ("rmse", "mae", "r2"):
        flat = metric_values(name, outputs, targets[:, 0], "regression")
        assert flat.tolist() == metric_values(name, outputs, targets, "regression").tolist()


def test_the_constant_predictor_has_the_mean_or_for_absolute_errors_the_median():
    _, targets = reals_of(1)
    constant = {"mean": targets.mean(0), "median": np.median(targets, 0)}
    values = {n: constant_value(n, constant, targets, "regression") for n in ("rmse", "mae", "r2")}
    assert values["rmse"] == pytest.approx(targets.std())
    assert values["mae"] == pytest.approx(np.abs(targets - np.median(targets)).mean())
    assert values["r2"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "task", "outputs"),
    [
        ("rmse", "classification", 3),
        ("accuracy", "regression", 1),
        ("ece", "multi-label", 3),
        ("top-5", "classification", 5),
    ],
)
def test_a_metric_that_does_not_fit_the_task_is_an_error_with_those_that_do(name, task, outputs):
    with pytest.raises(UserError, match=f"expected a metric of {task}.*got {name}. Choose one of"):
        check_metrics([name], task, outputs)
    check_metrics(["top-5"], "classification", 6)


def test_every_task_has_default_metrics_that_fit_it():
    for task in TASKS:
        check_metrics(DEFAULT_METRICS[task], task, 3)
        assert primary_metric((), task) == DEFAULT_METRICS[task][0]
    assert primary_metric(("nll", "accuracy"), "classification") == "nll"


def test_a_metric_is_shown_with_its_unit():
    assert metric_text("auroc", 0.5) == "AUROC 50.00%"
    assert metric_text("nll", 2.0) == "NLL 2"


@pytest.mark.parametrize("name", ["auroc", "average-precision"])
def test_the_scale_of_confident_logits_does_not_change_a_ranking(name):
    chance = np.random.default_rng(0)
    classes = np.arange(60) % 2
    logits = chance.normal(size=(60, 2)) + 2 * np.eye(2)[classes]
    expected = metric_values(name, logits, classes, "classification")
    confident = metric_values(name, 100 * logits, classes, "classification")  # p rounds to 1
    assert np.allclose(confident, expected)
    assert 0.8 < expected.mean() < 1


def test_three_test_examples_of_the_smallest_class_bound_what_is_known():
    classes = np.array([0] * 60 + [1] * 30 + [2] * 10)
    known = {
        name: least_difference(name, classes, "classification")
        for name in ("accuracy", "balanced-accuracy", "macro-f1", "auroc", "nll")
    }
    assert known == pytest.approx(
        {"accuracy": 0.03, "balanced-accuracy": 0.1, "macro-f1": 0.1, "auroc": 0.1, "nll": 0}
    )
    labels = np.zeros((50, 2))
    labels[:5, 0] = labels[:20, 1] = 1
    assert least_difference("average-precision", labels, "multi-label") == pytest.approx(0.3)
    assert least_difference("auroc", labels[:, 0].astype(int), "classification") == 0.6
    alone = np.array([0] * 60 + [1])  # recall of a class is at most 1
    assert least_difference("balanced-accuracy", alone, "classification") == 0.5
    assert least_difference("auroc", np.zeros(9, int), "classification") == 1


def test_a_label_without_positives_is_left_out_of_f1_whatever_is_predicted():
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    for second in (-1.0, 1.0):
        outputs = np.array([[1.0, second], [-1.0, -1.0], [1.0, -1.0]])
        assert metric_values("macro-f1", outputs, labels, "multi-label").mean() == 1
