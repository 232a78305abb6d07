import json

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from vicinal.data import DataSet, Split, load
from vicinal.errors import UserError
from vicinal.training.evaluation import Predictions
from vicinal.training.score import Confusion, score_network, scores_of
from vicinal.training.tensor_tree import read_tree, write_tree
from vicinal.training.trained_network import load_network

NAMES = tuple("abcdefg")
CONSTANT = {"mean": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]}


def some_answers(count=300):
    chance = torch.Generator().manual_seed(0)
    y = torch.randint(7, (count,), generator=chance)
    scores = torch.randn(count, 7, generator=chance) + 2 * torch.nn.functional.one_hot(y, 7)
    return Predictions(scores, y)


def scores(given, names=NAMES, predictor=CONSTANT, **settings):
    return scores_of(given, task="classification", predictor=predictor, classes=names, **settings)


def test_the_scores_are_those_of_scikit_learn():
    given = some_answers()
    found = scores(given, confusions=42)
    chances, y = given.outputs.double().softmax(1).numpy(), given.targets.numpy()
    assert found.examples == 300
    assert found.metrics["accuracy"] == accuracy_score(y, chances.argmax(1))
    assert found.constant["accuracy"] == pytest.approx((y == 1).mean())
    assert found.metrics["top-5"] == top_k_accuracy_score(y, chances, k=5)
    assert found.metrics["nll"] == pytest.approx(log_loss(y, chances))
    confused = confusion_matrix(y, chances.argmax(1))
    np.fill_diagonal(confused, 0)
    assert sum(pair.examples for pair in found.worst) == confused.sum()
    worst = found.worst[0]
    assert worst.examples == confused.max()
    for pair in found.worst:
        true, predicted = NAMES.index(pair.true), NAMES.index(pair.predicted)
        assert confused[true, predicted] == pair.examples


def test_the_calibration_error_is_that_of_a_slow_loop():
    given = some_answers()
    chances = given.outputs.double().softmax(1)
    sure, answered = chances.max(1)
    right = (answered == given.targets).double()
    order, n = sure.argsort(), len(sure)
    error = 0.0
    for k in range(15):
        # The examples whose middle lies in the k-th fifteenth of the sorted ones.
        inside = [int(order[i]) for i in range(n) if k / 15 <= (i + 0.5) / n < (k + 1) / 15]
        gap = (sure[inside].mean() - right[inside].mean()).abs()
        error += float(gap) * len(inside) / n
    assert scores(given).metrics["ece"] == pytest.approx(error)


def test_few_classes_have_no_top_5_and_a_network_without_errors_has_no_confusions():
    given = Predictions(torch.eye(3) * 9, torch.arange(3))
    found = scores(given, ("x", "y", "z"), {"mean": [0.0, 0.0, 0.0]})
    assert "top-5" not in found.metrics
    assert (found.worst, found.metrics["accuracy"]) == ([], 1)


def test_a_metric_that_is_undefined_for_these_examples_is_none():
    given = Predictions(torch.eye(3) * 9, torch.zeros(3, dtype=torch.int64))
    found = scores(given, ("x", "y", "z"), {"mean": [0.0, 0.0, 0.0]})
    assert (found.metrics["auroc"], found.constant["auroc"]) == (None, None)
    assert found.metrics["accuracy"] == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recipe_text):
    """Train a small network on digits, and return its folder."""
    from typer.testing import CliRunner

    from vicinal.cli import app

    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "small.toml"
    changes = {"training.tta": True, "training.precision": "bfloat16"}
    changes |= {"training.ema_decay": 0.5, "training.channels_last": True}
    changes |= {"data.augment": [{"name": "random-crop", "padding": 1, "size": 7}]}
    changes |= {"seed": 5, "data.test_fraction": 0.4}
    recipe.write_text(recipe_text(changes))
    words = ["train", str(recipe), "--arm", "mixup", "--out", str(folder / "run")]
    done = CliRunner().invoke(app, [*words, "--logger", "none"])
    assert done.exit_code == 0, done.stderr
    return folder / "run"


def test_a_saved_network_repeats_its_test_accuracy_exactly(trained, vicinal):
    done = vicinal("score", trained / "checkpoint.safetensors", "--data", "digits", "--json")
    assert done.exit_code == 0, done.stderr
    told, result = json.loads(done.stdout), json.loads((trained / "result.json").read_text())
    assert told["metrics"]["accuracy"] == result["test_metric"]
    assert told["metrics"]["nll"] == pytest.approx(result["test_loss"], rel=1e-12)
    assert told["examples"] == result["test_examples"] == 719


def test_data_without_a_test_split_are_split_as_for_the_training_by_default(trained, vicinal):
    def told(*words):
        path = trained / "checkpoint.safetensors"
        done = vicinal("score", path, "--data", "digits", "--json", *words)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    assert told() == told("--seed", 5, "--test-fraction", 0.4)
    assert told("--seed", 6)["metrics"] != told()["metrics"]
    assert told("--test-fraction", 0.3)["examples"] == 540


def test_scores_are_printed_as_tables(trained, vicinal):
    done = vicinal("score", trained / "checkpoint.safetensors", "--data", "digits")
    assert done.exit_code == 0
    for words in ("accuracy", "top-5 accuracy", "calibration error (ECE)", "constant", "predicted"):
        assert words in done.stdout


