import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vicinal.data import Split, load
from vicinal.data.dataset import ReadResult
from vicinal.errors import UserError
from vicinal.training.recipe import read_recipe, resolved_text
from vicinal.training.single_trial import train_one
from vicinal.training.tensor_tree import write_tree
from vicinal.training.trial import Callbacks
from vicinal.training.trial_checkpoint import TrialCheckpointer
from vicinal.training.trial_result import OUTPUTS, Trial, read_metrics

KILLS, EPOCHS = (20, 36) if os.environ.get("VICINAL_SLOW") == "1" else (4, 14)
"""How often a training is killed before it may end, and how many epochs it takes."""

ALL_AT_ONCE = {
    "data.test_fraction": 0.9,
    "training.epochs": EPOCHS,
    "training.optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-3},
    "training.ema_decay": 0.9,
    "training.precision": "float16",
    "training.channels_last": True,
    "training.accumulation_steps": 2,
    "training.max_grad_norm": 1.0,
    "training.checkpoint_every": 1,
    "arms.mixup.at": ["input", "stage1", "stage2"],
}
"""Settings with as much of a state as there can be."""


def train_words(recipe, out, *more):
    words = ["train", recipe, "--arm", "mixup", "--out", out, *more]
    return [*map(str, words), "--logger", "none"]


