import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from vicinal.data import DataSet, Split
from vicinal.errors import UserError
from vicinal.reports.study_cells import class_table, study_table
from vicinal.reports.study_figures import classes_figure
from vicinal.reports.study_text import answer
from vicinal.reports.table_files import csv_rows, csv_text
from vicinal.studies.statistics import difference_with_interval, mean_with_interval, over_splits
from vicinal.studies.summary import summarize, summary_text
from vicinal.training.recipe import read_recipe
from vicinal.training.trial_result import Outputs, Trial, trials_of

EXAMPLES = 400
INPUTS = torch.randn(EXAMPLES, 1, generator=torch.Generator().manual_seed(0))
SPLIT = Split(INPUTS, torch.arange(EXAMPLES) % 10)
DATA = DataSet(tuple("0123456789"), SPLIT, SPLIT)


def right_of(trial):
    """Return which examples a made-up trial gets right."""
    share = {"erm": 0.7, "mixup": 0.9, "mixup-features": 0.7}[trial.arm]
    seed = [trial.seed, int(10 * trial.corrupted), len(trial.arm)]
    return np.random.default_rng(seed).random(EXAMPLES) < (share if trial.corrupted else 0.97)


@pytest.fixture
def study(logits_with):
    """Return a recipe, its data, and the outputs of a trial."""
    return read_recipe("digits"), DATA, lambda trial: logits_with(SPLIT.targets, right_of(trial))


def row_of(summary, arm, condition="40% corrupted"):
    return next(r for r in summary["rows"] if (r["arm"], r["condition"]) == (arm, condition))


def table_of(arm, corrupted, seeds=(0, 1, 2)):
    return np.stack([right_of(Trial(arm, corrupted, seed)) for seed in seeds]).astype(float)


def as_shown(found):
    """Return an estimate as a summary has it, in percent."""
    names = ("mean", "low", "high", "seeds", "examples")
    values = [getattr(found, name) for name in names]
    return [None if one is None else pytest.approx(100 * one, abs=1e-3) for one in values]


def shown(found):
    return [found[name] for name in ("value", "low", "high", "seeds", "examples")]


def test_the_rows_have_the_intervals_of_tables_of_seeds_and_examples(study, summary_of):
    summary = summary_of(*study, seconds=lambda trial: float(trial.seed))
    row = row_of(summary, "mixup")
    accuracy = row["metrics"]["accuracy"]
    ours, theirs = table_of("mixup", 0.4), table_of("erm", 0.4)
    expected = difference_with_interval(ours, theirs, least=3 / EXAMPLES, comparisons=4)
    assert shown(accuracy) == as_shown(mean_with_interval(ours, counted=True))
    assert shown(accuracy["difference"]) == as_shown(expected)
    assert accuracy["difference"]["detectable"] == pytest.approx(
        100 * expected.detectable, abs=1e-3
    )
    assert (row["n"], row["verdict"], row["seconds"]) == (3, "better", 1)


def test_p_values_are_adjusted_for_comparisons_that_are_not_finished(study, summary_of):
    recipe, data, outputs_of = study
    whole = row_of(summary_of(*study), "mixup")
    part = summary_of(recipe, data, lambda one: outputs_of(one) if one.corrupted else None)
    own = row_of(part, "mixup")["metrics"]["accuracy"]["difference"]
    assert own == whole["metrics"]["accuracy"]["difference"]
    assert row_of(part, "mixup")["p"] == pytest.approx(min(4 * own["p"], 1))


def test_what_halves_a_difference_allows_for_the_floor_of_its_interval(summary_of):
    chance, few = np.random.default_rng(0), torch.arange(400) % 20 == 0
    split = Split(INPUTS, few.long())
    data, recipe = DataSet(("no", "yes"), split, split), read_recipe("digits")
    recipe = recipe.model_copy(update={"metrics": ("auroc",), "corrupted_labels": (0.0,)})
    example = chance.normal(size=400)

    def outputs_of(trial):
        margins = 2 * few.numpy() + example + chance.normal(size=400)
        return np.stack([-margins, margins], 1)

    row = row_of(summary_of(recipe, data, outputs_of), "mixup", "true labels")
    assert row["to_halve"]["examples"] > 1000  # not 800, as if three positives decided


def test_p_values_are_adjusted_for_all_comparisons_of_the_study(study, summary_of):
    rows = [row for row in summary_of(*study)["rows"] if row["arm"] != "erm"]
    raw = [row["metrics"]["accuracy"]["difference"]["p"] for row in rows]
    assert len(raw) == 4
    smallest = min(range(4), key=lambda k: raw[k])
    assert rows[smallest]["p"] == pytest.approx(4 * raw[smallest])
    assert all(one["p"] >= p for one, p in zip(rows, raw, strict=True))


def test_recalls_have_the_intervals_of_the_examples_of_their_class(study, summary_of):
    recall = row_of(summary_of(*study), "mixup")["recall"]
    of_class = np.arange(EXAMPLES) % 10 == 3
    ours, theirs = (table_of(arm, 0.4)[:, of_class] for arm in ("mixup", "erm"))
    assert len(recall) == 10
    assert shown(recall[3]) == as_shown(mean_with_interval(ours, counted=True))
    assert shown(recall[3]["difference"]) == as_shown(
        difference_with_interval(ours, theirs, least=3 / of_class.sum())
    )


