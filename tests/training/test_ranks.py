"""Two processes on this machine, joined by gloo. Each test starts the command line anew."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vicinal.data import load
from vicinal.training.trial_result import OUTPUTS, read_metrics

LONG = {"training.epochs": 400, "data.test_fraction": 0.9}


def train(start, recipe, out, *more, arm="erm"):
    words = ["train", recipe, "--arm", arm, "--out", out, "--logger", "none", *more]
    return start(*words, "--devices", 2)


def done(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


def weights(folder):
    stored = load_file(folder / "checkpoint.safetensors")
    return {name: value for name, value in stored.items() if name.startswith("/weights/")}


def test_two_ranks_learn_what_one_learns_with_the_doubled_batch(
    small_recipe, tmp_path, start, vicinal
):
    # 1,257 examples: the last batch of 41 is shared unevenly.
    changes = {
        "model.name": "mlp",
        "training.precision": "float64",
        "training.accumulation_steps": 2,
    }
    changes |= {"arms.mixup-features": None, "training.optimizer.lr": 0.002}
    recipe = small_recipe(changes)
    _, err = done(train(start, recipe, tmp_path / "two"))
    assert "deprecated" not in err
    alone = vicinal("train", recipe, "--arm", "erm", "--out", tmp_path / "one", "--logger", "none")
    assert alone.exit_code == 0, alone.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert next(iter(one.values())).dtype == torch.float64
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-8)
    rows = [read_metrics(tmp_path / name, "accuracy")[-1] for name in ("one", "two")]
    assert rows[0].test_metric == rows[1].test_metric
    assert rows[1].test_loss == pytest.approx(rows[0].test_loss, rel=1e-6)
    assert rows[1].train_loss == pytest.approx(rows[0].train_loss, rel=1e-6)
    alone, gathered = (load_file(tmp_path / name / OUTPUTS) for name in ("one", "two"))
    assert torch.equal(gathered["targets"], alone["targets"])
    assert gathered["last"].shape == (540, 10)
    torch.testing.assert_close(gathered["last"], alone["last"], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, recipe_text):
    """Train mixup with two ranks once; return the recipe and the folder."""
    folder = tmp_path_factory.mktemp("unbroken")
    recipe, out = folder / "small.toml", folder / "two"
    recipe.write_text(recipe_text({"training.epochs": 12, "data.test_fraction": 0.7105}))
    words = ["train", recipe, *MIXUP, "--out", out, "--logger", "none", "--devices", 2]
    command = [sys.executable, "-m", "vicinal", *map(str, words)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    return recipe, out


MIXUP = ["--arm", "mixup", "--corrupted", "0.4"]


def test_distributed_evaluation_is_that_of_the_saved_network(unbroken, vicinal):
    _, out = unbroken
    words = ["--data", "digits", "--test-fraction", "0.7105", "--json"]
    scored = vicinal("score", out / "checkpoint.safetensors", *words)
    assert scored.exit_code == 0, scored.stderr
    scores, last = json.loads(scored.stdout), read_metrics(out, "accuracy")[-1]
    assert scores["metrics"]["accuracy"] == last.test_metric
    assert scores["metrics"]["nll"] == pytest.approx(last.test_loss, rel=1e-5)
    assert 0 < last.memorized < 1
    # 1,277 examples: the first rank has one more, and its examples come first.
    stored = load_file(out / OUTPUTS)
    data = load("digits", test_fraction=0.7105, seed=0)
    assert torch.equal(stored["targets"], data.test.targets)
    assert (stored["last"].argmax(1) == stored["targets"]).double().mean() == last.test_metric


def begun(process):
    """Wait for the first epochs, and answer with the other process's number."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("epoch 3/"):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return [int(child) for child in children], seen
    raise AssertionError("".join(seen))


def alive(number):
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
def test_when_a_rank_dies_the_other_one_stops(small_recipe, tmp_path, start):
    process = train(start, small_recipe(LONG), tmp_path / "two")
    (child,), _ = begun(process)
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    # Whoever notices first: the rank that waits in vain, or Fabric, which looks after its children.
    assert "rank 0 stops, since another rank has died" in err or "terminated with code -9" in err
    assert not alive(child)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
def test_after_a_signal_both_ranks_save_the_state_and_resume(unbroken, tmp_path, start):
    recipe, whole = unbroken
    broken = tmp_path / "broken"
    process = train(start, recipe, broken, "--corrupted", "0.4", arm="mixup")
    children, _ = begun(process)
    for number in (process.pid, *children):
        os.kill(number, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "stopped by SIGTERM" in err
    done(train(start, recipe, broken, "--resume", "--corrupted", "0.4", arm="mixup"))
    assert all(torch.equal(v, weights(broken)[k]) for k, v in weights(whole).items())
    losses = [[row.train_loss for row in read_metrics(one, "accuracy")] for one in (whole, broken)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
