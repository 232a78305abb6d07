import hashlib
import json

import numpy as np
import pytest

from vicinal.errors import UserError
from vicinal.training.recipe import read_recipe
from vicinal.training.recipe_changes import Changes
from vicinal.training.settings import AdamW, Recipe
from vicinal.training.trial_result import (
    OUTPUTS,
    EpochRow,
    Outputs,
    Result,
    Trial,
    changed_settings,
    condition_name,
    read_failure,
    read_metrics,
    read_outputs,
    read_result,
    settings_of,
    trials_of,
    write_failure,
    write_outputs,
    write_result,
)

RECIPE = read_recipe("digits", changes=Changes(epochs=2))
OTHER = RECIPE.model_copy(
    update={
        "training": RECIPE.training.model_copy(update={"optimizer": AdamW(name="adamw", lr=0.5)})
    }
)
TRIAL = Trial("mixup", 0.4, 1)
ROWS = [
    EpochRow(1, 0.1, 1.5, 0.1 + 0.2, 0.5, 0.5, 0.75, None, 1.5),
    EpochRow(2, 0.01, 1 / 3, 0.25, 0.75, None, None, 0.125, 2.25),
]


SIDE = {"examples": 2, "of_each_class": [1, 1], "skipped": 0, "sha256": ""}
ORIGIN = {
    "data": {
        "task": "classification",
        "outputs": 2,
        "predictor": {"mean": [0.0, 0.0]},
        "classes": ["a", "b"],
        "train": SIDE,
        "test": SIDE,
        "preparation": "",
        "constant": False,
        "notes": [],
    },
    "network": {"name": "mlp", "parameters": 3, "tensors": "", "source": {}},
    "versions": {},
}


def a_result(**changes):
    values = {
        "arm": "mixup",
        "corrupted": 0.4,
        "seed": 1,
        "split": 0,
        "epochs": 2,
        "metric": "accuracy",
        "test_examples": 540,
        "test_metric": 0.75,
        "constant_metric": 0.1,
        "train_metric": 0.9,
        "peak_epoch": 1,
        "test_loss": 0.25,
        "best_epoch": None,
        "memorized": 0.125,
        "seconds": 1.5,
        "peak_memory": 1 << 20,
        "settings": settings_of(RECIPE, TRIAL),
        "origin": ORIGIN,
        "outputs": "0" * 64,
        "versions": {"torch": "2"},
        "hardware": {"cores": "2"},
    }
    return Result(**values | changes)


def test_a_result_is_read_back_exactly(tmp_path):
    write_result(tmp_path, a_result(), ROWS)
    assert read_result(tmp_path, TRIAL, RECIPE) == a_result()
    assert read_metrics(tmp_path, "accuracy") == ROWS
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,lr,train_loss,test_loss,test_accuracy,validation_loss,validation_accuracy,"
        "memorized,seconds"
    )


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
def test_a_damaged_file_of_a_finished_trial_is_an_error(tmp_path, name):
    write_result(tmp_path, a_result(), ROWS)
    text = (tmp_path / name).read_text()
    whole_rows = "".join(text.splitlines(keepends=True)[:-1])
    parts = (text[: len(text) // 2].rpartition(",")[0] + ",", "", whole_rows)
    for part in (*parts, text.replace(",", ";")):
        (tmp_path / name).write_text(part)
        with pytest.raises(UserError, match=rf"{name}.* Delete .*folder"):
            read_result(tmp_path, TRIAL, RECIPE)


def test_a_trial_without_its_result_is_unfinished_and_needs_its_metrics(tmp_path):
    write_result(tmp_path, a_result(), ROWS)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(UserError, match=r"metrics\.csv is missing or damaged"):
        read_result(tmp_path, TRIAL, RECIPE)
    (tmp_path / "result.json").unlink()
    assert read_result(tmp_path, TRIAL, RECIPE) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2}, "seed was 2 and is 1"),
        ({"arm": "erm"}, "arm was 'erm' and is 'mixup'"),
        ({"corrupted": 0.0}, "corrupted was 0.0 and is 0.4"),
        ({"corrupted": 40.0}, "corrupted: Input should be less than or equal to 1"),
        ({"memorized": -1.0}, "memorized: Input should be greater than or equal to 0"),
        ({"split": 1}, "split was 1 and is 0"),
        ({"test_metric": 0.5}, "test_metric was 0.5 and is 0.75"),
        ({"peak_memory": -1}, "peak_memory: Input should be greater than or equal to 0"),
        ({"best_epoch": 0}, "best_epoch: Input should be greater than 0"),
        ({"test_loss": 0.1}, "test_loss was 0.1 and is 0.25"),
        ({"test_loss": None}, "test_loss: Input should be a valid number"),
        ({"memorized": None}, "memorized was not set and is 0.125"),
        ({"test_examples": -5}, "test_examples: Input should be greater than 0"),
        ({"epochs": 1}, "epochs was 1 and is 2"),
        ({"seconds": "soon"}, "seconds: Input should be a valid number"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        (
            {"settings": settings_of(OTHER, TRIAL)},
            "training.optimizer.lr was 0.5 and is 0.01",
        ),
    ],
)
def test_an_inconsistent_result_raises_and_says_what_to_do(tmp_path, changes, words):
    write_result(tmp_path, a_result(), ROWS)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError) as refused:
        read_result(tmp_path, TRIAL, RECIPE)
    assert words in str(refused.value)
    if "settings" in changes:
        assert "Undo the change, add an arm with the new settings" in str(refused.value)
        return
    assert str(path) in str(refused.value)
    assert f"Delete the folder {tmp_path} to train this trial again" in str(refused.value)


