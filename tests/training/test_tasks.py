"""Trials and studies of every task, from data to outputs and report."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from sklearn import metrics as sk

from vicinal.data import DataSet, Split, load
from vicinal.errors import UserError
from vicinal.mixing import MixUp
from vicinal.studies.study import Study
from vicinal.training.criterion import balanced_weights, criterion_of
from vicinal.training.metrics import metric_values
from vicinal.training.recipe import load_resolved, read_recipe
from vicinal.training.task import constant_outputs, task_of
from vicinal.training.tensor_tree import read_tree
from vicinal.training.trial import run_trial
from vicinal.training.trial_checkpoint import TrialCheckpointer
from vicinal.training.trial_result import OUTPUTS, Trial, read_metrics, read_result

pytestmark = pytest.mark.usefixtures("without_figures")

FEW = {"corrupted_labels": [0.0], "arms.mixup-features": None, "model.name": "mlp"}


@pytest.fixture
def recipe_of(small_recipe):
    """Return a function that reads a small recipe of two arms with changes."""
    return lambda **changes: read_recipe(str(small_recipe(FEW | changes)))


def data_of(targets, classes=(), *, validation=False, noise=0.3):
    """Return a data set whose inputs tell the targets, in equal splits."""
    chance = torch.Generator().manual_seed(0)
    y = torch.as_tensor(targets)
    columns = y.view(len(y), -1).float()
    scaled = (columns - columns.mean(0)) / columns.std(0)
    x = torch.cat([scaled, scaled], 1) + noise * torch.randn(
        len(y), 2 * scaled.shape[1], generator=chance
    )
    splits = [Split(x[k::3], y[k::3]) for k in range(3)]
    return DataSet(classes, splits[0], splits[1], validation=splits[2] if validation else None)


REAL = 1000 + 50 * np.random.default_rng(0).normal(size=600).astype(np.float32)
CLASSES = torch.arange(600) % 10 // 7  # 30% are of the second class
SMALL_BATCH = {"training.batch_size": 20, "training.epochs": 4}


def test_a_study_of_real_values_is_in_the_units_of_the_targets(small_recipe, tmp_path, vicinal):
    chance = np.random.default_rng(0)
    x = chance.normal(size=(300, 2))
    price = 1000 + 200 * x[:, 0] - 100 * x[:, 1] + 20 * chance.normal(size=300)
    lines = [f"{a:.4f},{b:.4f},{p:.3f}" for (a, b), p in zip(x, price, strict=True)]
    (tmp_path / "houses.csv").write_text("\n".join(["a,b,price", *lines]) + "\n")
    source = f"table:{tmp_path / 'houses.csv'}?label=price&task=regression"
    recipe = small_recipe(FEW | {"data.source": source, "training.epochs": 10})
    out = tmp_path / "study"
    done = vicinal("study", recipe, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert "seed 0: RMSE " in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["task"], summary["metric"]) == ("regression", "rmse")
    stored = load_file(out / "trials" / "erm-true-labels-seed0" / OUTPUTS)
    assert 900 < stored["targets"].mean() < 1100
    assert stored["last"].shape == (len(stored["targets"]), 1)
    error = sk.root_mean_squared_error(stored["targets"], stored["last"])
    assert error < 100
    assert summary["constant"]["rmse"] > 200
    result = json.loads((out / "trials" / "erm-true-labels-seed0" / "result.json").read_text())
    assert result["test_metric"] == pytest.approx(error, rel=1e-5)
    rows = read_metrics(out / "trials" / "erm-true-labels-seed0", "rmse")
    assert rows[-1].test_loss == pytest.approx((error / price.std()) ** 2, rel=0.2)
    page = (out / "report.html").read_text()
    assert "test RMSE" in page
    assert "true labels" not in page.partition("<h2>Recipe</h2>")[0]
    assert "Accuracy on each class" not in page
    inside = read_tree(out / "trials" / "erm-true-labels-seed0" / "checkpoint.safetensors")
    assert inside["info"]["task"] == "regression"
    assert float(inside["targets"]["mean"][0]) == pytest.approx(price.mean(), rel=0.05)


def test_a_study_of_label_vectors_averages_over_labels(small_recipe, tmp_path, vicinal):
    chance = np.random.default_rng(0)
    labels = (chance.random((400, 3)) < [0.2, 0.5, 0.7]).astype(np.float32)
    inputs = (labels + 0.5 * chance.normal(size=(400, 3))).astype(np.float32)
    np.savez(
        tmp_path / "tags.npz",
        train_inputs=inputs[:200],
        train_labels=labels[:200],
        validation_inputs=inputs[200:300],
        validation_labels=labels[200:300],
        test_inputs=inputs[300:],
        test_labels=labels[300:],
    )
    changes = {"data.source": f"npz:{tmp_path / 'tags.npz'}", "training.epochs": 5}
    out = tmp_path / "study"
    done = vicinal("study", small_recipe(FEW | changes | SMALL_BATCH), "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["task"], list(summary["metrics"])) == (
        "multi-label",
        ["average-precision", "auroc", "macro-f1"],
    )
    folder = out / "trials" / "mixup-true-labels-seed1"
    stored = load_file(folder / OUTPUTS)
    assert np.array_equal(stored["targets"], labels[300:])
    result = json.loads((folder / "result.json").read_text())
    expected = sk.average_precision_score(labels[300:], stored["last"])
    assert result["test_metric"] == pytest.approx(expected)
    assert result["constant_metric"] == pytest.approx(labels[300:].mean())
    rows = read_metrics(folder, "average-precision")
    assert rows[-1].test_loss == pytest.approx(
        float(
            F.binary_cross_entropy_with_logits(
                torch.tensor(stored["last"]), torch.tensor(stored["targets"])
            )
        ),
        rel=1e-4,
    )
    best = max(rows, key=lambda row: row.validation_metric)
    assert result["best_epoch"] == best.epoch
    assert sk.average_precision_score(labels[300:], stored["best"]) == pytest.approx(
        best.test_metric
    )


def test_the_metric_of_a_recipe_decides_and_is_that_of_the_outputs(recipe_of, tmp_path):
    recipe = recipe_of(metrics=["auroc", "accuracy"], **SMALL_BATCH)
    trial = Trial("erm", 0.0, 0)
    result = run_trial(recipe, trial, data_of(CLASSES, ("no", "yes")), tmp_path)
    stored = load_file(tmp_path / OUTPUTS)
    margin = stored["last"][:, 1] - stored["last"][:, 0]
    assert result.metric == "auroc"
    assert result.test_metric == pytest.approx(sk.roc_auc_score(stored["targets"], margin))
    assert result.constant_metric == 0.5
    assert "test_auroc" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert read_result(tmp_path, trial, recipe) == result


def test_the_best_epoch_is_chosen_on_the_validation_split(recipe_of, tmp_path):
    recipe = recipe_of(metrics=["nll"], **SMALL_BATCH)  # of which the lowest is the best
    data = data_of(CLASSES, ("no", "yes"), validation=True)
    result = run_trial(recipe, Trial("erm", 0.0, 0), data, tmp_path)
    rows = read_metrics(tmp_path, "nll")
    best = min(rows, key=lambda row: row.validation_metric)
    assert result.best_epoch == best.epoch
    stored = load_file(tmp_path / OUTPUTS)
    for name, row in (("best", best), ("last", rows[-1])):
        found = metric_values("nll", stored[name], stored["targets"], "classification").mean()
        assert found == pytest.approx(row.test_metric, rel=1e-6)
        assert row.test_metric == pytest.approx(row.test_loss, rel=1e-5)


def stop_before_the_result(monkeypatch):
    def stopped(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrialCheckpointer, "finish", stopped)


@pytest.mark.parametrize("targets", ["classes", "real values"])
def test_a_trial_that_was_killed_after_its_last_state_predicts_its_outputs_again(
    recipe_of, tmp_path, monkeypatch, targets
):
    recipe, trial = recipe_of(**SMALL_BATCH), Trial("mixup", 0.0, 1)
    classes = ("no", "yes") if targets == "classes" else ()
    data = data_of(CLASSES if classes else torch.from_numpy(REAL), classes, validation=True)
    whole = run_trial(recipe, trial, data, tmp_path / "whole")
    with monkeypatch.context() as broken:
        stop_before_the_result(broken)
        with pytest.raises(KeyboardInterrupt):
            run_trial(recipe, trial, data, tmp_path / "broken")
    assert not (tmp_path / "broken" / OUTPUTS).exists()
    resumed = run_trial(recipe, trial, data, tmp_path / "broken")
    assert resumed.outputs == whole.outputs  # the SHA-256 of the files
    assert (resumed.best_epoch, resumed.test_metric) == (whole.best_epoch, whole.test_metric)
    assert "best" in load_file(tmp_path / "broken" / OUTPUTS)


def test_damaged_outputs_are_named_and_the_trial_trains_again_to_the_same(copied_study, vicinal):
    recipe, trial = copied_study / "recipe.toml", Trial("mixup", 0.4, 1)
    folder = copied_study / "trials" / trial.folder
    whole, summary = (folder / OUTPUTS).read_bytes(), (copied_study / "table.csv").read_text()
    (folder / OUTPUTS).write_bytes(whole[:-4] + b"\0\0\0\0")
    (copied_study / "SHA256SUMS").unlink()  # a report that is up to date is not made again
    refused = vicinal("study", recipe, "--out", copied_study)
    assert refused.exit_code == 2
    assert f"{folder / OUTPUTS} is missing or damaged" in refused.stderr
    assert f"Delete the folder {folder}" in refused.stderr
    shutil.rmtree(folder)
    done = vicinal("study", recipe, "--out", copied_study)
    assert done.exit_code == 0, done.stderr
    assert (folder / OUTPUTS).read_bytes() == whole
    rows = [text.splitlines()[0] for text in (summary, (copied_study / "table.csv").read_text())]
    assert rows[0] == rows[1]


def test_the_outputs_of_a_study_are_those_of_its_results(finished_study):
    study = Study(load_resolved(finished_study / "recipe.toml"), finished_study)
    results = study.results()
    truth = load("digits", test_fraction=0.3, seed=0).test.targets
    for trial, result in results.items():
        outputs = study.outputs(trial, results)
        assert outputs.targets.tolist() == truth.tolist()
        assert outputs.best is None
        assert (outputs.last.argmax(1) == outputs.targets).mean() == result.test_metric


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    y = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y.numpy())
    torch.testing.assert_close(balanced_weights(y, 3), torch.tensor(expected, dtype=torch.float32))


def test_a_class_without_examples_has_no_weight_in_a_smoothed_loss():
    y = torch.arange(900) % 9
    weights = balanced_weights(y, 10)
    assert weights.tolist() == pytest.approx([0.1 * 10] * 9 + [0.0], rel=0.2)
    logits = 9.0 * F.one_hot(y, 10)
    smoothed = F.cross_entropy(logits, y, weights, label_smoothing=0.1, reduction="none").mean()
    assert smoothed < 2


def test_a_weighted_loss_is_averaged_over_examples_with_and_without_mixing(recipe_of):
    settings = recipe_of(**{"training.class_weights": "balanced"}).training
    data = data_of(CLASSES, ("no", "yes"))
    criterion = criterion_of(task_of(data, "auto"), settings, data.train.targets)
    logits = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    y = data.train.targets[:30] * (torch.arange(30) > 15)  # fewer of the rare class than elsewhere
    weights = balanced_weights(data.train.targets, 2)
    slow = [float(weights[k] * F.cross_entropy(row, k)) for row, k in zip(logits, y, strict=True)]
    assert float(criterion(logits, y)) == pytest.approx(np.mean(slow), rel=1e-5)
    unmixed = MixUp(alpha=0.0).draw(30)
    assert float(unmixed.loss(criterion, logits, y)) == pytest.approx(np.mean(slow), rel=1e-5)
    plan = MixUp(alpha=1.0).draw(30)
    met = y[plan.partner]
    both = [float(weights[k] * F.cross_entropy(row, k)) for row, k in zip(logits, met, strict=True)]
    lam = plan.lam.double().numpy()
    expected = np.mean(lam * slow + (1 - lam) * both)
    assert float(plan.loss(criterion, logits, y)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_find_more_of_a_rare_class(recipe_of, tmp_path):
    rare = (torch.arange(900) % 10 == 0).long()
    data = data_of(rare, ("common", "rare"), noise=2.0)
    found = []
    for weights in ("none", "balanced"):
        recipe = recipe_of(**SMALL_BATCH, **{"training.class_weights": weights})
        run_trial(recipe, Trial("erm", 0.0, 0), data, tmp_path / weights)
        stored = load_file(tmp_path / weights / OUTPUTS)
        found.append(int((stored["last"].argmax(1) == 1).sum()))
    assert found[0] < found[1]


@pytest.mark.parametrize(
    ("targets", "wanted", "outputs", "name"),
    [
        (torch.tensor([0, 1, 1]), "auto", 2, "classification"),
        (torch.tensor([0.0, 1.0, 1.0]), "auto", 1, "regression"),
        (torch.tensor([[0.0, 1.0], [1.0, 1.0]]), "auto", 2, "multi-label"),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "regression", 2, "regression"),
        (torch.tensor([[0.0, 0.5], [1.0, 1.0]]), "auto", 2, "regression"),
    ],
)
def test_the_targets_determine_the_task(targets, wanted, outputs, name):
    split = Split(torch.zeros(len(targets), 1), targets)
    data = DataSet(("a", "b") if name == "classification" else (), split, split)
    task = task_of(data, wanted)
    assert (task.name, task.outputs) == (name, outputs)
    torch.testing.assert_close(
        task.outputs_of(task.learned(targets)).flatten(), targets.flatten(), check_dtype=False
    )
    if name == "regression":
        learned = task.learned(targets.float())
        torch.testing.assert_close(learned.mean(0), torch.zeros(outputs))
        torch.testing.assert_close(learned.std(0, correction=0), torch.ones(outputs))


def test_constant_outputs_are_the_best_that_ignore_the_inputs():
    y = torch.tensor([0, 0, 0, 1])
    split = Split(torch.zeros(4, 1), y)
    task = task_of(DataSet(("a", "b", "never"), split, split), "auto")
    shares = np.exp(constant_outputs(task, y)["mean"])
    assert shares == pytest.approx([3 / 4, 1 / 4, 1 / 8])  # not zero, which has no logarithm
    real = torch.tensor([0.0, 1.0, 8.0])
    split = Split(torch.zeros(3, 1), real)
    constant = constant_outputs(task_of(DataSet((), split, split), "auto"), real)
    assert constant == {"mean": [3.0], "median": [1.0]}


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            data_of(torch.from_numpy(REAL)),
            {"task": "classification"},
            "task: expected regression, which fits the targets of this data set",
        ),
        (
            data_of(CLASSES, ("no", "yes")),
            {"task": "regression"},
            "got regression. Add task=regression to the options of a table.",
        ),
        (data_of(torch.from_numpy(REAL)), {"metrics": ["accuracy"]}, "Choose one of rmse, mae, r2"),
        (
            data_of(CLASSES, ("no", "yes")),
            {"metrics": ["top-5"]},
            "expected a metric of classification with 2 outputs, got top-5",
        ),
        (
            data_of(torch.from_numpy(REAL)),
            {"training.label_smoothing": 0.1},
            "training.label_smoothing: expected a classification task, got regression",
        ),
        (
            data_of(torch.from_numpy(REAL)),
            {"training.class_weights": "balanced"},
            "training.class_weights: expected a classification task, got regression",
        ),
        (
            data_of(torch.from_numpy(REAL)),
            {"corrupted_labels": [0.4]},
            "corrupted_labels: expected a classification task, got regression",
        ),
        (
            DataSet((), *[Split(torch.zeros(40, 2), torch.full((40,), 7.0))] * 2),
            {},
            "expected targets that differ, got 7 for all training examples",
        ),
        (
            dataclasses.replace(
                data_of(CLASSES, ("no", "yes")),
                test=Split(torch.zeros(9, 2), torch.zeros(9, dtype=torch.int64)),
            ),
            {"metrics": ["auroc"]},
            "metrics: AUROC is undefined, since all targets of the test split are the same",
        ),
    ],
)
def test_a_task_that_does_not_fit_is_one_sentence(refused, data, changes, message):
    assert message in refused(data, changes).replace("\n", " ")


@pytest.fixture
def refused(small_recipe, tmp_path, vicinal, monkeypatch):
    """Return a function that runs a study of a data set, and returns its error."""

    def run(data, changes):
        monkeypatch.setattr("vicinal.training.trial_setup.load", lambda *_, **__: data)
        done = vicinal("study", small_recipe(FEW | SMALL_BATCH | changes), "--out", tmp_path / "o")
        assert done.exit_code == 2
        return done.stderr

    return run


def test_an_unknown_metric_is_named_with_the_nearest(small_recipe):
    with pytest.raises(UserError, match=r"metrics.*there is no metric 'auroc2'.*'auroc'"):
        read_recipe(str(small_recipe({"metrics": ["auroc2"]})))


def test_targets_that_float32_cannot_distinguish_are_refused():
    times = 1.7e9 + np.random.default_rng(0).normal(size=40) * 100
    split = Split(load("iris").train.inputs[:40], torch.tensor(times[:, None]).float())
    with pytest.raises(
        UserError, match=r"rounding error of float32, got up to 1\.7\d*e\+09 .*Subtract"
    ):
        task_of(DataSet((), split, split), "auto")
    fine = Split(split.inputs, torch.tensor(times[:, None] - 1.7e9).float())
    assert task_of(DataSet((), fine, fine), "auto").name == "regression"
    far = Split(split.inputs, torch.arange(20250101.0, 20250141.0)[:, None] * 1.0)
    with pytest.raises(UserError, match="rounding error of float32"):
        task_of(DataSet((), far, far), "auto")
