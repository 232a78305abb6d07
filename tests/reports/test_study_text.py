import csv
import io
import json

import pytest

from vicinal.reports.study_tables import csv_text, markdown
from vicinal.reports.study_text import answer, caption, study_table


@pytest.fixture
def summary():
    def row(arm, condition, accuracy, difference=None, *, verdict=None, memorized=None):
        low, high = (None, None) if difference is None else (difference - 1, difference + 1)
        return {
            "arm": arm,
            "condition": condition,
            "n": 3,
            "accuracy": accuracy,
            "low": accuracy - 1,
            "high": accuracy + 1,
            "difference": difference,
            "difference_low": low,
            "difference_high": high,
            "verdict": verdict,
            "memorized": memorized,
            "seconds": 1.25,
        }

    return {
        "study": "s",
        "rows": [
            row("erm", "true labels", 98.0),
            row("mixup", "true labels", 98.5, 0.5, verdict="no evidence"),
            row("erm", "40% corrupted", 70.0, memorized=100.0),
            row("mixup", "40% corrupted", 92.0, 22.0, verdict="better", memorized=12.25),
        ],
        "settings": {
            "baseline": "erm",
            "seeds": 3,
            "arms": {"erm": {"title": "ERM"}, "mixup": {"title": "input mixup"}},
        },
        "versions": {},
    }


def test_the_answer_starts_with_verdicts_and_names_interval_and_difference(summary):
    assert answer(summary) == (
        "With 40% corrupted labels, input mixup is better than ERM: test accuracy 92.0% versus "
        "70.0%, a difference of +22.0 points (95% interval +21.0 to +23.0). With true labels, "
        "there is no evidence of a difference: the largest, of input mixup, is +0.5 points "
        "(95% interval −0.5 to +1.5)."
    )


def test_the_answer_names_an_arm_that_is_worse(summary):
    summary["rows"][1] |= {"verdict": "worse", "difference": -3.0, "accuracy": 95.0}
    assert "With true labels, input mixup is worse than ERM: test accuracy 95.0%" in answer(summary)


def test_the_answer_and_the_caption_say_that_there_is_one_seed(summary):
    summary["settings"]["seeds"] = 1
    for row in summary["rows"]:
        row |= {"difference_low": None, "difference_high": None, "low": None, "high": None}
        row["verdict"] = row["verdict"] and "no evidence"
    assert "+22.0 points (one seed)" in answer(summary)
    assert caption(summary).startswith("One seed gives no interval")
    assert study_table(summary)[1][1][2] == "98.5"


def test_markdown_has_the_cells_of_every_row(summary):
    table = [line for line in markdown(summary).splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert len({line.count("|") for line in table}) == 1
    assert "| 92.0 [91.0, 93.0] | +22.0 [+21.0, +23.0] | better | 12.2 | 3 |" in table[-1]


def test_csv_holds_the_numbers_of_the_summary(summary):
    rows = list(csv.DictReader(io.StringIO(csv_text(summary["rows"]))))
    for row, expected in zip(rows, summary["rows"], strict=True):
        read = {
            name: json.loads(v) if v and v[0] in "-0123456789" and "%" not in v else v or None
            for name, v in row.items()
        }
        assert read == expected
