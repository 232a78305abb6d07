"""The page of made-up studies of every kind, without a browser."""

import html
import io
import json
import re

import numpy as np
import pytest
from made_up import made_up_study
from rich.console import Console

from vicinal.errors import UserError
from vicinal.reports.redraw import redraw
from vicinal.reports.study_tables import print_study
from vicinal.studies.predictions import fingerprint
from vicinal.studies.summary import summarized

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """Return a function that draws the page of a made-up study, and returns its text."""

    def page(**settings):
        folder = tmp_path_factory.mktemp("study") / "made-up"
        made_up_study(folder, **settings)
        redraw([folder])
        return (folder / "report.html").read_text("utf-8")

    return page


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def words(page):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.partition("<main>")[2])).split())


START = ["Other metrics", "Should you mix at all?"]
COMMON = ["Learning curves", "Data", "Cost", "Recipe", "Versions and hardware"]
END = ["In your own loop", "Reviewer’s checklist"]


def test_a_study_of_classes_has_confusions_and_calibration(page_of, monkeypatch):
    monkeypatch.undo()  # the words of the figures count too
    page = page_of()
    assert headings(page) == [
        *START,
        "Classes",
        "Confusions",
        "Calibration",
        *COMMON,
        *END,
    ]
    assert page.count("Confusion matrix of") == 2
    assert "true labels" not in words(page)
    assert "wrong labels" not in words(page)
    assert "200 2 class 1 (31) class 4 (48)" in words(page)


def test_a_study_of_labels_has_the_precision_of_each_label(page_of):
    page = page_of(task="multi-label", classes=4)
    assert headings(page) == [*START, "Labels", "Calibration", *COMMON, *END]
    assert "label test examples ERM mixup 2 difference AUROC of ERM AUROC of mixup 2" in words(page)
    assert "plan.loss(F.binary_cross_entropy_with_logits" in html.unescape(page)


def test_a_study_of_real_values_has_errors_and_no_percent_sign_after_its_metric(page_of):
    page = page_of(task="regression", classes=1, seeds=4)
    assert headings(page) == [*START, "Predictions and errors", *COMMON, *END]
    answer = re.search(r'class="answer">(.*?)</p>', page)[1]
    assert re.fullmatch(
        r"Mixup 2 is better than ERM: test RMSE [\d.]+ versus [\d.]+, a difference of −[\d.]+ "
        r"\(95% interval −[\d.]+ to −[\d.]+\)\. A smaller RMSE is better\. Better too: mixup 1\.",
        answer,
    )


def test_only_the_condition_of_corrupted_labels_is_named_if_it_is_the_only_one(page_of):
    text = words(page_of(corrupted_labels=(0.4,), validation=True))
    assert "With 40% corrupted labels" in text
    assert "Wrong labels learned" in text
    assert "at the best epoch" in text
    assert "A validation split of 200 examples was held out" in text


def test_the_winning_settings_are_shown_or_that_there_are_none(page_of):
    won = html.unescape(page_of())
    assert "Mixup 2 is better than ERM. Its settings, for each batch x, y:" in won
    assert "policy = MixUp(alpha=1.0)\nplan = policy.draw(len(x))\nloss = plan.loss(" in won
    lost = words(page_of(gain=0.0))
    assert "No arm is better than ERM in this study, so there is nothing to copy." in lost


def test_a_winner_that_does_not_mix_has_no_loop_to_copy(page_of):
    page = words(page_of(baseline="arm2", gain=-0.1))
    assert "ERM is better than mixup 2, and does not mix." in page


def test_the_checklist_counts_trials_comparisons_and_names_hashes(page_of):
    text = words(page_of(failed=["arm1-true-labels-seed1"]))
    assert "9: 3 arms × 3 seeds. 8 finished, 1 failed; all that finished are counted." in text
    assert "Holm, over 2 comparisons with the baseline" in text
    assert f"test 200 examples, SHA-256 {'0' * 64}" in text
    assert "64 seconds of training and evaluation in all, on abacus, 2 cores, 8 GiB memory." in text
    assert "4 examples could not be read and were skipped." in text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"arms": 1}, "There is nothing to compare."),
        ({"seeds": 1}, "one seed gives no interval"),
        ({"arms": 2, "failed": [f"arm1-true-labels-seed{k}" for k in range(3)]}, "3 of 3 trials"),
        ({"failed": [f"erm-true-labels-seed{k}" for k in range(3)]}, "3 of 3 trials of ERM failed"),
        ({"splits": 3, "seeds": 2}, "overlapping training sets (Nadeau and Bengio)"),
    ],
)
def test_studies_with_little_to_compare_have_a_page(page_of, settings, sentence):
    assert sentence in words(page_of(examples=60, **settings))


def test_lines_of_many_arms_and_rows_of_many_classes_are_limited(page_of):
    page = page_of(arms=12, seeds=2, examples=300, classes=60)
    text = words(page)
    assert "The baseline and the best 7 other arms are drawn." in text
    assert "summary.json has all 60." in text
    assert "true class predicted test examples ERM, % mixup 11, %" in text
    assert len(page) < 1_000_000


