import tomllib

import pytest

from vicinal.errors import UserError
from vicinal.training.recipe import (
    changed_recipe,
    changed_text,
    checked_text,
    is_gan_recipe,
    read_recipe,
    read_settings,
    resolved_text,
    shipped,
)
from vicinal.training.recipe_changes import Changes, change


def changed(**changes):
    return read_recipe("digits", changes=Changes(**changes))


def test_numbers_names_and_the_primary_metric_are_replaced():
    recipe = changed(seeds=7, epochs=3, data="iris", model="mlp", metric="nll", arms=["erm"])
    assert (recipe.seeds, recipe.training.epochs) == (7, 3)
    assert (recipe.data.source, recipe.model.name, recipe.metrics) == ("iris", "mlp", ("nll",))


def test_the_primary_metric_moves_to_the_front():
    assert changed(settings=['metrics=["nll", "ece"]'], metric="ece").metrics == ("ece", "nll")


def test_arms_are_kept_left_out_and_added_in_the_order_of_the_recipe():
    recipe = changed(arms=["erm", "mixup", "cutmix", "manifold"])
    assert list(recipe.arms) == ["erm", "mixup", "cutmix", "manifold"]
    assert recipe.arms["mixup"].alpha == 8.0  # the recipe's own
    assert recipe.arms["manifold"].at == ("input", "stage1", "stage2", "stage3")


def test_alpha_is_that_of_every_arm_that_has_one():
    recipe = changed(arms=["erm", "mixup", "regmixup"], alpha=0.5)
    assert recipe.arms["mixup"].alpha == 0.5
    assert recipe.arms["regmixup"].inner.alpha == 0.5


def test_alpha_reaches_arms_that_only_have_its_default_and_policies_inside_others():
    recipe = changed(arms=["erm", "cutmix", "one-of"], alpha=0.4)
    assert recipe.arms["cutmix"].alpha == 0.4
    assert [one.alpha for one in recipe.arms["one-of"].policies] == [0.4, 0.4]


def test_titles_that_state_settings_follow_them(tmp_path):
    path = tmp_path / "resolved.toml"
    path.write_text(resolved_text(changed(arms=["erm", "mixup", "fmix", "manifold"], alpha=0.2)))
    titles = {name: arm.title for name, arm in read_recipe(str(path)).arms.items()}
    expected = ["ERM", "input mixup", "FMix (alpha 0.2)", "manifold mixup (alpha 0.2)"]
    assert [*titles.values()] == expected
    again = read_recipe(str(path), changes=Changes(alpha=0.5)).arms
    assert again["fmix"].title == "FMix (alpha 0.5)"
    assert again["manifold"].title == "manifold mixup (alpha 0.5)"
    recipe = changed_recipe(changed(arms=["erm", "fmix"]), Changes(alpha=2.0))
    assert recipe.arms["fmix"].title == "FMix (alpha 2)"
    assert changed_recipe(changed(), Changes(alpha=2.0)).arms["mixup"].title == "input mixup"


def test_a_field_that_a_table_has_by_default_is_not_taken_for_one_inside_it():
    recipe = read_recipe(
        "cifar10-fast", changes=Changes(settings=["training.optimizer.momentum=0.5"])
    )
    assert recipe.training.optimizer.momentum == 0.5
    assert recipe.training.optimizer.rest.momentum == 0.85
    with pytest.raises(UserError, match=r"training.momentums: there is no field"):
        read_recipe("cifar10-fast", changes=Changes(settings=["training.momentums=0.5"]))


def test_a_field_is_set_by_its_path_or_where_only_one_table_has_it():
    recipe = changed(
        settings=["training.lr=0.5", "training.ema_decay = 0.9", "data.source=iris", "seed=3"]
    )
    assert (recipe.training.optimizer.lr, recipe.training.ema_decay) == (0.5, 0.9)
    assert (recipe.data.source, recipe.seed) == ("iris", 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": ["training.lr"]}, "--set: expected FIELD=VALUE"),
        ({"settings": ["name.x=1"]}, "--set: name in name.x is a value"),
        ({"settings": ["training.epoch=1"]}, "Did you mean 'epochs'"),
        ({"arms": ["erm", "mixupp"]}, "Did you mean 'mixup'"),
        ({"arms": ["erm"], "alpha": 1.0}, "--alpha: none of the arms has one"),
        ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
    ],
)
def test_a_change_that_does_not_fit_is_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        changed(**changes)