def test_the_baseline_is_compared_with_nothing(study, summary_of):
    row = row_of(summary_of(*study), "erm")
    assert row["metrics"]["accuracy"]["difference"] is None
    assert [row[name] for name in ("verdict", "withheld", "p", "to_halve")] == [None] * 4


def test_intervals_end_where_a_metric_ends(study, summary_of):
    row = row_of(summary_of(*study), "mixup", "true labels")
    assert row["metrics"]["accuracy"]["high"] <= 100
    assert row["metrics"]["nll"]["low"] >= 0
    assert row["metrics"]["ece"]["low"] >= 0
    assert row["memorized"] is None


def test_differences_smaller_than_the_margin_are_the_same(study, summary_of):
    recipe, data, outputs_of = study
    wide = recipe.model_copy(update={"equivalence": 50.0})
    row = row_of(summary_of(wide, data, outputs_of), "mixup")
    assert row["verdict"] == "the same"
    accuracy = row_of(summary_of(recipe, data, outputs_of), "mixup")["metrics"]["accuracy"]
    assert row["metrics"]["accuracy"] == accuracy


def test_several_splits_have_intervals_over_the_splits(study, summary_of):
    recipe, data, outputs_of = study
    several = recipe.model_copy(update={"splits": 3, "seeds": 1, "corrupted_labels": (0.4,)})
    summary = summary_of(several, data, lambda trial: outputs_of(trial._replace(seed=trial.split)))
    means = table_of("mixup", 0.4).mean(1), table_of("erm", 0.4).mean(1)
    accuracy = row_of(summary, "mixup")["metrics"]["accuracy"]
    tables = [row[None] for row in table_of("mixup", 0.4) - table_of("erm", 0.4)]
    difference = over_splits(tables, ratio=1, least=1 / EXAMPLES)  # as many test examples
    assert shown(accuracy["difference"]) == as_shown(difference)
    assert accuracy["value"] == pytest.approx(100 * means[0].mean(), abs=1e-3)
    assert row_of(summary, "mixup")["n"] == 3


def test_splits_of_which_an_arm_finished_none_are_no_error(study, summary_of):
    recipe, data, outputs_of = study
    several = recipe.model_copy(update={"splits": 2})
    summary = summary_of(
        several, data, lambda trial: None if trial.arm == "mixup" else outputs_of(trial)
    )
    row = row_of(summary, "mixup")
    assert (row["n"], row["metrics"]["accuracy"]["value"]) == (0, None)
    assert row["withheld"] == "6 of 6 trials failed"


def test_an_undefined_metric_is_none_and_no_verdict_rests_on_it(summary_of):
    recipe = read_recipe("digits").model_copy(update={"metrics": ("auroc", "accuracy")})
    one_class = Split(INPUTS, torch.zeros(EXAMPLES, dtype=torch.int64))
    data = DataSet(("a", "b"), SPLIT_OF_TWO, one_class)
    summary = summary_of(recipe, data, lambda _trial: np.zeros((EXAMPLES, 2)), test_metric=0.0)
    row = row_of(summary, "mixup")
    assert row["metrics"]["auroc"]["value"] is None
    assert row["metrics"]["accuracy"]["value"] == 100
    assert (row["verdict"], row["p"]) == ("withheld", None)
    assert "AUROC is undefined for these test examples" in row["withheld"]
    json.loads(summary_text(summary), parse_constant=pytest.fail)


SPLIT_OF_TWO = Split(INPUTS, torch.arange(EXAMPLES) % 2)


