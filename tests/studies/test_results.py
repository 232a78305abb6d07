import pytest

from vicinal.errors import UserError
from vicinal.studies.results import (
    EpochRow,
    Result,
    Trial,
    condition_name,
    read_metrics,
    read_result,
    trials_of,
    write_result,
)
from vicinal.training.recipe import read_recipe

TRIAL = Trial("mixup", 0.4, 1)
ROWS = [
    EpochRow(1, 0.1, 1.5, 0.1 + 0.2, 0.5, None, 1.5),
    EpochRow(2, 0.01, 1 / 3, 0.25, 0.75, 0.125, 2.25),
]


def a_result(**changes):
    values = {
        "arm": "mixup",
        "corrupted": 0.4,
        "seed": 1,
        "epochs": 2,
        "test_examples": 540,
        "test_accuracy": 2 / 3,
        "test_loss": 0.25,
        "memorised": 0.125,
        "seconds": 1.5,
        "versions": {"torch": "2"},
        "hardware": {"cores": "2"},
    }
    return Result(**values | changes)


def test_a_result_is_read_back_exactly(tmp_path):
    write_result(tmp_path, a_result(), ROWS)
    assert read_result(tmp_path, TRIAL) == a_result()
    assert read_metrics(tmp_path) == ROWS


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
def test_half_a_file_is_no_result(tmp_path, name):
    write_result(tmp_path, a_result(), ROWS)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text[: len(text) // 2].rpartition(",")[0] + ",")
    assert read_result(tmp_path, TRIAL) is None


def test_a_missing_file_or_the_result_of_another_trial_is_no_result(tmp_path):
    assert read_result(tmp_path, TRIAL) is None
    write_result(tmp_path, a_result(seed=2), ROWS)
    assert read_result(tmp_path, TRIAL) is None


def test_metrics_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.csv is not readable"):
        read_metrics(tmp_path)


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
