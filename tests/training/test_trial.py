import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vicinal.data import DataSet, ReadResult, Split, load
from vicinal.training.recipe import read_recipe
from vicinal.training.trial import Callbacks, run_trial
from vicinal.training.trial_result import (
    Trial,
    named_metrics,
    read_metrics,
    read_outputs,
    read_result,
)
from vicinal.training.trial_setup import normalization

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def digits():
    return load("digits", test_fraction=0.3, seed=0)


@pytest.fixture
def rows_of(tmp_path_factory):
    """Return a function that runs a trial, and answers with what does not depend on the clock."""

    def run(recipe, trial, data, **settings):
        rows = []
        told = Callbacks(epoch=lambda row, _metric: rows.append(row))
        run_trial(recipe, trial, data, tmp_path_factory.mktemp("trial"), callbacks=told, **settings)
        return [row._replace(seconds=0.0) for row in rows]

    return run


def test_arms_start_alike_and_see_the_same_labels_in_the_same_order(small_recipe, digits, rows_of):
    # Mixing with alpha 0 is ERM; so the arms agree if, and only if, all but mixing is shared.
    recipe = read_recipe(str(small_recipe({"arms.mixup.alpha": 0.0})))
    rows = [rows_of(recipe, Trial(arm, 0.4, 1), digits)[0] for arm in ("erm", "mixup")]
    plain, mixed = (named_metrics(row, "accuracy") for row in rows)
    assert mixed == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("layer", ["input", "layer1"])
def test_regmixup_without_weight_on_its_blends_is_erm(small_recipe, digits, rows_of, layer):
    # The network has no batch norm, through which the blends would change the clean rows.
    fields = {"policy": "regmixup", "inner": {"policy": "mixup", "alpha": 1.0}, "at": [layer]}
    changes = {"model.name": "mlp", "arms.mixup-features": None}
    for weight, agree in ((0.0, True), (1.0, False)):
        changes["arms.mixup"] = fields | {"weight": weight}
        recipe = read_recipe(str(small_recipe(changes)))
        plain, both = (rows_of(recipe, Trial(arm, 0.0, 0), digits)[-1] for arm in ("erm", "mixup"))
        assert (both.test_loss == pytest.approx(plain.test_loss, rel=1e-4)) == agree
        assert (both.train_loss == pytest.approx(plain.train_loss, rel=1e-4)) == agree


def test_seed_condition_and_arm_each_change_the_outcome(small_recipe, digits, rows_of):
    recipe = read_recipe(str(small_recipe()))
    trials = [
        Trial("erm", 0.4, 0),
        Trial("erm", 0.4, 1),
        Trial("erm", 0.0, 0),
        Trial("mixup", 0.4, 0),
        Trial("mixup-features", 0.4, 0),
    ]
    assert len({rows_of(recipe, trial, digits)[-1].test_loss for trial in trials}) == len(trials)


def test_a_trial_repeats_itself_exactly(small_recipe, digits, rows_of):
    recipe, trial = read_recipe(str(small_recipe())), Trial("mixup-features", 0.4, 0)
    assert rows_of(recipe, trial, digits) == rows_of(recipe, trial, digits)


def test_memorization_is_measured_if_labels_are_wrong(small_recipe, digits, rows_of):
    recipe = read_recipe(str(small_recipe()))
    assert rows_of(recipe, Trial("erm", 0.0, 0), digits)[-1].memorized is None
    assert 0 <= rows_of(recipe, Trial("erm", 0.4, 0), digits)[-1].memorized <= 1