def test_comments_survive_a_change_of_a_text():
    text = "seeds = 5   # trials\n[training]\nepochs = 9   # about 3,000 steps\n"
    new = changed_text(text, Changes(seeds=3, epochs=4))
    assert new == text.replace("5", "3", 1).replace("epochs = 9", "epochs = 4")


def test_a_resolved_recipe_is_read_back_as_it_was():
    recipe = read_recipe("paper-cifar10")
    assert tomllib.loads(resolved_text(recipe))["model"]["name"] == recipe.model.name
    assert read_recipe("digits") == changed()


def test_published_rows_of_an_arm_that_is_left_out_are_left_out():
    for name in shipped():
        if not is_gan_recipe(read_settings(name)):
            baseline = read_recipe(name).baseline
            found = read_recipe(name, changes=Changes(arms=[baseline]))
            assert {row.arm for row in found.published} <= {baseline}


def test_published_rows_are_those_of_the_network_and_the_alpha_of_the_recipe():
    own = read_recipe("cifar10-resnet50")
    data = read_recipe("cifar10-resnet50", changes=Changes(data="rec:cifar10"))
    assert data.published == own.published
    more = "The data are rec:cifar10, perhaps not those of the published runs."
    assert data.known_differences == (*own.known_differences, more)
    other = read_recipe("cifar10-resnet50", changes=Changes(model="preact-resnet-18"))
    assert (other.published, other.known_differences) == ((), ())
    other = read_recipe("cifar10-resnet50", changes=Changes(alpha=5.0))
    assert [*other.published] == [row for row in own.published if row.arm == "erm"]
    several = ["arms.mixup.mix_rate=1.0", "model.name=preact-resnet-50-small"]
    one = read_recipe("cifar10-resnet50", changes=Changes(settings=several))
    assert [row for row in own.published if row.arm != "mixup"] == [*one.published]
    text = changed_text(resolved_text(own), Changes(data="npz:cifar10.npz"))
    text = changed_text(text, Changes(data="rec:cifar10"))
    assert changed_text(text, Changes(data="rec:cifar10")) == text
    assert checked_text(text, "x") == data


def test_a_number_of_epochs_is_that_of_all_arms():
    settings = {
        "training": {"epochs": 9},
        "arms": {"erm": {"policy": "none"}, "slow": {"training": {"epochs": 12, "batch_size": 8}}},
    }
    change(settings, Changes(epochs=2))
    assert settings["training"] == {"epochs": 2}
    assert settings["arms"]["slow"] == {"training": {"batch_size": 8}}


@pytest.mark.parametrize("field", ["arms", "metrics"])
@pytest.mark.parametrize("changes", [Changes(), Changes(arms=["cutmix"], metric="nll", alpha=0.5)])
def test_fields_of_a_wrong_type_are_reported_with_and_without_changes(small_recipe, field, changes):
    recipe = small_recipe({field: 5})
    with pytest.raises(UserError, match=rf"{field}"):
        read_recipe(str(recipe), changes=changes)


def test_a_model_that_is_not_a_table_is_an_error_of_the_recipe_with_new_arms_too(small_recipe):
    path = small_recipe({"model": 5})
    with pytest.raises(UserError, match=r"model: expected a table, got 5"):
        read_recipe(str(path), changes=Changes(arms=["erm", "cutmix", "manifold"]))


def test_titles_state_the_alpha_that_was_asked_for():
    changes = Changes(alpha=1.5, arms=["erm", "mixup-8", "mixup-dropout"])
    recipe = read_recipe("paper-corrupt", changes=changes)
    assert [arm.title for arm in recipe.arms.values()] == [
        "ERM",
        "mixup, alpha 1.5",
        "mixup, alpha 1.5 + dropout",
    ]
    with pytest.raises(UserError, match="--alpha: makes the arms mixup-8 and mixup-32 the same"):
        read_recipe("paper-corrupt", changes=Changes(alpha=1.5))
