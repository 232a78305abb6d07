"""The test examples that a study stores for its report."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vicinal.data import DataSet, Split, load
from vicinal.studies.examples import write_examples
from vicinal.training.recipe import read_recipe
from vicinal.training.trial_result import Outputs, Trial


@pytest.fixture
def stored(tmp_path):
    """Return a function that stores the examples of a data set, given what two arms predict."""

    def store(data, predicted, skipped=0, later_splits=()):
        recipe = read_recipe("digits").model_copy(update={"seeds": 1, "corrupted_labels": (0.0,)})
        arms = {"erm": 0.5, "mixup": 0.6, "mixup-features": 0.4}
        results = {
            Trial(arm, 0.0, 0, split): SimpleNamespace(metric="accuracy", test_metric=value)
            for split, values in enumerate((arms, *later_splits))
            for arm, value in values.items()
        }
        targets = data.test.targets.numpy()[skipped:]

        def outputs(trial):
            return Outputs(predicted[trial.arm][skipped:], None, targets)

        write_examples(tmp_path / "few.npz", recipe, data, results, outputs)
        with np.load(tmp_path / "few.npz") as file:
            return {name: file[name] for name in file.files}

    return store


def logits_that_favor(y, rows, classes, strength=5.0):
    """Return logits that are zero, except for the true class in some rows."""
    logits = np.zeros((len(y), classes), np.float32)
    logits[rows, y[rows]] = strength
    return logits


def test_rows_of_a_table_are_stored_as_they_were_before_the_preparation(stored):
    data = load("iris")
    y = data.test.targets.numpy()
    predicted = {"erm": logits_that_favor(y, [4], 3), "mixup": logits_that_favor(y, [7, 2], 3)}
    found = stored(data, predicted)
    assert found["rows better, true labels"].tolist() == [7, 2]
    assert found["rows worse, true labels"].tolist() == [4]
    assert found["test_rows"].tolist() == [2, 4, 7]
    assert found["test_columns"][0] == "sepal length (cm)"
    cells = found["test_cells"].astype(float)
    assert (cells * 10 == np.round(cells * 10)).all()  # all flowers are measured in millimeters
    assert 4 < cells[:, 0].min() < cells[:, 0].max() < 8


def test_large_images_are_stored_small(stored):
    x = torch.zeros(12, 3, 200, 100, dtype=torch.uint8)
    x[:, :, :100] = 255
    y = torch.arange(12) % 10
    split = Split(x, y)
    data = DataSet(tuple("0123456789"), split, split, brightest=255)
    flat = logits_that_favor(y.numpy(), [], 10)
    found = stored(data, {"erm": flat, "mixup": logits_that_favor(y.numpy(), [3], 10)})
    assert found["test_inputs"].shape == (1, 3, 96, 48)
    assert found["test_inputs"][0, 0, :, 0].tolist() == [255] * 48 + [0] * 48
    assert found["own"].dtype == np.uint8
    assert found["blend"].shape == (6, 3, 96, 48)


def test_nothing_is_chosen_if_some_test_examples_were_skipped(stored):
    data = load("digits")
    y = data.test.targets.numpy()
    predicted = {"erm": logits_that_favor(y, [], 10), "mixup": logits_that_favor(y, [3], 10)}
    assert "test_rows" in stored(data, predicted)
    assert "test_rows" not in stored(data, predicted, skipped=1)


def test_the_best_arm_of_all_splits_is_compared(stored):
    data = load("iris")
    y = data.test.targets.numpy()
    favored = {"erm": [4], "mixup": [7], "mixup-features": [9]}
    predicted = {arm: logits_that_favor(y, rows, 3) for arm, rows in favored.items()}
    assert stored(data, predicted)["rows better, true labels"].tolist() == [7]
    later = [{"erm": 0.5, "mixup": 0.3, "mixup-features": 0.6}]
    found = stored(data, predicted, later_splits=later)
    assert found["rows better, true labels"].tolist() == [9]
