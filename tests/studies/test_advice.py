import math

import pytest
import torch

from vicinal import MixUp, RegMixUp
from vicinal.data import DataSet, Split
from vicinal.studies.advice import advice
from vicinal.studies.third_class import third_class_share
from vicinal.training.recipe import read_recipe
from vicinal.training.recipe_changes import Changes
from vicinal.training.trial_result import Result, Trial


def result(arm="erm", corrupted=0.0, **changes):
    split = {"examples": 100, "of_each_class": [50, 50], "skipped": 0, "sha256": ""}
    data = {
        "task": "classification", "outputs": 2, "predictor": {"mean": [0.0, 0.0]},
        "classes": ["cat", "dog"], "train": split, "test": split, "preparation": "",
        "constant": False, "notes": [],
    }  # fmt: skip
    network = {"name": "mlp", "parameters": 5000, "tensors": "", "source": {}}
    fields = {
        "arm": arm, "corrupted": corrupted, "seed": 0, "split": 0, "epochs": 10,
        "metric": "accuracy", "test_examples": 100, "test_metric": 0.8, "constant_metric": 0.5,
        "train_metric": 1.0, "peak_epoch": 9, "test_loss": 0.5, "best_epoch": None,
        "memorized": None, "seconds": 1.0, "peak_memory": 1, "settings": {}, "outputs": "",
        "origin": {"data": data, "network": network, "versions": {}}, "versions": {},
        "hardware": {},
    }  # fmt: skip
    return Result(**fields | changes)


def readings(results, *, third_class=None, **changes):
    recipe = read_recipe("digits", changes=Changes(**changes))
    trials = {Trial(one.arm, one.corrupted, one.seed): one for one in results}
    return {one.question: one for one in advice(recipe, trials, third_class)}


def test_a_gap_between_training_and_test_is_called_overfitting():
    wide = readings([result()])["Does the baseline overfit?"]
    assert (
        wide.measured == "accuracy 100.00% on training examples, accuracy 80.00% on test examples"
    )
    assert wide.reading.startswith("Yes")
    narrow = readings([result(train_metric=0.82)])["Does the baseline overfit?"]
    assert narrow.reading.startswith("Hardly")


def test_an_error_that_is_larger_on_test_examples_is_overfitting_too():
    worse = result(metric="rmse", train_metric=1.0, test_metric=2.0, constant_metric=5.0)
    assert readings([worse])["Does the baseline overfit?"].reading.startswith("Yes")
    better = result(metric="rmse", train_metric=2.0, test_metric=1.9, constant_metric=5.0)
    assert readings([better])["Does the baseline overfit?"].reading.startswith("Hardly")


def test_a_gap_that_takes_most_of_what_was_learned_is_overfitting():
    question = "Does the baseline overfit?"
    lost = {"metric": "rmse", "train_metric": 24.8, "test_metric": 30.6}
    assert readings([result(constant_metric=30.5, **lost)])[question].reading.startswith("Yes")
    assert readings([result(constant_metric=90.0, **lost)])[question].reading.startswith("Hardly")
    most = {"train_metric": 0.94, "test_metric": 0.91}
    assert readings([result(constant_metric=0.9, **most)])[question].reading.startswith("Yes")
    assert readings([result(constant_metric=0.5, **most)])[question].reading.startswith("Hardly")


def test_a_baseline_that_learned_nothing_is_said_to_have():
    questions = ("Does the baseline overfit?", "Is training too long?")
    nothing = readings([result(train_metric=0.5, test_metric=0.5, peak_epoch=1)])
    assert [nothing[one].reading[:7] for one in questions] == ["No: eve", "Unclear"]
    errors = {"metric": "rmse", "train_metric": 1.1, "test_metric": 1.0, "constant_metric": 1.0}
    nothing = readings([result(**errors)])
    assert [nothing[one].reading[:7] for one in questions] == ["No: eve", "Unclear"]


def test_r2_is_judged_as_a_fraction():
    question, r2 = "Does the baseline overfit?", {"metric": "r2", "constant_metric": 0.0}
    wide = result(train_metric=0.9, test_metric=0.8, **r2)
    assert readings([wide])[question].reading.startswith("Yes")
    narrow = result(train_metric=0.020, test_metric=0.016, **r2)
    assert readings([narrow])[question].reading.startswith("Hardly")


def test_a_calibration_error_says_nothing_about_what_was_learned():
    ece = {"metric": "ece", "train_metric": 0.004, "test_metric": 0.012}
    found = readings([result(constant_metric=0.0003, **ece)])
    assert "Does the baseline overfit?" not in found
    assert found["Is training too long?"].reading.startswith("No")


def test_training_is_too_long_if_the_best_epoch_is_long_past():
    question = "Is training too long?"
    assert readings([result(peak_epoch=3)])[question].reading.startswith("Perhaps")
    assert readings([result(peak_epoch=7)])[question].reading.startswith("No")


def test_wrong_labels_are_mentioned_only_where_some_were_learned():
    question = "Does it learn wrong labels?"
    assert question not in readings([result()])
    noisy = readings([result(), result(corrupted=0.4, memorized=0.9)])[question]
    assert "with 40% corrupted labels, the baseline learned 90%" in noisy.measured


def test_capacity_compares_parameters_with_examples():
    question = "Can the network memorize the data?"
    assert readings([result()])[question].reading.startswith("Yes")
    small = result()
    small.origin["network"]["parameters"] = 99
    assert readings([small])[question].reading.startswith("Not easily")


def test_pretrained_networks_are_told_from_others():
    question = "Is the network pretrained?"
    assert "from scratch" in readings([result()])[question].reading
    of_tables = advice(read_recipe("paper-uci"), {Trial("erm", 0.0, 0): result()}, None)
    assert of_tables
    assert question not in {one.question for one in of_tables}
    tuned = readings([result()], model="timm:resnet18?pretrained=true")[question]
    assert "fine-tune" in tuned.reading
    for name in ("timm:resnet18?pretrained=false", "hf:bert-base-uncased?pretrained=false"):
        assert "from scratch" in readings([result()], model=name)[question].reading


def line(count=60):
    """Three classes on a line: 0 at -1, 1 at 1, and 2 between them."""
    labels = torch.arange(count) % 3
    places = torch.tensor([-1.0, 1.0, 0.0])[labels] + torch.linspace(-0.1, 0.1, count)
    split = Split(places[:, None], labels)
    return DataSet(("left", "right", "middle"), split, split)


def test_blends_of_the_outer_classes_fall_on_the_class_between_them():
    halves = third_class_share(line(), MixUp(math.inf), seed=0)
    assert halves == pytest.approx(2 / 9, abs=0.12)  # the pairs of left and right
    assert third_class_share(line(), MixUp(0), seed=0) == 0
    question = "Do blends fall on a third class?"
    assert readings([result()], third_class=halves)[question].reading.startswith("Often")
    assert readings([result()], third_class=0.02)[question].reading == "Rarely."


def test_the_share_is_unknown_for_two_classes_and_for_policies_without_one_blend_per_example():
    data = line()
    two = DataSet(("a", "b"), data.train, data.test)
    assert third_class_share(two, MixUp(1.0), seed=0) is None
    assert third_class_share(data, RegMixUp(MixUp(1.0)), seed=0) is None
