import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = os.environ.get("VICINAL_SLOW") == "1"

TINY = {
    "seeds": 1,
    "data.test_fraction": 0.85,
    "model.name": "mlp",
    "training.ema_decay": 0.9,
    "training.batch_size": 64,
    "training.threads": 1,
    "training.checkpoint_every": 1,
    "arms.mixup-features": None,
    "corrupted_labels": [0.4],
}


def story_of(kind, command, recipe, folder, *, every):
    """Return what came of every so manieth fault, or of all of them where time does not matter."""
    train = command == "train"
    words = [command, str(recipe), *(["--arm", "mixup"] if train else [])]
    job = {"kind": kind, "words": words, "again": ["--resume"] if train else []}
    job |= {"folder": str(folder), "every": 1 if SLOW else every}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("faults.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout.splitlines()[-1])
    print(f"{command}, {kind}: {story['tried']} of {story['faults']} faults")
    return story


@pytest.mark.parametrize(("command", "every", "least"), [("train", 50, 100), ("study", 150, 300)])
def test_killed_at_any_file_operation_the_next_run_ends_as_the_unbroken_one(
    small_recipe, tmp_path, command, every, least
):
    story = story_of("kill", command, small_recipe(TINY), tmp_path, every=every)
    assert story["faults"] > least
    assert story["tried"] >= 3
    assert story["wrong"] == []


@pytest.mark.parametrize(("command", "every", "least"), [("train", 30, 50), ("study", 100, 130)])
def test_a_disk_that_is_full_at_any_file_operation_is_named_and_costs_nothing(
    small_recipe, tmp_path, command, every, least
):
    story = story_of("full", command, small_recipe(TINY), tmp_path, every=every)
    assert story["faults"] > least
    assert story["tried"] >= 2
    assert story["wrong"] == []


@pytest.mark.skipif(not SLOW or os.geteuid(), reason="mounts disks: VICINAL_SLOW=1 as root runs it")
@pytest.mark.parametrize("command", ["train", "study"])
def test_a_small_disk_is_named_and_costs_nothing_once_there_is_room(
    small_recipe, tmp_path, command
):
    story = story_of("disk", command, small_recipe(TINY), tmp_path, every=1)
    assert story["tried"] == 25
    assert story["wrong"] == []
