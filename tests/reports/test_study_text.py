import csv
import io
import math
import re

import pytest

from vicinal.reports.study_cells import metrics_table, study_table
from vicinal.reports.study_text import answer, caption, parts_caption, remarks
from vicinal.reports.summary_values import number_text
from vicinal.reports.table_files import csv_rows, csv_text, markdown


def metric(value, difference=None):
    """Return a metric of a summary, with intervals of one to both sides."""
    found = {"value": value, "low": value - 1, "high": value + 1, "seeds": 0.5, "examples": 0.75}
    if difference is not None:
        found["difference"] = metric(difference) | {"p": 0.5, "detectable": 1.5}
    return found


def row(arm, condition, accuracy, difference=None, *, verdict=None, memorized=None):
    return {
        "arm": arm,
        "condition": condition,
        "n": 3,
        "verdict": verdict,
        "withheld": None,
        "p": None,
        "memorized": memorized,
        "seconds": 1.25,
        "peak_memory": 10**8,
        "failed": [],
        "metrics": {
            "accuracy": {"difference": None} | metric(accuracy, difference),
            "nll": {"difference": None} | metric(0.5, None if difference is None else 0.25),
        },
        "to_halve": None if difference is None else {"seeds": None, "examples": 2160},
        "best": None,
        "recall": [],
    }


@pytest.fixture
def summary():
    return {
        "study": "s",
        "task": "classification",
        "metric": "accuracy",
        "metrics": {
            "accuracy": {"title": "accuracy", "percent": True, "higher": True},
            "nll": {"title": "NLL", "percent": False, "higher": False},
        },
        "equivalence": 0.5,
        "rows": [
            row("erm", "true labels", 98.0),
            row("mixup", "true labels", 98.5, 0.5, verdict="no evidence"),
            row("erm", "40% corrupted", 70.0, memorized=100.0),
            row("mixup", "40% corrupted", 92.0, 22.0, verdict="better", memorized=12.25),
        ],
        "constant": {"accuracy": 10.0, "nll": 2.3},
        "constant_class": "7",
        "verdict_problems": [],
        "data": {
            "classes": [],
            "notes": [],
            "train": {"examples": 10, "skipped": 0, "of_each_class": []},
            "test": {"examples": 5, "skipped": 0, "of_each_class": []},
        },
        "settings": {
            "baseline": "erm",
            "seeds": 3,
            "splits": 1,
            "corrupted_labels": [0.0, 0.4],
            "training": {"epochs": 30},
            "arms": {
                "erm": {"title": "ERM", "training": {}},
                "mixup": {"title": "input mixup", "training": {"epochs": 60}},
            },
        },
        "versions": {},
    }


def only_true_labels(summary):
    settings = summary["settings"] | {"corrupted_labels": [0.0]}
    return summary | {"rows": summary["rows"][:2], "settings": settings}


def test_the_answer_starts_with_verdicts_and_names_interval_and_difference(summary):
    assert answer(summary) == (
        "With 40% corrupted labels, input mixup is better than ERM: test accuracy 92.0% versus "
        "70.0%, a difference of +22.0 points (95% interval +21.0 to +23.0). With true labels, "
        "there is no evidence of a difference from ERM: for input mixup it is +0.5 points "
        "(95% interval −0.5 to +1.5)."
    )


def test_without_corrupted_labels_nothing_mentions_true_labels(summary):
    shown = only_true_labels(summary)
    assert answer(shown).startswith("There is no evidence of a difference from ERM: for input")
    assert "true labels" not in markdown(shown)
    assert study_table(shown)[0][0] == "arm"
    assert "wrong labels learned, %" not in study_table(shown)[0]


def test_the_answer_names_an_arm_that_is_worse(summary):
    summary["rows"][1] = row("mixup", "true labels", 95.0, -3.0, verdict="worse")
    assert "With true labels, input mixup is worse than ERM: test accuracy 95.0%" in answer(summary)


def test_the_answer_names_the_verdicts_on_all_other_arms(summary):
    shown = only_true_labels(summary)
    verdicts = {"mixup": "no evidence", "cutmix": "worse", "fmix": "better", "own": "the same"}
    verdicts["third"] = "better"
    for name, verdict in verdicts.items():
        shown["settings"]["arms"][name] = {"title": f"{name}!", "training": {}}
        difference = {"fmix": 2.0, "third": 4.0}.get(name, 0.1)
        shown["rows"].append(row(name, "true labels", 98.1, difference, verdict=verdict))
    del shown["rows"][1]
    assert answer(shown).endswith(
        "(95% interval +3.0 to +5.0). Better too: fmix!. Worse: cutmix!. The same as "
        "the baseline: own!. No evidence of a difference: mixup!."
    )
    shown["rows"] = [one for one in shown["rows"] if one["verdict"] in (None, "worse", "better")]
    for one in shown["rows"][1:]:
        one["verdict"] = "worse"
    assert "Worse too: " in answer(shown)
    assert "Better" not in answer(shown)
    verdicts = ["no evidence", "the same", "no evidence"]
    for one, verdict in zip(shown["rows"][1:], verdicts, strict=True):
        one |= {"verdict": verdict, "p": 1.0}
    assert (
        "no evidence of a difference from ERM: for cutmix!, the best of 2 such arms, it is +0.1"
        in answer(shown)
    )
    assert answer(shown).endswith("The same as the baseline: fmix!.")


