import pytest

from vicinal.data import load
from vicinal.studies.results import Trial
from vicinal.studies.trial import run_trial
from vicinal.training.recipe import read_recipe


@pytest.fixture(scope="module")
def digits():
    return load("digits", test_fraction=0.3, seed=0)


def rows_of(recipe, trial, data):
    return run_trial(recipe, trial, data, lambda row: None)[1]


def test_arms_start_alike_and_see_the_same_labels_in_the_same_order(small_recipe, digits):
    # Mixing with alpha 0 is ERM; so the arms agree if, and only if, all but mixing is shared.
    recipe = read_recipe(str(small_recipe({"arms.mixup.alpha": 0.0})))
    plain, mixed = (rows_of(recipe, Trial(arm, 0.4, 1), digits)[0] for arm in ("erm", "mixup"))
    assert mixed == pytest.approx(plain, rel=1e-3)


def test_seed_condition_and_arm_each_change_the_outcome(small_recipe, digits):
    recipe = read_recipe(str(small_recipe()))
    trials = [
        Trial("erm", 0.4, 0),
        Trial("erm", 0.4, 1),
        Trial("erm", 0.0, 0),
        Trial("mixup", 0.4, 0),
        Trial("mixup-features", 0.4, 0),
    ]
    assert len({rows_of(recipe, trial, digits)[-1].test_loss for trial in trials}) == len(trials)


def test_a_trial_repeats_itself_exactly(small_recipe, digits):
    recipe, trial = read_recipe(str(small_recipe())), Trial("mixup-features", 0.4, 0)
    assert rows_of(recipe, trial, digits) == rows_of(recipe, trial, digits)


def test_memorisation_is_asked_for_where_labels_are_wrong(small_recipe, digits):
    recipe = read_recipe(str(small_recipe()))
    assert rows_of(recipe, Trial("erm", 0.0, 0), digits)[-1].memorised is None
    assert 0 <= rows_of(recipe, Trial("erm", 0.4, 0), digits)[-1].memorised <= 1
