import json
import subprocess
import sys

from vicinal.studies.results import read_metrics

KILLS = 20
"""How often a training is killed before it may end."""

ALL_AT_ONCE = {
    "data.test_fraction": 0.8,
    "training.epochs": 45,
    "training.optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-3},
    "training.ema": 0.9,
    "training.precision": "float16",
    "training.channels_last": True,
    "training.accumulate": 2,
    "training.clip_norm": 1.0,
    "training.checkpoint_every": 1,
    "arms.mixup.at": ["input", "stage1", "stage2"],
}
"""Settings with as much of a state as there can be."""


def train_words(recipe, out, *more):
    words = ["train", recipe, "--arm", "mixup", "--out", out, *more]
    return [*map(str, words), "--logger", "none"]


def test_killed_at_random_moments_and_resumed_a_training_ends_bit_for_bit_as_unbroken(
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
    rows = [[row._replace(seconds=0.0) for row in read_metrics(one)] for one in (whole, broken)]
    assert rows[0] == rows[1]
    assert not (broken / "state.safetensors").exists()


KILLER = """
import json, multiprocessing, random, sys
from pathlib import Path

import rich.console, torch, torchmetrics

import vicinal.data, vicinal.reports.training_report, vicinal.studies.single
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