def test_classes_may_come_in_another_order(trained):
    digits = load("digits", test_fraction=0.3, seed=0)
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    place = torch.tensor([order.index(k) for k in range(10)])
    other = DataSet(
        tuple(digits.classes[k] for k in order),
        digits.train,
        Split(digits.test.inputs, place[digits.test.targets]),
        brightest=digits.brightest,
    )
    network = load_network(trained / "checkpoint.safetensors")
    assert score_network(network, other).metrics == score_network(network, digits).metrics


def refused(path, data, **settings):
    with pytest.raises(UserError) as caught:
        score_network(load_network(path), data, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_data_that_do_not_fit_the_checkpoint_raise(trained, tmp_path):
    path, digits = trained / "checkpoint.safetensors", load("digits", test_fraction=0.3, seed=0)
    iris = load("iris", test_fraction=0.3, seed=0)
    assert "such as 'setosa'" in refused(path, iris)
    assert "--split: expected one of train, test, got 'validation'" in refused(
        path, digits, split="validation"
    )
    larger = DataSet(
        digits.classes, digits.train, Split(torch.zeros(2, 3, 9, 9), torch.zeros(2).long())
    )
    assert "expected examples of shape (1, 7, 7), got (3, 7, 7)" in refused(path, larger)
    assert "there is no such checkpoint" in refused(tmp_path / "nothing.safetensors", digits)
    assert "expected a file, got a folder" in refused(trained, digits)
    assert "expected a trained network of this version" in refused(_state(tmp_path), digits)


def _state(folder):
    write_tree(folder / "state.safetensors", {"rows": [], "seconds": 0.0})
    return folder / "state.safetensors"


def test_a_truncated_checkpoint_or_one_with_code_raises_and_runs_nothing(trained, tmp_path):
    digits = load("digits", test_fraction=0.3, seed=0)
    whole = (trained / "checkpoint.safetensors").read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        assert "expected an undamaged checkpoint of vicinal" in refused(
            tmp_path / "cut.safetensors", digits
        )
    done = tmp_path / "done"

    class Code:
        def __reduce__(self):
            return (done.touch, ())

    torch.save({"weights": Code()}, tmp_path / "code.pt")
    assert "which can hold code" in refused(tmp_path / "code.pt", digits)
    assert not done.exists()


def test_a_checkpoint_of_another_network_names_the_first_difference(trained, tmp_path):
    tree = read_tree(trained / "checkpoint.safetensors")
    for name, value in MLP.items():
        put(tree, name, value)
    write_tree(tmp_path / "other.safetensors", tree)
    digits = load("digits", test_fraction=0.3, seed=0)
    message = refused(tmp_path / "other.safetensors", digits)
    assert "belongs to a different network than MLP: " in message
    assert "got nothing" in message or "got (10,)" in message


def test_a_confusion_is_a_named_tuple():
    assert Confusion("a", "b", 3)._asdict() == {"true": "a", "predicted": "b", "examples": 3}


MLP = {
    ("info", "recipe", "model", "name"): "mlp",
    ("info", "recipe", "arms", "mixup-features", "at"): ["input"],
}
HUGE = MLP | {
    ("info", "shape"): [10**9],
    ("inputs", "mean"): torch.zeros(1),
    ("inputs", "std"): torch.ones(1),
}
HOSTILE = {
    "a preparation to other shapes": {("info", "preparation", "shape"): [1, 10**6, 10**6]},
    "recordings of a year": {
        ("info", "preparation"): {
            "kind": "sound",
            "features": "wave",
            "rate": 8000,
            "seconds": 3.2e7,
        }
    },
    "more classes than outputs": {("info", "classes"): [str(k) for k in range(11)]},
    "a negative shape": {("info", "shape"): [-1, 7, 7]},
    "a crop of nothing": {
        ("info", "recipe", "data", "augment"): [{"name": "random-crop", "size": 0}]
    },
    "no tensor as mean": {("inputs", "mean"): 3.5},
    "a mean of another shape": {("inputs", "mean"): torch.zeros(3)},
    "a mean that is not finite": {("inputs", "mean"): torch.tensor([[[float("nan")]]])},
    "a tensor as inputs": {("inputs",): torch.zeros(3)},
    "no weights": {("weights",): None},
    "a weight that is no tensor": {("weights", "head.weight"): "x"},
    "an origin of numbers": {("info", "origin"): {"network": 3}},
    "a source of numbers": {("info", "origin"): {"network": {"source": 3.5}}},
    "a network of 512 GB": HUGE,
}


def put(tree, name, value):
    *outer, last = name
    for each in outer:
        tree = tree[each]
    tree[last] = value


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_raises(kind, trained, tmp_path, vicinal):
    tree = read_tree(trained / "checkpoint.safetensors")
    for name, value in HOSTILE[kind].items():
        put(tree, name, value)
    write_tree(tmp_path / "hostile.safetensors", tree)
    done = vicinal("score", tmp_path / "hostile.safetensors", "--data", "digits")
    assert done.exit_code == 2, done.output
    words = (
        "belongs to a different network than MLP"
        if "512" in kind
        else "expected a trained network of this version"
    )
    assert words in done.stderr