def pictures_in(folder, *, test=4):
    """Two classes of 12x12 pictures with few examples; the second is brighter."""
    for part, count in (("train", 4), ("test", test)):
        for k, name in enumerate(("$a$", "b")):
            (folder / part / name).mkdir(parents=True)
            for j in range(count // 2):
                pixels = np.full((12, 12, 3), 40 + 120 * k + j, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{j}.png")
    return f"folder:{folder}"


def test_a_study_of_few_images_runs_with_augmentation(small_recipe, tmp_path, vicinal):
    steps = [
        {"name": "random-resized-crop", "size": 8},
        {"name": "random-crop", "padding": 1},
        {"name": "hls-jitter"},
    ]
    changes = {"data.source": pictures_in(tmp_path / "few"), "data.augment": steps}
    changes |= {"corrupted_labels": [0.0], "model.name": "mlp", "arms.mixup-features": None}
    changes |= {"training.batch_size": 4}
    out = tmp_path / "study"
    done = vicinal("study", small_recipe(changes), "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "$a$" in (out / "report.html").read_text()


def test_an_arm_can_have_dropout_and_augmentation_of_its_own(small_recipe, tmp_path, vicinal):
    noisy = {"policy": "none", "augment": [{"name": "gaussian-noise", "std": 3.0}]}
    dropped = {"policy": "none", "training": {"dropout": 0.5}}
    same = {"policy": "none", "augment": [{"name": "gaussian-noise", "std": 0.0}]}
    changes = {"arms.noise": noisy, "arms.dropout": dropped, "arms.same": same, "seeds": 1}
    changes |= {"corrupted_labels": [0.0], "arms.mixup": None, "arms.mixup-features": None}
    out = tmp_path / "study"
    done = vicinal("study", small_recipe(changes), "--out", out)
    assert done.exit_code == 0, done.stderr
    losses = {
        name: [
            row.train_loss
            for row in read_metrics(out / f"trials/{name}-true-labels-seed0", "accuracy")
        ]
        for name in ("erm", "noise", "dropout", "same")
    }
    assert losses["same"] == losses["erm"]
    assert losses["noise"][-1] > losses["erm"][-1]
    assert losses["dropout"][-1] > losses["erm"][-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.augment": [{"name": "hls-jitter"}]},
            "hls-jitter expects images with values up to 255",
        ),
        (
            {"data.augment": [{"name": "flop"}]},
            "data.augment.0.name: expected one of 'random-crop', ",
        ),
        ({"data.augment": [{"p": 0.5}]}, "data.augment.0.name is missing"),
        (
            {"data.augment": [{"name": "random-horizontal-flip", "pp": 0.5}]},
            "there is no field 'pp'. Did you mean 'p'? (available: name, p)",
        ),
        (
            {"arms.mixup.augment": [{"name": "random-crop", "size": 6}]},
            "arms.mixup.augment.0.size: expected a transform that keeps the size of inputs",
        ),
        (
            {
                "arms.mixup.training": {"dropout": 0.5},
                "model.name": "mlp",
                "arms.mixup-features": None,
            },
            "training.dropout: expected a network with dropout layers",
        ),
        ({"data.source": "table:no.csv?label=x"}, "no.csv"),
        (
            {"data.source": "iris"},
            "small-cnn does not take examples of shape (4,)",
        ),
        ({"seed": 1 << 32}, "seed: expected a number less than 4294967296"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_in_a_sentence(
    small_recipe, tmp_path, vicinal, changes, message
):
    refused = vicinal("study", small_recipe(changes), "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert message in refused.stderr.replace("\n", " ")


def test_a_study_of_a_table_runs(small_recipe, tmp_path, vicinal):
    changes = {"data.source": "iris", "model.name": "mlp", "arms.mixup-features.at": ["layer1"]}
    out = tmp_path / "study"
    done = vicinal("study", small_recipe(changes), "--out", out)
    assert done.exit_code == 0, done.stderr
    with np.load(out / "examples.npz") as file:
        assert "own" not in file.files


def test_a_study_reports_skipped_examples(small_recipe, tmp_path, vicinal):
    source = pictures_in(tmp_path / "few")
    (tmp_path / "few" / "train" / "b" / "z.png").write_bytes(b"no picture")
    changes = {"data.source": source, "data.skip_bad": True, "corrupted_labels": [0.0]}
    changes |= {"training.batch_size": 4}
    done = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert done.exit_code == 0, done.stderr
    assert "skipped in the train split: " in done.stderr
    assert "b/z.png" in done.stderr


@pytest.mark.parametrize("command", ["study", "train"])
def test_alpha_may_be_infinite_from_the_recipe_to_the_summary(
    small_recipe, tmp_path, vicinal, command
):
    changes = {"arms.mixup.alpha": math.inf, "arms.mixup-features": None}
    recipe = small_recipe(changes | {"seeds": 1, "training.epochs": 1, "corrupted_labels": [0.0]})
    arm = ["--arm", "mixup", "--resume"] if command == "train" else []
    words = [command, recipe, "--out", tmp_path / "out", "--json", *arm]
    for _ in range(2):  # trained, then only read
        done = vicinal(*words)
        assert done.exit_code == 0, done.stderr
    if command == "study":
        refuse = pytest.fail  # Python reads Infinity, which is no JSON
        summary = json.loads(done.stdout, parse_constant=refuse)
        assert summary["settings"]["arms"]["mixup"]["alpha"] == "Infinity"
        assert "alpha = inf" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("name", ["warmup_epochs", "max_grad_norm"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_settings_that_have_to_be_finite_raise_if_they_are_not(
    small_recipe, tmp_path, vicinal, name, value
):
    refused = vicinal("study", small_recipe({f"training.{name}": value}), "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert f"training.{name}: expected a finite number, got {value}" in refused.stderr


@pytest.mark.parametrize("command", ["study", "train"])
def test_a_last_step_that_explodes_is_no_result(
    small_recipe, tmp_path, vicinal, monkeypatch, command
):
    # 20 steps an epoch: the loss of the last one is measured before its step.
    monkeypatch.setattr(
        "vicinal.training.loop.rate_factor", lambda step, *_: 1e30 if step == 39 else 1.0
    )
    changes = {"arms.mixup-features": None, "corrupted_labels": [0.0], "seeds": 1}
    recipe = small_recipe(changes | {"training.checkpoint_every": 1})
    arm = ["--arm", "mixup"] if command == "train" else []
    out = tmp_path / "out"
    done = vicinal(command, recipe, "--out", out, *arm)
    assert done.exit_code == 2
    assert "the test loss became" in done.stderr
    assert "in epoch 2. Lower the learning rate" in done.stderr
    assert not list(out.rglob("result.json"))
    weights = load_file(next(out.rglob("checkpoint.safetensors")))
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("command", ["study", "train"])
def test_a_fraction_that_corrupts_no_label_is_refused_before_training(
    small_recipe, tmp_path, vicinal, command
):
    recipe = small_recipe({"corrupted_labels": [0.0, 0.0001]})
    arm = ["--arm", "mixup", "--corrupted", "0.0001"] if command == "train" else []
    done = vicinal(command, recipe, "--out", tmp_path / "out", *arm)
    assert done.exit_code == 2
    assert "0.01% corrupted changes none of the 1257 training labels" in done.stderr
    assert not list(tmp_path.rglob("metrics.csv"))


class SomeUnreadable:
    """The inputs of a split, read when asked for; some rows cannot be read."""

    def __init__(self, inputs, bad):
        self.inputs, self.bad = inputs, bad
        self.shape, self.dtype = tuple(inputs.shape), inputs.dtype

    def read(self, rows):
        kept = [k for k, row in enumerate(rows) if row not in self.bad]
        sentences = [f"row {row} cannot be read" for row in rows if row in self.bad]
        return ReadResult(self.inputs[[rows[k] for k in kept]], np.array(kept, np.int64), sentences)


def test_examples_that_cannot_be_tested_are_not_counted(small_recipe, digits, tmp_path):
    bad = {0, 7, 100}
    test = Split(SomeUnreadable(digits.test.inputs, bad), digits.test.targets)
    data = dataclasses.replace(digits, test=test)
    recipe, trial = read_recipe(str(small_recipe({"training.epochs": 1}))), Trial("erm", 0.0, 0)
    logged = []
    callbacks = Callbacks(log=logged.append)
    result = run_trial(recipe, trial, data, tmp_path, callbacks=callbacks)
    assert logged == ["skipped in the test split: row 0 cannot be read ... (3 examples)"]
    left = [row for row in range(540) if row not in bad]
    assert result.test_examples == 537
    outputs = read_outputs(tmp_path, result)
    assert outputs.targets.tolist() == digits.test.targets[left].tolist()
    assert (outputs.last.argmax(1) == outputs.targets).mean() == result.test_metric
    assert read_result(tmp_path, trial, recipe) == result


def test_a_training_that_is_not_above_the_most_frequent_class_warns(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    y = (torch.arange(200) % 20 == 0).long()
    part = Split(torch.ones(200, 1, 8, 8), y)
    data = DataSet(("no", "yes"), part, part)
    monkeypatch.setattr("vicinal.training.trial_setup.load", lambda *_, **__: data)
    words = ["--arm", "erm", "--out", tmp_path / "run", "--logger", "none"]
    done = vicinal("train", small_recipe({"training.epochs": 2}), *words)
    assert done.exit_code == 0, done.output
    assert "test accuracy 95.00%" in done.stdout
    assert "a constant prediction is at least as good (accuracy 95.00%)" in done.stdout


def test_samples_of_a_recording_share_one_mean_and_std(small_recipe):
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(40, 50, generator=chance)
    x[:, 40:] *= 1e-4  # where recordings are silent
    part = Split(x, torch.arange(40) % 2)
    data = DataSet(("no", "yes"), part, part, preparation={"kind": "sound", "features": "wave"})
    found = normalization(read_recipe(str(small_recipe())), data)
    assert found.mean.flatten().tolist() == pytest.approx([x.mean().item()])
    assert found.std.flatten().tolist() == pytest.approx([x.std(correction=0).item()])
