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


def stories_of(kinds, command, recipe, folder):
    """Return what came of some of the faults of each kind, or of all where time does not matter.

    ``kinds`` has the number of faults of which one is tried.
    """
    train = command == "train"
    words = [command, str(recipe), *(["--arm", "mixup"] if train else [])]
    jobs = []
    for kind, every in kinds.items():
        (folder / kind).mkdir()
        job = {"kind": kind, "words": words, "again": ["--resume"] if train else []}
        jobs.append(job | {"folder": str(folder / kind), "every": 1 if SLOW else every})
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("faults.py")],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stories = dict(zip(kinds, json.loads(done.stdout.splitlines()[-1]), strict=True))
    for kind, story in stories.items():
        print(f"{command}, {kind}: {story['tried']} of {story['faults']} faults")
    return stories


@pytest.mark.parametrize(
    ("command", "every", "least"),
    [
        ("train", {"kill": 50, "full": 30}, {"kill": 100, "full": 50}),
        ("study", {"kill": 150, "full": 100}, {"kill": 300, "full": 130}),
    ],
)
def test_killed_or_with_a_full_disk_at_any_file_operation_the_next_run_ends_as_an_unbroken_one(
    small_recipe, tmp_path, command, every, least
):
    stories = stories_of(every, command, small_recipe(TINY), tmp_path)
    for kind, story in stories.items():
        assert story["faults"] > least[kind]
        assert story["tried"] >= 2
        assert story["wrong"] == []


@pytest.mark.skipif(not SLOW or os.geteuid(), reason="mounts disks: VICINAL_SLOW=1 as root runs it")
@pytest.mark.parametrize("command", ["train", "study"])
def test_a_small_disk_is_named_and_costs_nothing_once_there_is_room(
    small_recipe, tmp_path, command
):
    story = stories_of({"disk": 1}, command, small_recipe(TINY), tmp_path)["disk"]
    assert story["tried"] == 25
    assert story["wrong"] == []
