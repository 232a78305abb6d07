import numpy as np
import pytest

from vicinal.studies.summary import summarize, summary_text
from vicinal.training.recipe import read_recipe
from vicinal.training.trial_result import Result, Trial, trials_of


@pytest.fixture
def study():
    recipe = read_recipe("digits")
    accuracy = {"erm": [0.70, 0.72, 0.74], "mixup": [0.90, 0.93, 0.93], "mixup-features": [0.7] * 3}
    results = {
        trial: Result(
            arm=trial.arm,
            corrupted=trial.corrupted,
            seed=trial.seed,
            epochs=1,
            test_examples=500,
            test_accuracy=accuracy[trial.arm][trial.seed] if trial.corrupted else 0.99,
            test_loss=1.0,
            memorized=0.25 * trial.seed if trial.corrupted else None,
            seconds=float(trial.seed),
            versions={"torch": "2.1" if trial.seed else "2.0"},
            hardware={},
        )
        for trial in trials_of(recipe)
    }
    return recipe, results


def row_of(summary, arm, condition):
    return next(r for r in summary["rows"] if (r["arm"], r["condition"]) == (arm, condition))


def test_the_rows_equal_a_hand_calculation(study):
    summary = summarize(*study)
    row = row_of(summary, "mixup", "40% corrupted")
    # Differences 20, 21, 19: mean 20, standard error 1 / sqrt(3), t(0.975, 2) = 4.30265.
    half = 4.30265 / np.sqrt(3)
    assert row["n"] == 3
    assert row["accuracy"] == pytest.approx(92)
    assert row["difference"] == pytest.approx(20)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(
        (20 - half, 20 + half), abs=1e-3
    )
    assert row["verdict"] == "better"
    assert row["memorized"] == pytest.approx(25)
    assert row["seconds"] == 1


def test_the_baseline_is_compared_with_nothing(study):
    row = row_of(summarize(*study), "erm", "40% corrupted")
    names = ("difference", "difference_low", "difference_high", "verdict")
    assert [row[name] for name in names] == [None] * 4


def test_an_interval_of_an_accuracy_ends_at_100_percent(study):
    recipe, results = study
    trial = Trial("mixup", 0.0, 0)
    results[trial] = results[trial].model_copy(update={"test_accuracy": 0.95})
    row = row_of(summarize(recipe, results), "mixup", "true labels")
    assert row["high"] == 100
    assert row["memorized"] is None


def test_the_summary_lists_all_versions_of_a_package(study):
    assert summarize(*study)["versions"] == {"torch": "2.0, 2.1"}


def test_the_summary_has_the_documented_names(study):
    summary = summarize(*study)
    assert list(summary) == ["study", "rows", "verdict_problems", "settings", "versions"]
    names = "arm condition n accuracy low high difference difference_low difference_high"
    assert (
        " ".join(summary["rows"][0]) == f"{names} verdict withheld memorized seconds failed recall"
    )
    assert summary_text(summary).startswith('{\n  "study": "digits"')
