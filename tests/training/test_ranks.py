"""Two processes on this machine, joined by gloo, which vicinal starts, or as torchrun does it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vicinal.data import load
from vicinal.models import build
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


MIXUP = ["--arm", "mixup", "--corrupted", "0.4"]

# 1,257 examples: the last batch of 41 is shared unevenly.
DOUBLED = {
    "model.name": "mlp",
    "training.precision": "float64",
    "training.accumulation_steps": 2,
    "arms.mixup-features": None,
    "training.optimizer.lr": 0.002,
}
FROZEN = {
    "training.freeze": "backbone",
    "training.head_lr_factor": 10.0,
    "training.precision": "float64",
    "training.epochs": 1,
    "data.test_fraction": 0.9,
}


@pytest.fixture(scope="module")
def both(tmp_path_factory, recipe_text):
    """Train three recipes with two ranks, as torchrun starts them; return the folder."""
    folder = tmp_path_factory.mktemp("both")
    torch.manual_seed(27)
    pretrained = folder / "pretrained.safetensors"
    save_file(build("small-cnn", shape=(1, 8, 8), classes=12).state_dict(), pretrained)
    changes = {
        "doubled": DOUBLED,
        "frozen": FROZEN | {"model.name": f"small-cnn?weights={pretrained}"},
        "unbroken": {"training.epochs": 12, "data.test_fraction": 0.7105},
    }
    jobs = []
    for name, one in changes.items():
        recipe = folder / f"{name}.toml"
        recipe.write_text(recipe_text(one))
        arm = MIXUP if name == "unbroken" else ["--arm", "erm"]
        words = ["train", recipe, *arm, "--out", folder / name, "--logger", "none"]
        jobs.append([*map(str, words), "--devices", "2"])
    command = [sys.executable, Path(__file__).with_name("two_ranks.py")]
    finished = subprocess.run(
        command, input=json.dumps(jobs), capture_output=True, text=True, timeout=240, check=False
    )
    assert finished.returncode == 0, finished.stderr
    for ranks in json.loads(finished.stdout):
        assert [code for code, _ in ranks] == [0, 0], ranks
        assert "deprecated" not in ranks[0][1]
        assert ranks[1][1] == ""  # the first rank alone reports
    return folder


def trained_alone(vicinal, both, name, out):
    words = ["train", both / f"{name}.toml", "--arm", "erm", "--out", out, "--logger", "none"]
    done = vicinal(*words)
    assert done.exit_code == 0, done.stderr
    return weights(out)


def test_two_ranks_learn_what_one_learns_with_the_doubled_batch(both, tmp_path, vicinal):
    one = trained_alone(vicinal, both, "doubled", tmp_path)
    two = weights(both / "doubled")
    assert next(iter(one.values())).dtype == torch.float64
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-8)
    rows = [read_metrics(folder, "accuracy")[-1] for folder in (tmp_path, both / "doubled")]
    assert rows[0].test_metric == rows[1].test_metric
    assert rows[1].test_loss == pytest.approx(rows[0].test_loss, rel=1e-6)
    assert rows[1].train_loss == pytest.approx(rows[0].train_loss, rel=1e-6)
    alone, gathered = (load_file(folder / OUTPUTS) for folder in (tmp_path, both / "doubled"))
    assert torch.equal(gathered["targets"], alone["targets"])
    assert gathered["last"].shape == (540, 10)
    torch.testing.assert_close(gathered["last"], alone["last"], rtol=1e-5, atol=1e-6)


def test_two_ranks_fine_tune_the_head_as_one_does(both, tmp_path, vicinal):
    two = weights(both / "frozen")
    for name, value in trained_alone(vicinal, both, "frozen", tmp_path).items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-9)


def test_distributed_evaluation_is_that_of_the_saved_network(both, vicinal):
    out = both / "unbroken"
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
def test_after_a_signal_both_ranks_save_the_state_and_resume(both, tmp_path, start):
    recipe, whole = both / "unbroken.toml", both / "unbroken"
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
