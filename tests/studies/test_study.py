import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from vicinal.data import load
from vicinal.errors import UserError
from vicinal.reports.study_report import current_summary, write_report
from vicinal.studies import Study, open_study, run_study
from vicinal.studies.summary import summarized, summary_text
from vicinal.training.recipe import load_resolved
from vicinal.training.trial_result import Trial, read_metrics

pytestmark = pytest.mark.usefixtures("without_figures")


class Record:
    """Writes down what a study tells."""

    def __init__(self):
        self.total = self.done = None
        self.started, self.finished, self.epochs = [], [], 0

    def skipped(self, split, sentences):
        raise AssertionError(f"nothing of {split} is skipped here: {sentences}")

    def begin(self, recipe, total, done):
        self.total, self.done = total, done

    def start(self, trial):
        self.started.append(trial)

    def log(self, sentence):
        raise AssertionError(sentence)

    def epoch(self, row, metric):
        self.epochs += 1

    def finish(self, result):
        self.finished.append(Trial(result.arm, result.corrupted, result.seed))


class Told(Record):
    def __init__(self):
        super().__init__()
        self.told = []

    def log(self, sentence):
        self.told.append(sentence)


def run_again(folder, record=None, **changes):
    recipe = load_resolved(folder / "recipe.toml").model_copy(update=changes)
    record = record or Record()
    with open_study(recipe, folder) as study:
        run_study(study, record)
    return record


def test_a_finished_study_trains_nothing(copied_study):
    record = run_again(copied_study)
    assert (record.total, record.done, record.started) == (12, 12, [])


def test_a_trial_whose_result_is_gone_is_trained_again_to_the_same_metrics(copied_study):
    gone = copied_study / "trials" / "mixup-true-labels-seed0" / "result.json"
    metrics = without_seconds(gone)
    gone.unlink()
    record = run_again(copied_study)
    assert record.started == [Trial("mixup", 0.0, 0)]
    assert (record.finished, record.epochs) == (record.started, 2)
    assert without_seconds(gone) == metrics


def test_a_finished_trial_whose_metrics_were_changed_is_not_trained_again(copied_study):
    broken = copied_study / "trials" / "erm-40-corrupted-seed1" / "metrics.csv"
    broken.write_text(broken.read_text().replace(",", ";"))
    with pytest.raises(UserError, match=r"seed1/metrics\.csv is missing or damaged"):
        run_again(copied_study)


def without_seconds(path):
    return [row._replace(seconds=0.0) for row in read_metrics(path.parent, "accuracy")]


def test_seeds_can_be_added_to_a_study(copied_study):
    record = run_again(copied_study, seeds=3)
    assert (record.total, record.done) == (18, 12)
    assert {trial.seed for trial in record.started} == {2}


def test_examples_of_fewer_trials_do_not_outlive_an_interruption(copied_study, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    # Without the file, the next run notices that it has to be written.
    monkeypatch.setattr("vicinal.studies.examples.write_examples", stop)
    with pytest.raises(KeyboardInterrupt):
        run_again(copied_study, seeds=3)
    assert not (copied_study / "examples.npz").exists()


def test_fewer_seeds_than_there_are_train_nothing(copied_study):
    record = run_again(copied_study, Told(), seeds=1)
    assert (record.total, record.done, record.started) == (6, 6, [])
    assert record.told == ["warning: finished trials of other seeds are not shown: 6"]


def test_trials_run_in_the_order_of_the_study_and_a_ledger_of_earlier_versions_is_left(
    copied_study,
):
    ledger = copied_study / "study.db"
    ledger.write_bytes(b"written by Optuna")
    for name in ("mixup-40-corrupted-seed1", "erm-true-labels-seed0", "erm-true-labels-seed1"):
        (copied_study / "trials" / name / "result.json").unlink()
    started = [Trial("erm", 0.0, 0), Trial("erm", 0.0, 1), Trial("mixup", 0.4, 1)]
    assert run_again(copied_study).started == started
    assert ledger.read_bytes() == b"written by Optuna"


def test_a_folder_in_use_is_refused(copied_study):
    with (
        FileLock(copied_study / ".lock"),
        pytest.raises(UserError, match="is in use by another vicinal"),
    ):
        run_again(copied_study)


def test_the_fields_of_a_different_study_are_named(copied_study):
    recipe = load_resolved(copied_study / "recipe.toml")
    other = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"epochs": 3, "ema_decay": 0.5})}
    )
    words = (
        r"training\.ema_decay was not set and is 0\.5; "
        r"training\.epochs was 2 and is 3"
    )
    with (
        pytest.raises(UserError, match=f"holds a study with different settings: {words}"),
        open_study(other, copied_study),
    ):
        pass


