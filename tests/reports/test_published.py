"""Published rows next to measured ones, in the summary and in every form of the report."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from vicinal.data import DataSet, Split
from vicinal.reports.study_cells import published_table
from vicinal.reports.study_tables import print_study
from vicinal.reports.table_files import csv_rows, csv_text, markdown
from vicinal.training.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("without_figures")

RESULTS = Path(__file__).parents[2] / "results/digits"
SENTENCE = (
    "Published numbers come from other hardware, versions and schedules. Only equal numbers of "
    "epochs with true labels are compared."
)
# 450 and 460 of 500 are correct. With two of four more in both (Agresti and Coull), these are 452
# and 462 of 504, with a mean of 90.67% and a standard error of 0.992 points over the seeds, which
# t(0.975, 1) = 12.7062 multiplies.
OURS = "91.00 [78.07, 100.00] (n = 2)"


def published(arm, epochs, accuracy):
    return {"arm": arm, "epochs": epochs, "accuracy": accuracy, "source": f"the {arm} paper"}


@pytest.fixture
def summarized(small_recipe, summary_of, logits_with):
    """Return a function that summarizes a study with published rows, of made-up results."""

    def of(**changes):
        rows = [
            published("erm", 2, 94.47),
            published("mixup", 2, 95.8),
            published("erm", 300, 90.0),
        ]
        recipe = read_recipe(str(small_recipe({"published": rows} | changes)))
        split = Split(torch.zeros(500, 1), torch.arange(500) % 10)
        data = DataSet(tuple("abcdefghij"), split, split)

        def outputs_of(trial):
            right = 250 if trial.corrupted else 450 + 10 * trial.seed
            return logits_with(split.targets, np.arange(500) < right)

        return summary_of(recipe, data, outputs_of)

    return of


def test_a_row_with_the_same_number_of_epochs_has_our_result_with_true_labels(summarized):
    summary = summarized()
    first, _, long = summary["published"]
    row = summary["rows"][0]
    accuracy = row["metrics"]["accuracy"]
    assert (row["arm"], row["condition"], accuracy["value"]) == ("erm", "true labels", 91.0)
    assert first == {
        "arm": "erm",
        "title": "ERM",
        "epochs": 2,
        "accuracy": 94.47,
        "source": "the erm paper",
        "measured": 91.0,
        "low": accuracy["low"],
        "high": accuracy["high"],
        "n": 2,
    }
    assert long["accuracy"] == 90
    assert [long[name] for name in ("measured", "low", "high", "n")] == [None] * 4


def test_the_epochs_are_those_of_the_arm(summarized):
    summary = summarized(**{"arms.erm.training": {"epochs": 300}})
    assert [row["measured"] for row in summary["published"]] == [None, 91.0, 91.0]


def test_an_arm_that_was_published_for_other_epochs_only_has_its_own_row_first(summarized):
    summary = summarized(**{"arms.mixup.training": {"epochs": 3}})
    first, *others = published_table(summary)[1]
    assert first == ["input mixup", "3", "—", OURS, "this study"]
    assert [row[3] for row in others] == [OURS, "—", "—"]
    assert ",3,,this study,91.0," in csv_text(summary["published"])


def test_without_true_labels_nothing_is_compared(summarized):
    summary = summarized(corrupted_labels=[0.4])
    assert [row["measured"] for row in summary["published"]] == [None] * 3


def test_each_row_has_an_interval_and_the_number_of_seeds_or_says_that_it_has_no_interval(
    summarized,
):
    several, one = summarized(), summarized(seeds=1)
    assert [row[3] for row in published_table(several)[1]] == [OURS, OURS, "—"]
    assert published_table(one)[1][0][3] == "90.00 (n = 1, no interval)"
    assert [row[2] for row in published_table(one)[1]] == ["94.47", "95.8", "90.0"]


def test_markdown_and_terminal_have_the_table_and_its_sentence(summarized):
    summary = summarized()
    text = markdown(summary)
    assert f"| ERM | 2 | 94.47 | {OURS} | the erm paper |" in text
    assert f"\n\n{SENTENCE}\n\n" in text
    console = Console(file=io.StringIO(), width=80)
    print_study(summary, console)
    printed = console.file.getvalue()
    assert "Published, next to ours" in printed
    assert f"95.8 {OURS} the mixup" in printed
    assert SENTENCE in " ".join(printed.split())


def test_known_differences_are_listed_below_the_published_rows(study_with_rows):
    folder, shown = study_with_rows
    assert "  - Their loss is <another> one.\n" in shown
    text = (folder / "table.md").read_text()
    assert "- Their loss is \\<another\\> one.\n- Their \\*network\\* has fewer norms.\n" in text
    page = (folder / "report.html").read_text()
    assert "<li>Their loss is &lt;another&gt; one.</li>" in page
    parts = ("next to ours", "Known differences", "<li>Their loss")
    places = [page.index(text) for text in parts]
    assert places == sorted(places)


def test_without_known_differences_there_is_no_list_of_them(summarized):
    assert "Known differences" not in markdown(summarized())


def test_csv_has_the_numbers(summarized):
    rows = list(csv.DictReader(io.StringIO(csv_text(summarized()["published"]))))
    assert [row["measured"] for row in rows] == ["91.0", "91.0", ""]
    assert [row["accuracy"] for row in rows] == ["94.47", "95.8", "90.0"]


def test_a_report_without_published_rows_does_not_mention_them():
    summary = json.loads((RESULTS / "summary.json").read_text())
    assert "published" not in summary
    assert markdown(summary) == (RESULTS / "table.md").read_text()
    assert csv_text(csv_rows(summary)) == (RESULTS / "table.csv").read_text()


def test_the_folder_and_the_page_have_the_published_rows(study_with_rows):
    folder, _ = study_with_rows
    summary = json.loads((folder / "summary.json").read_text())
    assert (folder / "published.csv").read_text() == csv_text(summary["published"])
    page = (folder / "report.html").read_text()
    assert "<h2>Published, next to ours</h2>" in page
    assert SENTENCE in page
    for row in published_table(summary)[1]:
        assert f"<span>{row[3]}</span>" in page.replace("\xa0", " ")


def test_a_deleted_table_of_published_rows_is_written_again(study_with_rows, vicinal):
    folder, _ = study_with_rows
    before = (folder / "published.csv").read_text()
    (folder / "published.csv").unlink()
    vicinal("study", folder / "recipe.toml", "--out", folder)
    assert (folder / "published.csv").read_text() == before


def test_a_study_without_published_rows_has_no_file_of_them(finished_study):
    assert not (finished_study / "published.csv").exists()
    assert "Published, next to ours" not in (finished_study / "report.html").read_text()