def test_a_lower_error_is_better(small_recipe, summary_of):
    chance = np.random.default_rng(0)
    split = Split(INPUTS, torch.from_numpy(chance.normal(5, 2, EXAMPLES)).float())
    recipe = read_recipe(str(small_recipe({"corrupted_labels": [0.0]})))
    noise = chance.normal(size=(2, EXAMPLES))

    def outputs_of(trial):
        size = {"erm": 1.0, "mixup": 0.5, "mixup-features": 1.5}[trial.arm]
        return (split.targets.numpy() + size * noise[trial.seed])[:, None]

    summary = summary_of(recipe, DataSet((), split, split), outputs_of)
    assert (summary["metric"], summary["task"]) == ("rmse", "regression")
    assert [row["verdict"] for row in summary["rows"]] == [None, "better", "worse"]
    spread = float(split.targets.std(correction=0))
    assert summary["constant"]["rmse"] == pytest.approx(spread, rel=1e-4)
    assert summary["constant"]["r2"] == pytest.approx(0, abs=1e-4)
    assert answer(summary).startswith("Input mixup is better than ERM: test RMSE 0.")
    assert "%" not in " ".join(study_table(summary)[0])
    expected = np.mean([0.5 * np.sqrt(np.mean(noise[seed] ** 2)) for seed in (0, 1)])
    found = row_of(summary, "mixup", "true labels")["metrics"]["rmse"]["value"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_trials_that_were_tested_on_other_examples_are_not_compared(study, summary_of, monkeypatch):
    recipe, data, outputs_of = study
    other = Trial("mixup", 0.4, 1)

    def with_others(recipe, results, outputs, failures):
        def changed(trial):
            found = outputs(trial)
            return found._replace(targets=found.targets[::-1]) if trial == other else found

        return summarize(recipe, results, changed, failures)

    monkeypatch.setitem(summary_of.__globals__, "summarize", with_others)
    with pytest.raises(UserError, match="mixup-40-corrupted-seed1 was tested on other examples"):
        summary_of(recipe, data, outputs_of)


def test_the_best_epoch_on_the_validation_split_has_its_own_metric(study):
    from vicinal.studies.summary import _best

    _, _, outputs_of = study
    trial, targets = Trial("mixup", 0.4, 0), SPLIT.targets.numpy()
    best = outputs_of(Trial("mixup", 0.0, 0))
    read = {trial: Outputs(outputs_of(trial), best, targets)}
    expected = 100 * right_of(Trial("mixup", 0.0, 0)).mean()
    assert _best(("mixup", 0.4), read, "accuracy", "classification") == pytest.approx(expected)


def test_the_summary_lists_all_versions_of_a_package(study, summary_of):
    found = summary_of(*study, versions=lambda trial: {"torch": "2.1" if trial.seed else "2.0"})
    assert found["versions"] == {"torch": "2.0, 2.1"}


def test_the_summary_has_the_documented_names(study, summary_of):
    summary = summary_of(*study)
    assert " ".join(summary) == (
        "study task metric metrics equivalence rows label_metrics constant_class data "
        "tested_of_each_class constant probes failed_checks checks_not_run advice "
        "verdict_problems settings versions"
    )
    assert " ".join(summary["rows"][0]) == (
        "arm condition n verdict withheld p memorized seconds all_seconds peak_memory failed "
        "metrics to_halve best recall"
    )
    assert " ".join(summary["rows"][1]["metrics"]["accuracy"]["difference"]) == (
        "value low high seeds examples p detectable"
    )
    assert summary_text(summary).startswith('{\n  "study": "digits"')


def test_calibration_can_decide_although_a_constant_prediction_is_calibrated(study, summary_of):
    recipe, data, outputs_of = study
    summary = summary_of(recipe.model_copy(update={"metrics": ("ece",)}), data, outputs_of)
    assert all("constant" not in (row["withheld"] or "") for row in summary["rows"])


def test_a_csv_file_has_the_same_columns_for_all_arms_wherever_the_baseline_is(study, summary_of):
    recipe, data, outputs_of = study
    arms = dict(reversed(recipe.arms.items()))
    for one in (recipe, recipe.model_copy(update={"arms": arms})):
        rows = csv_rows(summary_of(one, data, outputs_of))
        assert {tuple(row) for row in rows} == {tuple(rows[0])}
        assert csv_text(rows).count("\n") == len(rows) + 1
    assert rows[0]["seeds_to_halve"] is not None


def test_a_recipe_with_one_metric_reports_those_of_its_task_too(study, summary_of):
    recipe, data, outputs_of = study
    one = summary_of(recipe.model_copy(update={"metrics": ("auroc",)}), data, outputs_of)
    assert list(one["metrics"]) == ["auroc", "accuracy", "nll", "ece"]
    two = summary_of(recipe.model_copy(update={"metrics": ("auroc", "nll")}), data, outputs_of)
    assert list(two["metrics"]) == ["auroc", "nll"]
    for found in (one, two):
        assert len(class_table(found, "true labels")[1]) == 10
        assert "in points" in classes_figure(found, "true labels").text
    recalls = [[row["recall"] for row in found["rows"]] for found in (one, two)]
    assert recalls[0] == recalls[1] == [row["recall"] for row in summary_of(*study)["rows"]]


def test_a_label_that_a_split_lacks_is_judged_by_the_others(summary_of):
    chance = np.random.default_rng(0)
    targets = [(chance.random((60, 2)) < 0.3).astype(np.float32) for _ in range(3)]
    targets[0][:, 1] = 0
    recipe = read_recipe("digits").model_copy(update={"splits": 3, "corrupted_labels": (0.0,)})
    inputs = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    splits = [Split(inputs, torch.from_numpy(one)) for one in targets]
    outputs = {
        trial: 2 * targets[trial.split] - 1 + chance.normal(size=(60, 2))
        for trial in trials_of(recipe)
    }
    data = DataSet(("a", "b"), splits[1], splits[0])
    summary = summary_of(recipe, data, outputs.get, targets_of=lambda trial: targets[trial.split])
    assert summary["verdict_problems"] == []
    found = row_of(summary, "mixup", "true labels")["labels"]["auroc"][1]
    expected = np.mean(
        [
            roc_auc_score(targets[trial.split][:, 1], one[:, 1])
            for trial, one in outputs.items()
            if trial.arm == "mixup" and trial.split
        ]
    )
    assert found["value"] == pytest.approx(100 * expected, abs=1e-3)