def test_an_interval_without_zero_is_explained_when_several_comparisons_leave_no_evidence(summary):
    arms = [row("mixup", "true labels", 95.0, -3.0, verdict="no evidence") | {"p": 0.0584}]
    arms += [row("cutmix", "true labels", 98.1, 0.1, verdict="no evidence") | {"p": 1.0}]
    shown = only_true_labels(summary)
    shown["rows"] = [shown["rows"][0], *arms]
    shown["settings"]["arms"]["cutmix"] = {"title": "cutmix", "training": {}}
    assert answer(shown).endswith(
        "for cutmix, the best of the 2 other arms, it is +0.1 points (95% interval −0.9 to +1.1). "
        "The interval of input mixup excludes zero, which is not enough for a verdict with 2 "
        "comparisons (adjusted p-value 0.058)."
    )


def test_a_study_that_was_cut_to_fit_the_minutes_says_so(summary):
    settings = summary["settings"]
    assert not any("--minutes" in one for one in remarks(summary))
    settings["training"] = {"epochs": 6}
    settings["shortened"] = {"minutes": 3.0, "seeds": settings["seeds"], "epochs": 60, "splits": 5}
    (found,) = (one for one in remarks(summary) if "--minutes" in one)
    assert found.startswith(
        "Warning: this study has 6 epochs instead of 60, 1 split instead of 5, which its generated "
        "recipe would have without --minutes 3. Longer training"
    )
    settings["training"]["epochs"] = 80  # raised in the recipe
    (found,) = (one for one in remarks(summary) if "--minutes" in one)
    assert "this study has 1 split instead of 5, which" in found
    settings["splits"] = 5
    assert not any("--minutes" in one for one in remarks(summary))


def test_arms_that_differ_in_more_than_mixing_are_named(summary):
    assert "input mixup also differs from ERM in training.epochs." in remarks(summary)
    arms = summary["settings"]["arms"]
    arms["mixup"]["training"] = {}
    assert not any("also differs" in one for one in remarks(summary))
    arms["mixup"] |= {"training": {"dropout": 0.3, "epochs": 30}}  # 30 is that of the recipe
    assert "input mixup also differs from ERM in training.dropout." in remarks(summary)


def test_intervals_that_are_wider_than_their_parts_are_explained(summary):
    found = summary["rows"][1]["metrics"]["accuracy"]["difference"]
    found |= {"low": -1.0, "high": 2.0, "seeds": 0.1, "examples": 0.8}
    assert not any("wider than seeds" in one for one in remarks(summary))
    found["examples"] = 0.7
    assert sum("wider than seeds" in one for one in remarks(summary)) == 1


def test_the_answer_says_that_arms_are_the_same_within_the_margin(summary):
    summary["rows"][1] = row("mixup", "true labels", 98.1, 0.1, verdict="the same")
    assert answer(only_true_labels(summary)) == (
        "Input mixup and ERM are the same within ±0.5 points: the difference is +0.1 points "
        "(95% interval −0.9 to +1.1)."
    )


def test_the_answer_and_the_caption_say_that_there_is_one_seed(summary):
    summary["settings"]["seeds"] = 1
    for one in summary["rows"]:
        for found in one["metrics"].values():
            found |= {"low": None, "high": None, "seeds": None, "examples": None}
            if found["difference"]:
                found["difference"] |= {"low": None, "high": None, "seeds": None}
        if one["verdict"]:
            one |= {"verdict": "withheld", "withheld": "one seed gives no interval"}
    assert "there is no verdict on input mixup: one seed gives no interval" in answer(summary)
    assert caption(summary).startswith("One seed gives no interval")
    assert study_table(summary)[1][1][2] == "98.5"


def test_the_caption_of_several_splits_names_the_correction(summary):
    summary["settings"] |= {"splits": 5, "seeds": 2}
    assert "Means over 5 splits of the data with 2 seeds each" in caption(summary)
    assert "Nadeau and Bengio" in caption(summary)
    assert "splits, examples" in study_table(summary)[0]


