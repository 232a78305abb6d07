import pytest

from vicinal.training.recipe import read_recipe, shipped
from vicinal.training.recipe_warnings import unused_settings

STEP = {"name": "step", "milestones": [1, 2, 90]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"training.schedule": STEP},
            "training.schedule.milestones: not reached in 2 epochs: 2, 90",
        ),
        (
            {"training.sync_batch_norm": True},
            "training.sync_batch_norm has no effect: there is one device",
        ),
        ({"arms.mixup.alpha": 0.0}, "arms.mixup never mixes: alpha = 0"),
        (
            {"arms.mixup.mix_rate": 0.0},
            "arms.mixup never mixes: mix_rate = 0 of a batch of 64 examples rounds to 0",
        ),
        (
            {"arms.mixup.mix_rate": 0.007},
            "arms.mixup never mixes: mix_rate = 0.007 of a batch of 64 examples rounds to 0",
        ),
        (
            {"arms.mixup.unmixed_epochs_at_start": 1, "arms.mixup.unmixed_epochs_at_end": 1},
            "arms.mixup never mixes: unmixed_epochs_at_start = 1 and unmixed_epochs_at_end = 1 "
            "leave none of the 2 epochs",
        ),
        (
            {"training.accumulation_steps": 64},
            "arms.mixup never mixes: each forward pass has one example, which has no partner",
        ),
        (
            {"arms.mixup.mix_rate": 0.1, "training.accumulation_steps": 16},
            "arms.mixup never mixes: mix_rate = 0.1 of a batch of 4 examples rounds to 0",
        ),
        (
            {"training.warmup_start_factor": 0.1},
            "training.warmup_start_factor has no effect: warmup_epochs = 0",
        ),
        (
            {"training.class_weights": "balanced", "training.sampling": "balanced"},
            "warning: training.class_weights and training.sampling are both balanced, so rare "
            "classes count more than all others",
        ),
        (
            {"training.warmup_epochs": 1.0},
            "warning: training.warmup_epochs precedes one-cycle, which has a warm-up of its own "
            "(schedule.pct_start), so the learning rate rises, falls and rises again",
        ),
    ],
)
def test_a_setting_that_changes_nothing_is_reported_once(small_recipe, changes, sentence):
    recipe = read_recipe(str(small_recipe({"arms.mixup-features": None} | changes)))
    assert unused_settings(recipe, recipe.arms) == [sentence]


def test_a_study_reports_settings_that_change_nothing(small_recipe, tmp_path, vicinal):
    changes = {"training.epochs": 1, "arms.mixup.alpha": 0.0, "seeds": 1, "corrupted_labels": [0.0]}
    done = vicinal("study", small_recipe(changes), "--out", tmp_path / "study")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("arms.mixup never mixes: alpha = 0") == 1


@pytest.mark.parametrize("milestone", [-3, 0])
def test_a_milestone_before_the_training_is_refused(small_recipe, tmp_path, vicinal, milestone):
    recipe = small_recipe({"training.schedule": STEP | {"milestones": [milestone, 1]}})
    done = vicinal("study", recipe, "--out", tmp_path / "study")
    assert done.exit_code == 2
    assert "milestones.0: expected a number greater than or equal to 1" in done.stderr


def test_every_setting_of_the_shipped_recipes_changes_something():
    for name in (one for one in shipped() if one != "paper-gan"):
        recipe = read_recipe(name)
        assert unused_settings(recipe, recipe.arms) == []


@pytest.mark.parametrize(
    ("changes", "devices", "sentence"),
    [
        ({"training.batch_size": 4}, 4, "each forward pass has one example"),
        (
            {"training.batch_size": 8, "arms.mixup.mix_rate": 0.1},
            2,
            "mix_rate = 0.1 of a batch of 4 examples rounds to 0",
        ),
    ],
)
def test_several_devices_share_the_batch(small_recipe, changes, devices, sentence):
    recipe = read_recipe(str(small_recipe({"arms.mixup-features": None} | changes)))
    (found,) = unused_settings(recipe, recipe.arms, devices=devices)
    assert sentence in found
    assert not unused_settings(recipe, recipe.arms, devices=1)
