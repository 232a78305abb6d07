"""The lines for the reader's own loop run, and make the policy of the arm."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vicinal
from vicinal.reports.own_loop import own_loop
from vicinal.training.arms import policy_of
from vicinal.training.recipe import read_recipe
from vicinal.training.recipe_changes import Changes
from vicinal.training.settings import Recipe

ARMS = [
    {"policy": "mixup", "alpha": 8.0, "per": "example"},
    {"policy": "mixup", "alpha": math.inf, "pairing": {"name": "nearest", "k": 3}},
    {"policy": "mixup", "alpha": 1.0, "pairing": {"name": "same-class"}, "at": ["stage1"]},
    {"policy": "mixup", "alpha": [2.0, 1.0], "keep_larger": True},
    {"policy": "cutmix", "alpha": 0.5},
    {"policy": "resizemix"},
    {"policy": "fmix", "alpha": 1.0},
    {"policy": "dirichlet", "alpha": 1.0},
    {"policy": "regmixup", "inner": {"policy": "mixup", "alpha": 10.0}},
    {"policy": "one-of", "policies": [{"policy": "cutmix", "alpha": 1.0}, {"policy": "none"}]},
]


def recipe_of(arm):
    settings = read_recipe("digits").model_dump()
    settings["arms"] = {"erm": {"title": "ERM", "policy": "none"}, "mixed": arm}
    return Recipe.model_validate(settings)


@pytest.mark.parametrize("arm", ARMS, ids=[arm["policy"] for arm in ARMS])
def test_the_lines_run_and_make_the_policy_of_the_arm(arm):
    recipe, made = recipe_of(arm), []
    lines = own_loop(recipe, "mixed", "classification")
    assert len(lines.splitlines()) == 3
    model = nn.Sequential()
    model.add_module("stage1", nn.Flatten())
    model.add_module("head", nn.Linear(64, 2))
    names = {name: getattr(vicinal, name) for name in vicinal.__all__}
    names |= {"math": math, "F": F, "model": model}
    names |= {"x": torch.rand(8, 1, 8, 8), "y": torch.tensor([0, 1] * 4)}
    if "at" in arm:  # the policy is an argument of the wrapper
        wrapper = names["MixedInside"]
        names["MixedInside"] = lambda model, policy, **k: (
            made.append(policy),
            wrapper(model, policy, **k),
        )[1]
    exec(lines, names)
    assert names["loss"].isfinite()
    found = made[0] if made else names["policy"]
    assert repr(found).replace("(", "[").replace(",)", "]").replace(")", "]") == repr(
        policy_of(recipe.arms["mixed"])
    ).replace("(", "[").replace(",)", "]").replace(")", "]")


def test_a_policy_of_the_users_own_is_named_and_not_imported():
    arm = {"policy": "import", "object": "nowhere.policies:Mine", "options": {"alpha": 2.0}}
    lines = own_loop(recipe_of(arm), "mixed", "regression")
    assert lines.partition("\n")[2].startswith("policy = Mine(alpha=2.0)\n")
    assert "plan.loss(F.mse_loss, " in lines


def test_targets_of_a_regression_are_standardized_as_the_bandwidth_expects():
    arm = {"policy": "mixup", "alpha": 2.0, "pairing": {"name": "similar-targets"}}
    arm["pairing"]["bandwidth"] = 0.5
    lines = own_loop(recipe_of(arm), "mixed", "regression").splitlines()
    assert lines[0].startswith("y = (y - mean) / std")
    assert any("y=y" in line for line in lines)


def test_epochs_that_are_not_mixed_are_mentioned():
    arm = {"policy": "mixup", "alpha": 1.0, "unmixed_epochs_at_end": 3}
    assert own_loop(recipe_of(arm), "mixed", "classification").endswith(
        "# The first 0 and the last 3 epochs were not mixed."
    )


def test_one_hot_columns_are_mentioned_where_the_policy_needs_them():
    lines = own_loop(recipe_of({"policy": "column-cutmix"}), "mixed", "classification")
    assert lines.startswith("# If columns are one-hot, pass groups=..., as in the study")
    assert "groups" in vicinal.ColumnCutMix.__doc__


def test_a_loss_with_more_settings_is_not_passed_over():
    changes = Changes(settings=["training.label_smoothing=0.2", "training.class_weights=balanced"])
    lines = own_loop(read_recipe("digits", changes=changes), "mixup", "classification")
    text = '# The loss of the study also has label_smoothing = 0.2 and class_weights = "balanced".'
    assert lines.splitlines()[-1] == text
