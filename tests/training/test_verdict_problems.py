import json

import pytest
import torch

from vicinal.data import DataSet, Note, Split, majority
from vicinal.reports.study_text import answer, recall_table, remarks
from vicinal.studies.summary import summarize
from vicinal.training.origin import data_facts
from vicinal.training.recipe import read_recipe
from vicinal.training.recipe_warnings import constant_predictor, verdict_problems
from vicinal.training.trial_result import Result, trials_of

NETWORK = {"name": "mlp", "parameters": 3, "tensors": "", "source": {}}
CLASSES = ("negative", "positive")


def data_of(train, test, *, inputs=None, classes=CLASSES, notes=()):
    """A data set with so many examples of each class."""
    splits = []
    for counts in (train, test):
        y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        x = torch.randn(len(y), 1, 8, 8, generator=torch.Generator().manual_seed(0))
        splits.append(Split(x if inputs is None else inputs.expand(len(y), 1, 8, 8), y))
    return DataSet(classes, *splits, notes=notes)


def summary_of(right, data):
    """The summary of a study of digits in which every trial had so many right answers."""
    recipe = read_recipe("digits")
    facts = data_facts(data)
    results = {
        trial: Result(
            arm=trial.arm,
            corrupted=trial.corrupted,
            seed=trial.seed,
            epochs=1,
            test_examples=len(data.test),
            test_accuracy=sum(right[trial.arm]) / len(data.test),
            test_loss=1.0,
            memorized=None,
            seconds=1.0,
            origin={"data": facts, "network": NETWORK, "versions": {}},
            tested=facts["test"]["of_each_class"],
            correct=right[trial.arm],
            versions={},
            hardware={},
        )
        for trial in trials_of(recipe)
    }
    return summarize(recipe, results)


def test_the_accuracy_of_the_constant_predictor_equals_a_count():
    data = data_of([950, 50], [341, 19])
    constant = constant_predictor(data_facts(data))
    assert constant == ("negative", 341 / 360)
    assert constant.accuracy == majority(data)


def test_there_is_no_verdict_if_every_network_predicts_one_class():
    summary = summary_of(dict.fromkeys(("erm", "mixup", "mixup-features"), (341, 0)), SPARSE)
    rows = [row for row in summary["rows"] if row["arm"] == "mixup"]
    assert [row["verdict"] for row in rows] == ["withheld"] * 2
    told = remarks(summary)
    missed = "never correct for class positive"
    assert f"Warning: input mixup, true labels: {missed}." in told
    assert any("“negative”, the most frequent training class" in one for one in told)
    assert "there is no verdict on input mixup: input mixup and ERM are not above" in answer(
        summary
    )
    head, table = recall_table(summary)
    assert head[:3] == ["class", "test examples", "ERM, true labels"]
    assert [row[:3] for row in table] == [["positive", "19", "0.0"], ["negative", "341", "100.0"]]


SPARSE = data_of([950, 50], [341, 19])


def test_a_verdict_where_both_arms_are_above_the_constant_predictor():
    right = {"erm": (341, 5), "mixup": (341, 10), "mixup-features": (341, 0)}
    rows = {row["arm"]: row for row in summary_of(right, SPARSE)["rows"][:3]}
    assert rows["mixup"]["verdict"] == "better"
    assert rows["mixup"]["recall"] == [100.0, pytest.approx(100 * 10 / 19, abs=1e-3)]
    assert rows["mixup-features"]["verdict"] == "withheld"
    assert rows["erm"]["verdict"] is None


def test_there_is_no_verdict_against_a_baseline_that_learned_nothing():
    right = {"erm": (340, 0), "mixup": (341, 10), "mixup-features": (341, 12)}
    row = summary_of(right, SPARSE)["rows"][1]
    assert row["withheld"].startswith("ERM is not above always predicting “negative”")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (data_of([9, 0], [4, 4]), ["class positive has no training examples"]),
        (data_of([9, 9], [0, 4]), ["class negative has no test examples"]),
        (data_of([9], [4], classes=("only",)), ["there is only one class, only"]),
        (data_of([9, 9], [4, 4], inputs=torch.ones(1, 8, 8)), ["all training inputs are the same"]),
        (
            data_of([3, *[0] * 7], [1] * 8, classes=tuple("abcdefgh")),
            ["classes b, c, d, e, f and 2 more have no training examples"],
        ),
        (SPARSE, []),
    ],
)
def test_data_that_support_no_verdict_are_reported(data, words):
    recipe = read_recipe("digits")
    assert [problem.text for problem in verdict_problems(recipe, data_facts(data))] == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.warmup_epochs": 2.5}, "(2.5 epochs) is longer than its training (2)"),
        (
            {"arms.mixup.unmixed_epochs_at_start": 1, "arms.mixup.unmixed_epochs_at_end": 1},
            "input mixup never mixes",
        ),
    ],
)
def test_trainings_that_support_no_verdict_are_reported(small_recipe, changes, words):
    found = verdict_problems(read_recipe(str(small_recipe(changes))), {})
    assert words in found[0].text
    assert {problem.arm for problem in found} <= {"erm", "mixup", "mixup-features"}
    assert (
        verdict_problems(read_recipe(str(small_recipe({"training.warmup_epochs": 2.0}))), {}) == []
    )


def test_a_study_warns_first_and_shows_its_data_last(small_recipe, tmp_path, vicinal, monkeypatch):
    notes = (Note("column id looks like a number of the row", doubtful=True),)
    constant = data_of([60, 20], [20, 10], inputs=torch.ones(1, 8, 8), notes=notes)
    monkeypatch.setattr("vicinal.training.trial_setup.load", lambda *_, **__: constant)
    changes = {"corrupted_labels": [0.0], "training.epochs": 1, "arms.mixup-features": None}
    done = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert done.exit_code == 0, done.output
    first, second, *_ = done.stderr.splitlines()
    assert first == "warning: column id looks like a number of the row"
    assert second == "warning: all training inputs are the same, so no verdict will be given"
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert [row["verdict"] for row in summary["rows"]] == [None, "withheld"]
    assert summary["data"]["test"]["of_each_class"] == [20, 10]
    page = (tmp_path / "study" / "report.html").read_text()
    for words in ("all training inputs are the same", "column id looks like", "negative (60)"):
        assert words in page
    table = (tmp_path / "study" / "table.md").read_text()
    assert "Data: 80 training examples, 30 test examples." in table