def test_a_training_killed_at_random_moments_ends_bit_for_bit_like_an_uninterrupted_one(
    small_recipe, tmp_path, start, vicinal
):
    recipe = small_recipe(ALL_AT_ONCE)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = vicinal(*train_words(recipe, whole), "--debug")
    assert done.exit_code == 0, done.exception
    # The parent has imported everything, so that kills hit training and not the start of Python.
    script = tmp_path / "kill.py"
    script.write_text(KILLER)
    done = subprocess.run(
        [
            sys.executable,
            script,
            str(KILLS),
            str(broken / "metrics.csv"),
            *train_words(recipe, broken),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout.splitlines()[-1])
    assert story["exit"] == 0
    assert len(story["seen"]) > KILLS / 4  # the kills came at different epochs
    assert (whole / "checkpoint.safetensors").read_bytes() == (
        broken / "checkpoint.safetensors"
    ).read_bytes()
    rows = [
        [row._replace(seconds=0.0) for row in read_metrics(one, "accuracy")]
        for one in (whole, broken)
    ]
    assert rows[0] == rows[1]
    assert not (broken / "state.safetensors").exists()


KILLER = """
import json, multiprocessing, random, sys
from pathlib import Path

import rich.console, torch

import vicinal.data, vicinal.reports.terminal, vicinal.training.single_trial
from vicinal import cli

kills, metrics, words = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
processes, chance, seen = multiprocessing.get_context("fork"), random.Random(0), set()

def begin(number):
    again = ["--resume"] if number else []
    process = processes.Process(target=cli.app, args=([*words, *again],))
    process.start()
    return process

def epochs():
    return metrics.read_text().count("\\n") - 1 if metrics.exists() else 0

for number in range(kills):
    process, wanted = begin(number), epochs() + chance.randrange(3)
    while epochs() < wanted and process.exitcode is None:
        process.join(0.005)
    process.join(chance.uniform(0, 0.3))
    if process.exitcode is not None:
        sys.exit(f"it ended with {process.exitcode} before it was killed {number + 1} times")
    process.kill()
    process.join()
    seen.add(epochs())
last = begin(kills)
last.join()
print(json.dumps({"seen": sorted(seen), "exit": last.exitcode}))
"""


def test_a_folder_is_resumed_only_when_asked_and_only_with_its_settings(
    small_recipe, tmp_path, vicinal
):
    recipe, out = small_recipe(), tmp_path / "run"
    words = [*train_words(recipe, out)]
    assert vicinal(*words).exit_code == 0
    files = {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
    again = vicinal(*words)
    assert again.exit_code == 2
    assert "already holds a trial. Resume it with --resume" in again.stderr
    for more, words_of in (
        (["--epochs", "3"], "training.epochs was 2 and is 3"),
        (["--seed", "1"], "seed was 0 and is 1"),
        (["--corrupted", "0.4"], "corrupted was 0.0 and is 0.4"),
    ):
        other = vicinal(*words, "--resume", *more)
        assert other.exit_code == 2
        assert f"holds a trial with different settings: {words_of}." in other.stderr
    finished = vicinal(*words, "--resume", "--json")
    assert finished.exit_code == 0
    assert json.loads(finished.stdout) == json.loads((out / "result.json").read_text())
    assert files == {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def test_a_training_that_could_not_begin_leaves_the_folder_free(small_recipe, tmp_path, vicinal):
    words = train_words(small_recipe({"training.epochs": 1}), tmp_path / "run")
    failed = vicinal(*words, "--data", f"rec:{tmp_path / 'none.rec'}")
    assert failed.exit_code == 2
    assert "there is no record file" in failed.stderr
    done = vicinal(*words, "--data", "digits")
    assert done.exit_code == 0, done.stderr
    assert vicinal(*words, "--data", "digits").exit_code == 2


def test_settings_that_cannot_be_trained_raise(small_recipe, tmp_path, vicinal):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    cases = [
        ({"training.batch_size": 5000}, [], "training.batch_size: expected at most 1257"),
        ({"training.accumulation_steps": 5}, [], "training.batch_size: expected a multiple of 5"),
        ({}, ["--arm", "mixpu"], "no arm 'mixpu'. Did you mean 'mixup'"),
        ({}, ["--logger", "tb"], "no logger 'tb'"),
        ({}, ["--corrupted", "40"], "Invalid value for '--corrupted'"),
        ({}, ["--data", "iris"], "small-cnn does not take examples of shape (4,)"),
        ({}, ["--out", tmp_path / "thesis"], "expected a trial or an empty folder"),
    ]
    for number, (changes, more, message) in enumerate(cases):
        words = train_words(small_recipe(changes), tmp_path / str(number))
        done = vicinal(*words, *more)
        assert done.exit_code == 2, done.stderr
        assert message in done.stderr.splitlines()[-1]


def test_a_head_that_does_not_fit_the_classes_is_refused(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    module = tmp_path / "headless.py"
    module.write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    changes = {"model.name": "headless:network", "arms.mixup-features": None}
    done = vicinal(*train_words(small_recipe(changes), tmp_path / "run"))
    assert done.exit_code == 2
    assert "expected outputs of shape (2, 10) from headless:network" in done.stderr
    assert "got shape (2, 3)" in done.stderr


def test_a_loss_that_explodes_keeps_the_last_good_checkpoint(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    # 20 steps an epoch: the second one comes to grief.
    monkeypatch.setattr(
        "vicinal.training.loop.rate_factor", lambda step, *_: 1.0 if step < 30 else 1e30
    )
    recipe, out = (
        small_recipe({"training.epochs": 3, "training.checkpoint_every": 1}),
        tmp_path / "run",
    )
    done = vicinal(*train_words(recipe, out))
    assert done.exit_code == 2
    assert "the training loss became nan in epoch 2. Lower" in done.stderr
    assert "The state of the last good epoch is kept" in done.stderr
    assert [row.epoch for row in read_metrics(out, "accuracy")] == [1]
    stored = load_file(out / "checkpoint.safetensors")
    assert all(bool(value.isfinite().all()) for value in stored.values())
    scored = vicinal("score", out / "checkpoint.safetensors", "--data", "digits", "--json")
    assert (
        json.loads(scored.stdout)["metrics"]["accuracy"]
        == read_metrics(out, "accuracy")[0].test_metric
    )


def test_a_layer_that_an_imported_network_does_not_have_is_named(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    (tmp_path / "yours.py").write_text(
        "from torch import nn\n"
        "def network(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    changes = {"model.name": "yours:network", "arms.mixup-features": None}
    recipe = small_recipe(changes | {"arms.mixup.at": ["layer7"]})
    done = vicinal(*train_words(recipe, tmp_path / "run"))
    assert done.exit_code == 2
    assert "arms.mixup.at: there is no layer 'layer7'" in done.stderr


def test_a_logger_that_cannot_be_made_leaves_the_folder_free(small_recipe, tmp_path, vicinal):
    recipe, out = small_recipe(), tmp_path / "run"
    assert vicinal(*train_words(recipe, out), "--logger", "tb").exit_code == 2
    out.mkdir(exist_ok=True)
    (out / "trial.json").write_text("{")  # as if it had been killed while it began
    done = vicinal(*train_words(recipe, out))
    assert done.exit_code == 0, done.stderr


def test_another_number_of_processes_than_devices_raises(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "4")
    done = vicinal(*train_words(small_recipe(), tmp_path / "run"))
    assert done.exit_code == 2
    assert "expected WORLD_SIZE = 4 processes in all, got 1 devices on 1 machines" in done.stderr


class ReceivedLater:
    """Replaces ``stop_signals``: receives a signal after it was asked so many times."""

    def __init__(self, looks):
        self.looks = looks

    def __call__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __bool__(self):
        self.looks -= 1
        return self.looks < 0

    def __getitem__(self, k):
        return ["SIGTERM"][k]


def test_after_a_stop_within_an_epoch_the_checkpoint_is_that_of_the_last_row(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    recipe = small_recipe({"training.epochs": 3, "training.checkpoint_every": 1})
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert vicinal(*train_words(recipe, whole)).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            "vicinal.training.trial.stop_signals", ReceivedLater(30)
        )  # an epoch has 20 steps
        stopped = vicinal(*train_words(recipe, out))
    assert stopped.exit_code == 2, stopped.stderr
    assert "in epoch 2 of 3" in stopped.stderr
    scored = vicinal("score", out / "checkpoint.safetensors", "--data", "digits", "--json")
    scores, rows = json.loads(scored.stdout), read_metrics(out, "accuracy")
    assert [row.epoch for row in rows] == [1]
    assert scores["metrics"]["accuracy"] == rows[0].test_metric
    assert abs(scores["metrics"]["nll"] - rows[0].test_loss) < 1e-6
    assert vicinal(*train_words(recipe, out), "--resume").exit_code == 0
    ends = [(one / "checkpoint.safetensors").read_bytes() for one in (whole, out)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("lost", ["gone", "old"])
def test_a_training_always_finishes_with_its_last_checkpoint(
    small_recipe, tmp_path, vicinal, monkeypatch, lost
):
    recipe, out, first = small_recipe(), tmp_path / "run", tmp_path / "first"
    assert vicinal(*train_words(recipe, first), "--epochs", "1").exit_code == 0
    finish = TrialCheckpointer.finish

    def interfered(kept, *reached):
        (out / "checkpoint.safetensors").unlink()
        if lost == "old":
            shutil.copy(first / "checkpoint.safetensors", out)
        return finish(kept, *reached)

    monkeypatch.setattr(TrialCheckpointer, "finish", interfered)
    assert vicinal(*train_words(recipe, out)).exit_code == 0
    scored = vicinal("score", out / "checkpoint.safetensors", "--data", "digits", "--json")
    assert (
        abs(
            json.loads(scored.stdout)["metrics"]["nll"]
            - read_metrics(out, "accuracy")[-1].test_loss
        )
        < 1e-6
    )


def test_a_folder_that_was_moved_is_named_and_resumes_in_its_new_place(small_recipe, tmp_path):
    recipe = read_recipe(str(small_recipe({"training.epochs": 3, "training.checkpoint_every": 1})))
    out, there = tmp_path / "run", tmp_path / "moved"

    def move(row, _metric):
        if row.epoch == 2:
            out.rename(there)

    with pytest.raises(UserError, match=r"run: the folder was moved or deleted during training"):
        train_one(recipe, Trial("mixup", 0.0, 0), out, loggers=[], callbacks=Callbacks(epoch=move))
    assert not (out / "state.safetensors").exists()
    result = train_one(recipe, Trial("mixup", 0.0, 0), there, resume=True)
    assert result.epochs == len(read_metrics(there, "accuracy")) == 3


def test_the_error_for_a_damaged_state_names_the_file_to_delete(
    small_recipe, tmp_path, vicinal, monkeypatch
):
    recipe, out = small_recipe(), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("vicinal.training.trial.stop_signals", ReceivedLater(30))
        assert vicinal(*train_words(recipe, out)).exit_code == 2
    state = out / "state.safetensors"
    other = tmp_path / "other"
    write_tree(other, {"learner": 3})
    for damaged in (b"", state.read_bytes()[:5000], other.read_bytes()):
        state.write_bytes(damaged)
        refused = vicinal(*train_words(recipe, out), "--resume")
        assert refused.exit_code == 2
        assert "Delete this file to train it from the start" in refused.stderr
    state.unlink()
    assert vicinal(*train_words(recipe, out), "--resume").exit_code == 0


def test_a_trial_file_that_is_too_deep_is_refused(small_recipe, tmp_path):
    recipe = read_recipe(str(small_recipe()))
    (tmp_path / "recipe.toml").write_text(resolved_text(recipe))
    (tmp_path / "trial.json").write_text("[" * 100_000)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(UserError, match="so the folder holds no trial"):
        train_one(recipe, Trial("erm", 0.0, 0), tmp_path, resume=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_stop_is_named_and_the_training_resumes_from_there(
    small_recipe, tmp_path, vicinal, name
):
    recipe = read_recipe(str(small_recipe({"training.epochs": 3, "training.checkpoint_every": 9})))
    trial, whole, out = Trial("mixup", 0.0, 0), tmp_path / "whole", tmp_path / "run"
    train_one(recipe, trial, whole, loggers=[])
    stop = partial(signal.raise_signal, getattr(signal, name))
    with pytest.raises(UserError, match=f"stopped by {name} in epoch 2 of 3. The state is saved"):
        train_one(recipe, trial, out, loggers=[], callbacks=Callbacks(epoch=lambda *_: stop()))
    assert (out / "state.safetensors").exists()
    train_one(recipe, trial, out, loggers=[], resume=True)
    ends = [(one / "checkpoint.safetensors").read_bytes() for one in (whole, out)]
    assert ends[0] == ends[1]


def test_under_nohup_a_closed_terminal_stops_nothing(small_recipe, tmp_path):
    recipe = read_recipe(str(small_recipe()))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = train_one(
            recipe,
            Trial("mixup", 0.0, 0),
            tmp_path / "run",
            loggers=[],
            callbacks=Callbacks(epoch=lambda *_: signal.raise_signal(signal.SIGHUP)),
        )
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.epochs == 2


def test_a_closed_terminal_loses_no_epoch(small_recipe, tmp_path):
    recipe, out = read_recipe(str(small_recipe({"training.checkpoint_every": 1}))), tmp_path / "run"

    def closed(_row, _metric):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        train_one(
            recipe, Trial("mixup", 0.0, 0), out, loggers=[], callbacks=Callbacks(epoch=closed)
        )
    assert [row.epoch for row in read_metrics(out, "accuracy")] == [1]
    assert (out / "state.safetensors").exists()


def test_a_worker_that_is_killed_during_training_is_named_and_the_training_resumes(
    small_recipe, tmp_path, monkeypatch
):
    recipe = read_recipe(str(small_recipe({"training.checkpoint_every": 1})))
    trial, whole, out = Trial("mixup", 0.0, 0), tmp_path / "whole", tmp_path / "run"
    digits = load("digits", test_fraction=0.3, seed=0)
    rows = digits.train.inputs
    stored = SimpleNamespace(
        shape=rows.shape,
        dtype=rows.dtype,
        read=lambda wanted: ReadResult(rows[wanted], np.arange(len(wanted)), []),
    )
    data = dataclasses.replace(digits, train=Split(stored, digits.train.targets))
    monkeypatch.setattr("vicinal.training.trial_setup.load", lambda *_, **__: data)
    train_one(recipe, trial, whole, loggers=[])

    def kill(*_):
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()

    with pytest.raises(UserError, match=r"a data-loading worker died.*lower training\.batch_size"):
        train_one(recipe, trial, out, loggers=[], callbacks=Callbacks(epoch=kill))
    train_one(recipe, trial, out, loggers=[], resume=True)
    ends = [(one / "checkpoint.safetensors").read_bytes() for one in (whole, out)]
    assert ends[0] == ends[1]


def test_a_finished_training_without_its_network_is_refused(small_recipe, tmp_path, vicinal):
    recipe, out, first = small_recipe(), tmp_path / "run", tmp_path / "first"
    assert vicinal(*train_words(recipe, first), "--epochs", "1").exit_code == 0
    assert vicinal(*train_words(recipe, out)).exit_code == 0
    path = out / "checkpoint.safetensors"
    earlier = (first / "checkpoint.safetensors").read_bytes()
    for content in (earlier, b"", None):
        path.unlink() if content is None else path.write_bytes(content)
        refused = vicinal(*train_words(recipe, out), "--resume")
        assert refused.exit_code == 2
        assert "checkpoint.safetensors is missing, damaged, or not of the last epoch, 2" in (
            refused.stderr
        )


def test_a_trial_of_a_split_trains_and_tests_on_that_split(small_recipe, tmp_path):
    changes = {"splits": 5, "data.test_fraction": None, "model.name": "mlp", "training.epochs": 1}
    recipe = read_recipe(str(small_recipe(changes | {"arms.mixup-features": None})))
    train_one(recipe, Trial("erm", 0.0, 0, 3), tmp_path / "run")
    tested = load("digits", seed=0, fold=(3, 5)).test
    assert torch.equal(load_file(tmp_path / "run" / OUTPUTS)["targets"], tested.targets)