def test_metrics_are_added_to_a_finished_study_if_the_primary_one_stays(copied_study):
    assert not load_resolved(copied_study / "recipe.toml").metrics
    with pytest.raises(UserError, match="metric was 'accuracy' and is 'brier'"):
        run_again(copied_study, metrics=("brier", "accuracy"))
    for metrics in (("accuracy", "brier"), (), ("accuracy",)):
        assert run_again(copied_study, metrics=metrics).started == []


@pytest.mark.parametrize("metric", ["rmse"])
def test_metrics_that_the_task_does_not_have_are_not_added(copied_study, metric):
    path = copied_study / "recipe.toml"
    before = path.read_bytes()
    with pytest.raises(UserError, match=metric):
        run_again(copied_study, metrics=("accuracy", metric))
    assert path.read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_left_alone(finished_study, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    recipe = load_resolved(finished_study / "recipe.toml")
    with (
        pytest.raises(UserError, match="expected a study or an empty folder"),
        open_study(recipe, tmp_path),
    ):
        pass
    assert not (tmp_path / "recipe.toml").exists()


def test_a_result_of_other_data_is_never_averaged(copied_study, vicinal):
    path = copied_study / "trials" / "mixup-true-labels-seed1" / "result.json"
    result = json.loads(path.read_text())
    result["origin"]["data"]["test"] |= {"examples": 450, "sha256": "0" * 64}
    path.write_text(json.dumps(result))
    recipe = copied_study / "recipe.toml"
    for more in ([], ["--seeds", 3]):
        refused = vicinal("study", recipe, "--out", copied_study, *more)
        assert refused.exit_code == 2
        assert (
            "mixup-true-labels-seed1 and erm-true-labels-seed0 were trained with different data, "
            "code or versions" in refused.stderr
        )
        assert "data.test.examples was 540 and is 450" in refused.stderr


def test_data_with_another_number_of_test_examples_than_the_results_are_refused(
    copied_study, vicinal, monkeypatch
):
    fewer = load("digits", test_fraction=0.2, seed=0)
    monkeypatch.setattr("vicinal.training.trial_setup.load", lambda *_, **__: fewer)
    recipe = copied_study / "recipe.toml"
    refused = vicinal("study", recipe, "--out", copied_study, "--seeds", 3)
    assert refused.exit_code == 2
    assert "data.test.examples was 540 and is 360" in refused.stderr


def test_a_trial_copied_from_another_recipe_is_refused(copied_study, small_recipe, vicinal):
    recipe = small_recipe({"training.label_smoothing": 0.1})
    (copied_study / "recipe.toml").write_text(recipe.read_text())
    refused = vicinal("study", recipe, "--out", copied_study)
    assert refused.exit_code == 2
    assert "training.label_smoothing was 0.0 and is 0.1" in refused.stderr
    assert "trials/erm-true-labels-seed0: the recipe has changed" in refused.stderr


REPORT = ["report.html", "table.md", "table.tex", "summary.json", "SHA256SUMS", "examples.npz"]


def test_damaged_files_of_a_report_are_noticed_and_written_again(copied_study, vicinal):
    recipe = load_resolved(copied_study / "recipe.toml")
    study = Study(recipe, copied_study)
    summary = summarized(study)
    write_report(study, summary)
    assert current_summary(study) == json.loads(summary_text(summary))
    paths = [copied_study / name for name in REPORT]
    paths.append(min((copied_study / "figures").iterdir()))
    wholes = [path.read_bytes() for path in paths]
    for path, whole in zip(paths, wholes, strict=True):
        for damaged in (b"", whole[:-9], b"\xff" * 99, None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            assert current_summary(study) is None, (path, damaged)
        path.write_bytes(whole)
    for path in paths:
        path.write_bytes(b"\xff")
    done = vicinal("study", copied_study / "recipe.toml", "--out", copied_study)
    assert done.exit_code == 0, done.stderr
    assert [path.read_bytes() for path in paths] == wholes


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
def test_a_report_is_not_current_after_a_result_has_changed(copied_study, name):
    study = Study(load_resolved(copied_study / "recipe.toml"), copied_study)
    path = study.trial_folder(study.trials[0]) / name
    path.write_bytes(path.read_bytes() + b" ")
    assert current_summary(study) is None
    path.unlink()
    assert current_summary(study) is None


def test_a_finished_study_is_shown_without_computing_anything(copied_study, vicinal, monkeypatch):
    def computed(*_):
        raise AssertionError("a statistic was computed")

    monkeypatch.setattr("vicinal.studies.summary.summarize", computed)
    monkeypatch.setattr(Study, "results", computed)
    done = vicinal("study", copied_study / "recipe.toml", "--out", copied_study)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("report: ")


def test_a_study_shown_from_its_files_says_when_its_report_was_written(copied_study, vicinal):
    os.utime(copied_study / "summary.json", (1_700_000_000, 1_700_000_000))
    recipe = copied_study / "recipe.toml"
    done = vicinal("study", recipe, "--out", copied_study)
    assert (
        f"{copied_study} has a finished study, whose report was written on 2023-11-1" in done.stderr
    )
    (copied_study / "report.html").unlink()
    assert "was written on" not in vicinal("study", recipe, "--out", copied_study).stderr


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (
            lambda text: re.sub(r"(?ms)^\[arms\.mixup\b.*?(?=^\[|\Z)", "", text),
            "arms.mixup was removed",
        ),
        (
            lambda text: re.sub(r"corrupted_labels = \[.*?\]", "corrupted_labels = [0.0]", text),
            "0.4 was removed from corrupted_labels",
        ),
    ],
)
def test_finished_trials_that_an_edited_recipe_lacks_are_refused(
    copied_study, vicinal, edit, named
):
    recipe = copied_study / "recipe.toml"
    text = recipe.read_text()
    recipe.write_text(edit(text))
    assert recipe.read_text() != text
    refused = vicinal("study", recipe, "--out", copied_study)
    assert refused.exit_code == 2
    assert f"holds a study with different settings: {named}" in refused.stderr