def test_no_evidence_comes_with_the_detectable_difference_and_what_would_halve_it(summary):
    assert (
        "input mixup, true labels: a study of this size detects a true difference of 1.5 points "
        "with a probability of 80%. To detect half of that difference would take 2,160 test "
        "examples instead of 5."
    ) in remarks(summary)
    summary["rows"][1]["to_halve"] = {"seeds": 12, "examples": 2160}
    assert "would take 12 seeds instead of 3, or 2,160 test examples instead of 5." in " ".join(
        remarks(summary)
    )
    summary["rows"][1]["to_halve"] = {"seeds": None, "examples": None}
    assert "To detect half of that difference, raise seeds and test examples together." in " ".join(
        remarks(summary)
    )


def test_the_constant_prediction_is_named(summary):
    assert ("A constant prediction (always “7”) has accuracy 10.0%.") in remarks(summary)


def test_other_metrics_are_proposed_if_most_examples_are_of_one_class(summary):
    assert "--metric" not in " ".join(remarks(summary))
    summary["constant"]["accuracy"] = 90.0
    assert "--metric auroc" in remarks(summary)[-1]
    shares = {"title": "balanced accuracy", "percent": True, "higher": True}
    summary["metrics"]["balanced-accuracy"] = shares
    for one in summary["rows"]:
        one["metrics"]["balanced-accuracy"] = one["metrics"]["accuracy"]
    summary |= {"metric": "balanced-accuracy", "constant": {"balanced-accuracy": 100.0}}
    assert "--metric" not in " ".join(remarks(summary))


def test_the_least_width_of_intervals_is_mentioned_where_they_have_one(summary):
    assert "three more test examples" in parts_caption(summary)
    summary["settings"]["splits"] = 5
    assert "three more test examples" in parts_caption(summary)
    summary["metric"] = "nll"
    assert "examples" in parts_caption(summary)
    assert "three more" not in parts_caption(summary)


def test_the_other_metrics_have_a_table_with_the_constant_prediction_last(summary):
    head, rows = metrics_table(only_true_labels(summary))
    assert head == ["arm", "NLL", "difference"]
    assert rows == [
        ["ERM", "0.5 [−0.5, 1.5]", "—"],
        ["input mixup", "0.5 [−0.5, 1.5]", "+0.2 [−0.8, +1.2]"],
        ["constant prediction", "2.3", "—"],
    ]


def test_markdown_has_the_cells_of_every_row(summary):
    first, second, third = (
        [line for line in part.splitlines() if line.startswith("|")]
        for part in re.split("## (?:Other metrics|Cost)", markdown(summary))
    )
    assert len(first) == 2 + 4
    assert len(second) == 2 + 4 + 1
    assert third[2:4] == [  # of 30 and 60 epochs with 10 examples
        "| true labels | ERM | 1.2 | 240 | 95 MiB |",
        "| true labels | input mixup | 1.2 | 480 | 95 MiB |",
    ]
    for table in (first, second, third):
        assert len({line.count("|") for line in table}) == 1
    cells = "| 92.0 [91.0, 93.0] | +22.0 [+21.0, +23.0] | ±0.5, ±0.8 | better | 12.2 | 3 |"
    assert cells in first[-1]


def test_csv_has_a_column_for_each_number_of_the_summary(summary):
    rows = list(csv.DictReader(io.StringIO(csv_text(csv_rows(summary)))))
    for read, expected in zip(rows, summary["rows"], strict=True):
        for name, found in expected["metrics"].items():
            for prefix, one in ((name, found), (f"{name}_difference", found["difference"] or {})):
                for key in ("value", "low", "high", "seeds", "examples"):
                    cell = read[f"{prefix}_{key}".removesuffix("_value")]
                    assert (float(cell) if cell else None) == one.get(key)
        assert (read["arm"], read["verdict"]) == (expected["arm"], expected["verdict"] or "")


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (2285.4, 340.2, "2,285"),
        (-1.705, 109.0, "−2"),
        (-0.3, 50.0, "−0.3"),
        (0.004, 0.95, "0.004"),
        (0.0, 0.95, "0.00"),
        (-0.0, 0.95, "0.00"),
        (0.0123456, 5e-6, "0.0123456"),
        (3.21e-10, 1e-11, "3.21e−10"),
        (1e300, 1e299, "1e+300"),
        (math.nan, 1.0, "nan"),
        (12.3456, math.inf, "12.35"),
        (12.3456, 0.0, "12.35"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_supports(value, half, text):
    assert number_text(value, percent=False, half=half) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-12.34, "−12.3"),
        (0.06, "+0.1"),
        (2.4496, "+2.4"),
        (99.9496, "+99.9"),
        (0.0496, "+0.05"),
        (0.04, "+0.04"),
        (-0.0042, "−0.004"),
        (0.0006, "+0.001"),
        (-0.0004, "0.0"),
        (-0.0, "0.0"),
        (math.nan, "+nan"),
    ],
)
def test_a_difference_in_percent_is_only_zero_without_a_sign(value, text):
    assert number_text(value, percent=True, sign=True, half=1.0) == text
