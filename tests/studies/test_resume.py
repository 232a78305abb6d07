"""What may change in the recipe of a folder, and trials that fail."""

import json
import os
import signal
import tomllib
from pathlib import Path

import pytest
import tomlkit

from vicinal.studies.study import Study
from vicinal.training.recipe import load_resolved
from vicinal.training.trial_result import Trial

pytestmark = pytest.mark.usefixtures("without_figures")

FEW = {"arms.mixup-features": None, "corrupted_labels": [0.0], "training.epochs": 1}
EXPLODING = {"training": {"optimizer": {"name": "sgd", "lr": 1e30}}}


@pytest.fixture
def recipe(small_recipe):
    """Write a small recipe of two arms, and return a function that changes it."""
    path = small_recipe(FEW | {"seeds": 1})

    def write(change=lambda _settings: None):
        settings = tomllib.loads(path.read_text())
        change(settings)
        path.write_text(tomlkit.dumps(settings))
        return path

    return write


def ran(done):
    assert done.exit_code == 0, done.output
    return [line for line in done.stderr.splitlines() if line.startswith("[")]


def test_a_start_that_failed_leaves_a_folder_for_any_recipe(recipe, tmp_path, vicinal):
    def missing(settings):
        settings["data"]["source"] = "npz:nowhere.npz"

    def mended(settings):
        settings["data"]["source"] = "digits"
        settings["training"] |= {"batch_size": 32}
        settings["name"] = "other"

    out = tmp_path / "study"
    assert "nowhere.npz" in vicinal("study", recipe(missing), "--out", out).stderr
    assert len(ran(vicinal("study", recipe(mended), "--out", out))) == 2


def test_a_training_that_failed_to_start_leaves_a_folder_for_any_recipe(recipe, tmp_path, vicinal):
    words = ["--arm", "erm", "--out", tmp_path / "run"]

    def too_large(settings):
        settings["training"]["batch_size"] = 5000

    def mended(settings):
        settings["training"]["batch_size"] = 50

    failed = vicinal("train", recipe(too_large), *words)
    assert "batch_size: expected at most 1257" in failed.stderr
    (tmp_path / "run" / "wandb").mkdir()  # as a logger leaves it
    done = vicinal("train", recipe(mended), *words)
    assert done.exit_code == 0, done.stderr


def test_titles_arms_conditions_and_published_rows_are_added_and_what_is_finished_stays(
    recipe, tmp_path, vicinal
):
    out = tmp_path / "study"
    assert len(ran(vicinal("study", recipe(), "--out", out))) == 2
    before = {path: path.read_bytes() for path in out.glob("trials/*/*")}

    def more(settings):
        settings["arms"]["mixup"]["title"] = "MixUp of inputs"
        settings["arms"]["strong"] = settings["arms"]["mixup"] | {"alpha": 9.0, "title": "strong"}
        settings["corrupted_labels"] = [0.0, 0.2]
        row = {"arm": "erm", "epochs": 1, "accuracy": 95.0, "source": "a paper"}
        settings["published"] = [row]

    assert len(ran(vicinal("study", recipe(more), "--out", out))) == 4
    assert {path: path.read_bytes() for path in before} == before
    assert "MixUp of inputs" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s["training"].update(label_smoothing=0.1), "training.label_smoothing was 0.0"),
        (lambda s: s["arms"]["mixup"].update(alpha=2.0), "arms.mixup.alpha was"),
        (lambda s: s["arms"].pop("mixup"), "arms.mixup was removed"),
        (lambda s: s.update(corrupted_labels=[0.1]), "0.4 was removed from corrupted_labels"),
        (lambda s: s["data"].update(test_fraction=0.4), "data.test_fraction was 0.3"),
        (lambda s: s.update(baseline="mixup"), "baseline was 'erm' and is 'mixup'"),
    ],
)
def test_what_would_change_a_finished_trial_is_refused_by_name(
    copied_study, tmp_path, vicinal, change, named
):
    settings = tomllib.loads((copied_study / "recipe.toml").read_text())
    change(settings)
    path = tmp_path / "changed.toml"
    path.write_text(tomlkit.dumps(settings))
    refused = vicinal("study", path, "--out", copied_study)
    assert refused.exit_code == 2
    assert f"holds a study with different settings: {named}" in refused.stderr
    removed = "removed" in named
    assert ("Name the finished arms and conditions too" in refused.stderr) == removed
    changed = named.startswith("arms.") and not removed
    assert ("under other names" in refused.stderr) == changed


def test_a_recipe_that_the_user_wrote_into_the_folder_is_not_replaced_by_another(
    recipe, tmp_path, vicinal
):
    path = recipe(lambda settings: settings.update(name="mine"))
    mine = tmp_path / "folder"
    mine.mkdir()
    words = "# written by hand\n" + path.read_text()
    (mine / "recipe.toml").write_text(words)
    refused = vicinal("study", recipe(lambda settings: settings.update(seeds=2)), "--out", mine)
    assert refused.exit_code == 2
    assert "seeds was 1 and is 2" in refused.stderr
    assert (mine / "recipe.toml").read_text() == words


