import dataclasses
import json

import numpy as np
import pytest
import torch

from vicinal.data import DataSet, Note, Split
from vicinal.reports.study_cells import class_table
from vicinal.reports.study_text import answer, remarks
from vicinal.training.metrics import constant_value
from vicinal.training.origin import data_facts
from vicinal.training.recipe import read_recipe
from vicinal.training.recipe_warnings import data_warnings, verdict_problems

CLASSES = ("negative", "positive")
LINEAR = {"training.schedule": {"name": "linear"}}


def data_of(train, test, *, inputs=None, classes=CLASSES, notes=()):
    """A data set with so many examples of each class."""
    splits = []
    for counts in (train, test):
        y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        x = torch.randn(len(y), 1, 8, 8, generator=torch.Generator().manual_seed(0))
        splits.append(Split(x if inputs is None else inputs.expand(len(y), 1, 8, 8), y))
    return DataSet(classes, *splits, notes=notes)


@pytest.fixture
def summarized(summary_of, logits_with):
    """Return a function that summarizes a study of digits, given how many are right per class."""

    def of(right, data):
        def outputs_of(trial):
            y = data.test.targets.numpy()
            place = np.concatenate([np.arange(n) for n in np.bincount(y)])
            return logits_with(y, place < np.array(right[trial.arm])[y], len(data.classes))

        return summary_of(read_recipe("digits"), data, outputs_of)

    return of


def test_the_accuracy_of_the_constant_predictor_equals_a_count():
    data = data_of([950, 50], [341, 19])
    facts, y = data_facts(data), data.test.targets.numpy()
    constant = constant_value("accuracy", facts["predictor"], y, "classification")
    assert constant == pytest.approx(341 / 360)


def test_there_is_no_verdict_if_every_network_predicts_one_class(summarized):
    summary = summarized(dict.fromkeys(("erm", "mixup", "mixup-features"), (341, 0)), SPARSE)
    rows = [row for row in summary["rows"] if row["arm"] == "mixup"]
    assert [row["verdict"] for row in rows] == ["withheld"] * 2
    told = remarks(summary)
    missed = "never correct for class positive"
    assert f"Warning: input mixup, true labels: {missed}." in told
    assert any("(always “negative”)" in one for one in told)
    assert (
        "there is no verdict on input mixup: input mixup and ERM are not better than a constant"
        in answer(summary)
    )
    head, table = class_table(summary, "true labels")
    assert head == ["class", "test examples", "ERM", "input mixup", "difference"]
    assert [row[:4] for row in table] == [
        ["negative", "341", "100.0", "100.0"],
        ["positive", "19", "0.0", "0.0"],
    ]
    assert table[0][4].startswith("0.0 [")


SPARSE = data_of([950, 50], [341, 19])


def test_a_verdict_where_both_arms_are_above_the_constant_predictor(summarized):
    right = {"erm": (341, 1), "mixup": (341, 16), "mixup-features": (341, 0)}
    rows = {row["arm"]: row for row in summarized(right, SPARSE)["rows"][:3]}
    assert rows["mixup"]["verdict"] == "better"
    recalls = [one["value"] for one in rows["mixup"]["recall"]]
    assert recalls == [100.0, pytest.approx(100 * 16 / 19, abs=1e-3)]
    assert rows["mixup-features"]["verdict"] == "withheld"
    assert rows["erm"]["verdict"] is None


def test_there_is_no_verdict_against_a_baseline_that_learned_nothing(summarized):
    right = {"erm": (340, 0), "mixup": (341, 10), "mixup-features": (341, 12)}
    row = summarized(right, SPARSE)["rows"][1]
    assert row["withheld"].startswith(
        "ERM is not better than a constant prediction, whose accuracy is 94.72%"
    )


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
        (LINEAR | {"training.warmup_epochs": 2.5}, "(2.5 epochs) is longer than its training (2)"),
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
    longest = small_recipe(LINEAR | {"training.warmup_epochs": 2.0})
    assert verdict_problems(read_recipe(str(longest)), {}) == []


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


def test_one_split_of_grouped_examples_gives_no_verdict_and_several_do():
    groups = torch.arange(60) // 3
    split = Split(torch.rand(60, 2), torch.arange(60) % 2, groups=groups)
    facts = data_facts(DataSet(("cat", "dog"), split, split))
    recipe = read_recipe("digits")
    (problem,) = verdict_problems(recipe, facts)
    assert problem.text.startswith("test examples belong to groups")
    assert not verdict_problems(recipe.model_copy(update={"splits": 5}), facts)
    alone = Split(split.inputs, split.targets, groups=torch.arange(60))
    assert not verdict_problems(recipe, data_facts(DataSet(("cat", "dog"), split, alone)))


def test_one_label_supports_a_verdict():
    split = Split(torch.rand(20, 2), (torch.arange(20) % 2).float()[:, None])
    facts = data_facts(DataSet(("label 0",), split, split))
    assert facts["task"] == "multi-label"
    assert not verdict_problems(read_recipe("digits"), facts)


def test_a_class_that_one_of_several_splits_of_groups_lacks_is_no_reason_to_warn():
    data = data_of([9, 9], [4, 0])
    several = read_recipe("digits").model_copy(update={"splits": 5})
    for recipe in (read_recipe("digits"), several):
        assert "class positive has no test examples" in data_warnings(recipe, data, [])[0]
    test = dataclasses.replace(data.test, groups=torch.arange(4) // 2)
    train = dataclasses.replace(data.train, groups=2 + torch.arange(18) // 2)
    grouped = dataclasses.replace(data, train=train, test=test)
    assert data_warnings(several, grouped, []) == []


@pytest.mark.parametrize(("decay", "epochs", "problem"), [(0.9999, 2, True), (0.99, 12, False)])
def test_a_moving_average_that_keeps_its_initial_weights_gets_no_verdict(
    small_recipe, decay, epochs, problem
):
    changes = {"training.ema_decay": decay, "training.epochs": epochs, **LINEAR}
    recipe = read_recipe(str(small_recipe(changes)))
    found = verdict_problems(recipe, data_facts(data_of([600, 657], [200, 200])))
    texts = [one.text for one in found]  # 40 steps of 64 examples: 0.9999 ** 40 = 0.996
    expected = "keeps 100% of its initial weights (ema_decay = 0.9999 over 40 steps)"
    assert (f"the moving average of ERM {expected}" in texts) == problem
    assert bool(texts) == problem


def test_a_label_that_one_fold_does_not_test_is_tested_in_another(small_recipe):
    recipe = read_recipe(str(small_recipe({"splits": 5, **LINEAR})))
    x, y = torch.rand(50, 1, 8, 8), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(25, 1)
    test = Split(x[:10], y[:10] * torch.tensor([1.0, 0.0]))
    data = DataSet((), Split(x[10:], y[10:]), test)
    assert not [one for one in data_warnings(recipe, data, ["mixup"]) if "no verdict" in one]
    once = recipe.model_copy(update={"splits": 1})
    assert any("no test examples" in one for one in data_warnings(once, data, ["mixup"]))