def test_trials_that_are_not_finished_are_mentioned(tmp_path):
    study = made_up_study(tmp_path, examples=60)
    for name in ("result.json", "metrics.csv"):
        (study.trial_folder(study.trials[-1]) / name).unlink()
    redraw([tmp_path])
    text = words((tmp_path / "report.html").read_text("utf-8"))
    assert "Not finished: mixup 2: 1 trial has no result yet." in text
    assert "2 of 3" in text
    assert "1 of 3 trials is not finished" in text


def test_nothing_is_said_about_an_arm_whose_baseline_is_not_finished(tmp_path):
    study = made_up_study(tmp_path, examples=60, arms=2)
    for trial in study.trials:
        if trial.arm == "erm":
            for name in ("result.json", "metrics.csv"):
                (study.trial_folder(trial) / name).unlink()
    redraw([tmp_path])
    text = words((tmp_path / "report.html").read_text("utf-8"))
    assert "3 of 3 trials of ERM are not finished" in text
    assert "None." not in text


def test_labels_have_no_recall_if_accuracy_decides(page_of):
    page = page_of(task="multi-label", metrics=("accuracy", "auroc"))
    assert "accuracy" in page


def test_several_splits_are_pooled_where_examples_are_not_paired(tmp_path):
    study = made_up_study(tmp_path, examples=60, splits=2, classes=3)
    redraw([tmp_path])
    page = (tmp_path / "report.html").read_text("utf-8")
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    results = study.results()
    outputs = [study.outputs(one, results) for one in study.trials if one.arm == "erm"]
    right = [np.bincount(one.targets, one.last.argmax(1) == one.targets) for one in outputs]
    counts = [np.bincount(one.targets) for one in outputs]
    share = 100 * np.mean(np.sum(right, axis=0) / np.sum(counts, axis=0))
    assert f"Confusion matrix of ERM: {share:.1f}% of a class" in page
    assert summary["tested_of_each_class"] == (np.sum(counts, axis=0) // 3).tolist()
    assert "Numbers of examples are those of the first of 2 splits." in words(page)


def test_examples_that_were_chosen_for_other_trials_are_not_shown(tmp_path):
    study = made_up_study(tmp_path, examples=60, arms=2)
    results = study.results()
    outputs = {
        arm: [study.outputs(t, results) for t in results if t.arm == arm] for arm in ("erm", "arm1")
    }
    stored = {
        "rows better, true labels": np.array([3]),
        "rows worse, true labels": np.array([7]),
        "test_rows": np.array([3, 7]),
        "compared true labels": np.array(fingerprint(*outputs.values())),
    }
    np.savez(tmp_path / "examples.npz", **stored)
    redraw([tmp_path])
    head = "Test examples on which the arms differ most"
    assert head in (tmp_path / "report.html").read_text("utf-8")
    stored["compared true labels"] = np.array(fingerprint(*(one[:2] for one in outputs.values())))
    np.savez(tmp_path / "examples.npz", **stored)
    redraw([tmp_path])
    assert head not in (tmp_path / "report.html").read_text("utf-8")


def test_the_checklist_sums_the_time_of_all_trials(tmp_path):
    study = made_up_study(tmp_path, examples=60, arms=2)
    path = study.trial_folder(study.trials[0]) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 7160.0}))
    redraw([tmp_path])
    assert "2.0 hours of training and evaluation in all" in words(
        (tmp_path / "report.html").read_text("utf-8")
    )


@pytest.mark.parametrize("rates", [(0.4,), (0.4, 0.0)])
def test_accuracies_on_corrupted_and_on_true_labels_are_not_compared(page_of, rates):
    page = words(page_of(corrupted_labels=rates, examples=60))
    assert ("Does the baseline overfit?" in page) == (0.0 in rates)


@pytest.mark.parametrize("baseline", ["ERM", "empirical risk minimization, our best"])
def test_the_table_in_a_terminal_of_80_columns_is_whole(tmp_path, baseline):
    titles = {"erm": baseline, "arm1": "mixup with a title of some length"}
    study = made_up_study(tmp_path, examples=60, titles=titles, metrics=("nll",))
    for trial in study.trials:
        path = study.trial_folder(trial) / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 123.4}))
    summary, file = summarized(study), io.StringIO()
    print_study(summary, Console(file=file, width=80, color_system=None))
    table = file.getvalue().partition("Means over")[0]
    for row in summary["rows"]:
        found = row["metrics"]["nll"]
        assert 0.1 < (found["high"] - found["low"]) / 2 < 1  # so there are two decimals
        assert f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" in table
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "mixup with a" in table


def test_a_study_is_not_compared_with_itself(tmp_path):
    made_up_study(tmp_path / "one", examples=60)
    with pytest.raises(UserError, match=r"expected different studies, got .* twice"):
        redraw([tmp_path / "one", tmp_path / "two" / ".." / "one"], tmp_path / "out")


def test_errors_of_real_values_are_those_of_all_splits(tmp_path):
    study = made_up_study(tmp_path, task="regression", examples=60, splits=3, arms=2)
    redraw([tmp_path])
    results, errors = study.results(), []
    for split in range(3):
        own = [t for t in study.trials if (t.arm, t.split) == ("erm", split)]
        outputs = [study.outputs(one, results) for one in own]
        errors += (np.mean([one.last for one in outputs], 0) - outputs[0].targets).tolist()
    page = (tmp_path / "report.html").read_text("utf-8")
    assert f"a standard deviation of {np.std(errors):.3g}" in page