def explode(settings):
    settings["seeds"] = 2
    settings["arms"]["wild"] = settings["arms"]["mixup"] | EXPLODING | {"title": "Wild"}


def test_a_trial_that_diverges_is_in_the_report_and_the_study_continues(recipe, tmp_path, vicinal):
    out = tmp_path / "study"
    done = vicinal("study", recipe(explode), "--out", out)
    assert done.exit_code == 3, done.output
    reason = "loss became nan in epoch 1"
    for seed in (0, 1):
        assert f"failed: Wild, seed {seed}: the training {reason}" in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    rows = {row["arm"]: row for row in summary["rows"]}
    assert [rows[arm]["n"] for arm in ("erm", "mixup", "wild")] == [2, 2, 0]
    assert rows["wild"]["metrics"]["accuracy"]["value"] is None
    assert rows["wild"]["verdict"] == "withheld"
    assert rows["mixup"]["verdict"] in ("better", "worse", "the same", "no evidence")
    for name in ("table.md", "report.html"):
        assert f"Wild, seeds 0, 1: the training {reason}" in (out / name).read_text()
    again = vicinal("study", recipe(), "--out", out)
    assert again.exit_code == 3
    assert "seeds 0, 1" in again.stdout
    assert ran_none(again)
    mended = vicinal("study", recipe(calm), "--out", out)
    assert len(ran(mended)) == 2
    summary = json.loads((out / "summary.json").read_text())
    assert [row["n"] for row in summary["rows"]] == [2, 2, 2]
    assert "failed" not in (out / "table.md").read_text()


def calm(settings):
    settings["arms"]["wild"]["training"] = {"optimizer": {"name": "sgd", "lr": 1e-3}}


def ran_none(done):
    return not any(line.startswith("[") for line in done.stderr.splitlines())


def test_differences_are_of_the_seeds_that_finished_in_both_arms(copied_study, vicinal):
    gone = Trial("mixup", 0.0, 1)
    folder = copied_study / "trials" / gone.folder
    settings = json.loads((folder / "result.json").read_text())["settings"]
    (folder / "result.json").unlink()
    (folder / "failed.json").write_text(json.dumps({"reason": "a test", "settings": settings}))
    done = vicinal("study", copied_study / "recipe.toml", "--out", copied_study, "--json")
    assert done.exit_code == 3
    results = Study(load_resolved(copied_study / "recipe.toml"), copied_study).results()
    row = next(
        row
        for row in json.loads(done.stdout)["rows"]
        if (row["arm"], row["condition"]) == ("mixup", "true labels")
    )
    erm, mixup = (results[Trial(arm, 0.0, 0)].test_metric for arm in ("erm", "mixup"))
    assert row["n"] == 1
    assert row["metrics"]["accuracy"]["difference"]["value"] == pytest.approx(
        100 * (mixup - erm), abs=1e-3
    )
    assert row["failed"] == [{"seed": 1, "split": 0, "reason": "a test"}]
    assert (row["verdict"], row["withheld"]) == ("withheld", "1 of 2 trials failed")


def test_a_study_in_which_every_trial_failed_raises(recipe, tmp_path, vicinal):
    def wild(settings):
        for arm in settings["arms"].values():
            arm["training"] = EXPLODING["training"]

    done = vicinal("study", recipe(wild), "--out", tmp_path / "study")
    assert done.exit_code == 2
    assert "every trial failed" in done.stderr
    assert "loss became nan" in done.stderr


def test_a_refused_change_leaves_the_folder_of_a_study_as_it_was(copied_study, vicinal):
    recipe = copied_study / "recipe.toml"

    def content():
        return {path: path.read_bytes() for path in copied_study.rglob("*") if path.is_file()}

    before = content()
    for words, sentence in (
        (("--set", "splits=3"), "splits was 1 and is 3"),
        (("--arms", "erm,mixup,mixup-features,column-cutmix"), "column-cutmix"),
        (("--seeds", 50, "--set", "probes.ood.source=nothing"), "probes.ood.source: there is no"),
    ):
        refused = vicinal("study", recipe, *words, "--out", copied_study)
        assert refused.exit_code == 2, words
        assert sentence in refused.stderr
        assert content() == before, words


def test_an_interrupted_trial_whose_settings_have_changed_starts_over(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    changes = {"seeds": 1, "arms.mixup-features": None, "corrupted_labels": [0.0]}
    changes |= {"training.epochs": 3, "training.batch_size": 64, "training.checkpoint_every": 1}
    recipe, out = small_recipe(changes), tmp_path / "out"
    replace, sent = os.replace, []

    def replace_and_send(source, path):
        replace(source, path)
        if Path(path).name == "state.safetensors" and not sent:
            sent.append(path)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("os.replace", replace_and_send)
    assert vicinal("study", recipe, "--out", out).exit_code == 2
    assert Path(sent[0]).exists()
    refused = vicinal("study", recipe, "--set", "training.batch_size=100000", "--out", out)
    assert refused.exit_code == 2
    assert Path(sent[0]).exists()  # it is too early to start over
    done = vicinal("study", recipe, "--set", "training.lr=0.002", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "starts over, since its settings have changed (training.optimizer.lr" in done.stderr