def test_outputs_are_read_back_exactly(tmp_path):
    chance = np.random.default_rng(0)
    last, best = chance.normal(size=(2, 540, 10)).astype(np.float32)
    for written in (
        Outputs(last, best, np.arange(540) % 10),
        Outputs(last, None, chance.normal(size=(540, 10))),
    ):
        result = a_result(outputs=write_outputs(tmp_path, written))
        read = read_outputs(tmp_path, result)
        for name, array in written._asdict().items():
            np.testing.assert_array_equal(getattr(read, name), array)
        digest = hashlib.sha256((tmp_path / OUTPUTS).read_bytes()).hexdigest()
        assert result.outputs == digest


def test_outputs_that_are_missing_or_changed_are_named(tmp_path):
    result = a_result(outputs=write_outputs(tmp_path, Outputs(np.zeros((2, 2)), None, np.ones(2))))
    path = tmp_path / OUTPUTS
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"\x01", b"", None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(UserError) as refused:
            read_outputs(tmp_path, result)
        assert f"{path} is missing or damaged" in str(refused.value)
        assert f"Delete the folder {tmp_path} to train this trial again" in str(refused.value)


def test_the_primary_metric_belongs_to_the_settings_of_a_result_but_the_others_do_not():
    there = settings_of(RECIPE, TRIAL)
    more = RECIPE.model_copy(update={"equivalence": 1.0})
    assert changed_settings(there, more, TRIAL) == ""
    other = RECIPE.model_copy(update={"metrics": ("nll", "accuracy")})
    assert "metric" in changed_settings(there, other, TRIAL)
    first = settings_of(other, TRIAL)
    fewer = RECIPE.model_copy(update={"metrics": ("nll",)})
    assert changed_settings(first, fewer, TRIAL) == ""


def test_settings_that_change_no_outcome_and_those_of_another_version_are_not_compared():
    there = settings_of(RECIPE, TRIAL)
    there["training"] |= {"gone": 3}
    del there["training"]["ema_decay"]
    moved = RECIPE.model_copy(update={"data": RECIPE.data.model_copy(update={"root": "x"})})
    assert changed_settings(there, moved, TRIAL) == ""


@pytest.mark.parametrize(
    "change",
    [("0.125", "1.5"), ("\n2,", "\n7,"), ("0.125", "-1"), ("1.5", "\0"), ("accuracy", "auroc")],
)
def test_metrics_out_of_range_are_named(tmp_path, change):
    write_result(tmp_path, a_result(), ROWS)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError, match=r"metrics\.csv is missing or damaged"):
        read_metrics(tmp_path, "accuracy")


def test_metrics_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.csv is missing or damaged"):
        read_metrics(tmp_path, "accuracy")


def test_a_study_has_every_arm_under_every_condition_with_every_seed():
    trials = trials_of(read_recipe("digits"))
    assert len(trials) == len(set(trials)) == 18
    assert len({trial.folder for trial in trials}) == 18


def test_fractions_that_differ_have_names_and_folders_that_differ():
    fractions = [0.07, 0.4, 0.4000001, 1 / 3, 0.33333334, 1e-7, 1.0]
    names = [condition_name(fraction) for fraction in fractions]
    assert names[:2] == ["7% corrupted", "40% corrupted"]
    assert (names[2], names[5]) == ("40.00001% corrupted", "0.00001% corrupted")
    assert len({Trial("erm", fraction, 0).folder for fraction in fractions}) == len(fractions)


def test_options_of_a_policy_that_were_added_are_a_change():
    def recipe(**options):
        arm = {"policy": "import", "object": "vicinal:MixUp", "options": {"alpha": 1.0} | options}
        return Recipe.model_validate(RECIPE.model_dump() | {"arms": {"erm": arm}})

    trial = Trial("erm", 0.0, 0)
    before = settings_of(recipe(), trial)
    assert changed_settings(before, recipe(), trial) == ""
    assert "options was" in changed_settings(before, recipe(mix_rate=0.5), trial)


def test_a_failure_is_remembered_if_the_primary_metric_is_spelled_out(tmp_path):
    write_failure(tmp_path, "the loss is not finite", RECIPE, TRIAL)
    named = RECIPE.model_copy(update={"metrics": ("accuracy", "brier")})
    assert read_failure(tmp_path, TRIAL, named).reason == "the loss is not finite"
    seeded = RECIPE.model_copy(update={"seed": 3})
    assert read_failure(tmp_path, TRIAL, seeded) is None