@pytest.mark.parametrize("moment", ["checkpoint.safetensors", "outputs.safetensors"])
def test_a_signal_after_the_last_epoch_of_a_trial_stops_the_study(
    copied_study, monkeypatch, moment
):
    for trial in ("erm-true-labels-seed0", "mixup-true-labels-seed1"):
        (copied_study / "trials" / trial / "result.json").unlink()
    replace, sent = os.replace, []

    def replace_and_send(source, path):
        replace(source, path)
        if Path(path).name == moment and not sent:
            sent.append(path)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("os.replace", replace_and_send)
    with pytest.raises(UserError, match="stopped by SIGTERM"):
        run_again(copied_study)
    assert sent
    monkeypatch.undo()
    record = run_again(copied_study)
    assert record.started[-1] == Trial("mixup", 0.0, 1)
    assert not (copied_study / "trials/erm-true-labels-seed0/state.safetensors").exists()


def test_showing_a_finished_study_imports_neither_fabric_nor_matplotlib(copied_study):
    code = (
        "import sys, vicinal\n"
        f"vicinal.study({str(copied_study / 'recipe.toml')!r}, out={str(copied_study)!r})\n"
        "heavy = {'lightning_fabric', 'matplotlib', 'scipy.stats', 'sklearn', 'pandas'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sha256sum_accepts_the_list_of_hashes(copied_study):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=copied_study,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trials/erm-true-labels-seed0/result.json: OK" in done.stdout


@pytest.mark.parametrize("content", [b"", b"garbage", None, "missing"])
def test_damaged_examples_are_written_again(copied_study, vicinal, content):
    path = copied_study / "examples.npz"
    whole = path.read_bytes()
    (copied_study / "report.html").unlink()
    if content == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-2000] if content is None else content)
    done = vicinal("study", copied_study / "recipe.toml", "--out", copied_study)
    assert done.exit_code == 0, done.stderr
    assert "examples.npz is missing or damaged" in done.stderr
    assert path.read_bytes() == whole
    assert (
        'id="examples"' in (copied_study / "report.html").read_text()
        or (copied_study / "figures" / "examples.svg").exists()
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("origin", "data"), {}),
        (("origin", "data", "classes"), ["a"]),
        (("origin", "data", "test", "of_each_class"), [-1] * 10),
        (("origin", "network", "source"), []),
        (("origin", "data", "predictor"), {"mean": "none"}),
        (("test_examples",), 0),
    ],
)
def test_a_result_whose_origin_or_counts_are_damaged_is_refused(copied_study, vicinal, path, value):
    file = copied_study / "trials" / "mixup-true-labels-seed1" / "result.json"
    result = json.loads(file.read_text())
    *inner, last = path
    place = result
    for name in inner:
        place = place[name]
    place[last] = value
    file.write_text(json.dumps(result))
    refused = vicinal("study", copied_study / "recipe.toml", "--out", copied_study)
    assert refused.exit_code == 2
    assert "result.json is invalid" in refused.stderr
