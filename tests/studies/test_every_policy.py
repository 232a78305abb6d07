"""Studies with every policy and every pairing as an arm."""

import json
import sys
import tomllib

import pytest
import tomlkit

from vicinal.mixing.registry import PAIRINGS, POLICIES
from vicinal.training.arm_shorthands import shorthand_arms
from vicinal.training.checkpoints import read_checkpoint
from vicinal.training.recipe import load_resolved

pytestmark = pytest.mark.usefixtures("without_figures")

# Those that digits, which are images of ten classes, can be mixed with.
DIGITS_PAIRINGS = PAIRINGS.keys() - {"similar-targets", "other-batch"}

TABLE_POLICIES = ["mixup", "column-cutmix", "dirichlet", "regmixup"]


@pytest.fixture
def study(tmp_path, recipe_text, vicinal):
    """Return a function that runs a study of one short epoch, and answers with its folder."""

    def run(arms, source="digits", network="small-cnn", test_fraction=0.9):
        settings = {"seeds": 1, "corrupted_labels": [0.0], "training.epochs": 1}
        settings |= {"data.source": source, "data.test_fraction": test_fraction}
        recipe = tomllib.loads(recipe_text(settings | {"model.name": network}))
        recipe["arms"] = {"erm": {"policy": "none"}} | arms
        (tmp_path / "all.toml").write_text(tomlkit.dumps(recipe))
        done = vicinal("study", tmp_path / "all.toml", "--out", tmp_path / "study")
        assert done.exit_code == 0, done.output
        return tmp_path / "study"

    return run


def losses_of(folder):
    read = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    return {result["arm"]: result["test_loss"] for result in read}


def test_every_policy_and_pairing_is_an_arm_of_one_study_on_digits(study):
    policies = shorthand_arms(POLICIES.keys() - {"column-cutmix"})
    arms = {name: arm.model_dump(exclude_none=True) for name, arm in policies.items()}
    for name in sorted(DIGITS_PAIRINGS):
        arms[name] = {"policy": "mixup", "alpha": 1.0, "per": "pair", "pairing": name}
    arms["features"] = {"policy": "mixup", "alpha": 1.0, "at": ["input", "stage1", "stage2"]}
    arms["features-too"] = {**arms["regmixup"], "at": ["stage1", "stage2"], "title": ""}
    folder = study(arms)
    losses = losses_of(folder)
    assert losses.keys() == {"erm", *arms}
    assert len(set(losses.values())) == len(losses)  # each arm trained in its own way
    assert (folder / "examples.npz").exists()
    assert load_resolved(folder / "recipe.toml").arms.keys() == {"erm", *arms}


def test_every_policy_for_tables_is_an_arm_of_one_study_on_iris(study):
    policies = shorthand_arms(TABLE_POLICIES)
    arms = {name: arm.model_dump(exclude_none=True) for name, arm in policies.items()}
    losses = losses_of(study(arms, "iris", "mlp", test_fraction=0.5))
    assert losses.keys() == {"erm", *TABLE_POLICIES}
    assert len(set(losses.values())) == len(losses)


MODULE = """
import torch
from vicinal import MixUp, Plan


class Fixed:
    \"\"\"Every example keeps a share, and is blended with the next one.\"\"\"

    def __init__(self, share):
        self.share = share

    def draw(self, size, *, generator=None, y=None, features=None, image_size=None):
        assert y.shape == (size,) and features.shape == (size, 1, *image_size)
        return Plan(torch.arange(size).roll(-1), torch.full((size,), self.share))


HALF = MixUp(alpha=float("inf"))
"""


def test_policies_of_the_user_train_and_their_checkpoints_import_nothing(
    study, tmp_path, monkeypatch, vicinal
):
    (tmp_path / "my_policies.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    fixed = {"policy": "import", "object": "my_policies:Fixed", "options": {"share": 0.75}}
    half = {"policy": "import", "object": "my_policies:HALF", "at": ["stage1"]}
    folder = study({"fixed": fixed, "half": half, "both": {"policy": "regmixup", "inner": fixed}})
    assert losses_of(folder).keys() == {"erm", "fixed", "half", "both"}

    recipe = (tmp_path / "all.toml").read_text().replace("seeds = 1", "seeds = 2")
    (tmp_path / "more.toml").write_text(recipe)
    (tmp_path / "my_policies.py").write_text(MODULE.replace("roll(-1)", "roll(1)"))
    refused = vicinal("study", tmp_path / "more.toml", "--out", folder)
    assert refused.exit_code == 2
    assert "my_policies.py has changed since this process imported it" in refused.stderr
    monkeypatch.delitem(sys.modules, "my_policies")  # as in another process
    refused = vicinal("study", tmp_path / "more.toml", "--out", folder)
    assert refused.exit_code == 2
    assert "(policies.my_policies.py has changed)" in refused.stderr

    monkeypatch.delitem(sys.modules, "my_policies")
    (tmp_path / "my_policies.py").write_text("raise SystemExit('imported')")
    path = folder / "trials" / "both-true-labels-seed0" / "checkpoint.safetensors"
    assert read_checkpoint(path).info.recipe.arms["both"].inner.object == "my_policies:Fixed"
    assert vicinal("score", path).exit_code == 0
    assert "my_policies" not in sys.modules
