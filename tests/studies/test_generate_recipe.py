import dataclasses
import tomllib

import pytest
import torch

from vicinal.data import DataSet, Split, load
from vicinal.errors import UserError
from vicinal.studies.budget import Cost, cost_of, fitted
from vicinal.studies.generate_recipe import form_of, generate, study_name
from vicinal.training.recipe import checked_text, read_recipe
from vicinal.training.recipe_changes import Changes
from vicinal.training.task import task_of


def data_of(shape, *, count=200, targets=None, brightest=None, dtype=torch.float32):
    """A data set of random inputs with two classes, or with the targets that are given."""
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.rand(count, *shape, generator=generator) * 255).to(dtype)
    classes = () if targets is not None else ("cat", "dog")
    targets = torch.arange(count) % 2 if targets is None else targets
    split = Split(inputs, targets)
    return DataSet(classes, split, split, brightest=brightest)


def recipe_for(data, **choices):
    text = generate("npz:some.npz", data, task_of(data, "auto"), **choices)
    return checked_text(text, "generated"), text


@pytest.mark.parametrize(
    ("shape", "brightest", "dtype", "form", "network"),
    [
        ((3, 32, 32), 255, torch.uint8, "images", "fast-cnn"),
        ((1, 8, 8), 16, torch.uint8, "images", "small-cnn"),
        ((1, 64, 101), None, torch.float32, "spectrograms", "lenet"),
        ((12,), None, torch.float32, "tables", "mlp"),
        ((4, 5), None, torch.float32, "arrays", "mlp"),
    ],
)
def test_the_form_of_the_data_chooses_the_network(shape, brightest, dtype, form, network):
    data = data_of(shape, brightest=brightest, dtype=dtype)
    recipe, _ = recipe_for(data)
    assert form_of(data) == form
    assert recipe.model.name == network
    assert recipe.baseline == "erm"


def test_only_networks_with_trained_weights_are_fine_tuned():
    def optimizer(model):
        recipe, _ = recipe_for(data_of((3, 32, 32), brightest=255), model=model)
        return recipe.training.optimizer.name, recipe.training.optimizer.lr

    assert optimizer("timm:resnet18?pretrained=true") == ("adamw", 0.0003)
    assert optimizer("timm:resnet18?pretrained=false") == optimizer("timm:resnet18")
    assert optimizer("timm:resnet18")[0] == "sgd"


def test_only_color_images_of_some_size_are_flipped():
    def names(shape):
        recipe, _ = recipe_for(data_of(shape, brightest=255, dtype=torch.uint8))
        return [one.name for one in recipe.data.augment]

    assert names((3, 32, 32)) == ["random-crop", "random-horizontal-flip"]
    assert names((1, 32, 32)) == ["random-crop"]
    assert names((3, 8, 8)) == []


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(100, 16, 60), (3000, 32, 32), (40_000, 128, 10)]
)
def test_batch_size_and_epochs_follow_the_number_of_examples(count, batch, epochs):
    recipe, _ = recipe_for(data_of((2,), count=count))
    assert (recipe.training.batch_size, recipe.training.epochs) == (batch, epochs)


def test_a_regression_gets_c_mixup_and_the_metrics_of_its_task():
    recipe, _ = recipe_for(data_of((2,), targets=torch.rand(200)))
    assert list(recipe.arms) == ["erm", "mixup", "c-mixup"]
    assert recipe.arms["c-mixup"].pairing.name == "similar-targets"
    assert recipe.metrics[0] == "rmse"


def test_chosen_arms_replace_those_of_the_rule_and_the_baseline_stays():
    recipe, _ = recipe_for(data_of((3, 32, 32), brightest=255), arms=["fmix", "manifold"])
    assert list(recipe.arms) == ["erm", "fmix", "manifold"]
    assert recipe.arms["manifold"].at == ("input", "block1", "block2", "block3")


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'small-cnn'"):
        recipe_for(data_of((3, 32, 32), brightest=255), model="smal-cnn")


def test_every_choice_has_a_comment_with_its_reason():
    _, text = recipe_for(data_of((3, 32, 32), brightest=255, dtype=torch.uint8))
    for field in ("augment", 'name = "fast-cnn"', "schedule", "baseline"):
        line = next(line for line in text.splitlines() if line.startswith(field))
        assert " # " in line


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("folder:a/Flowers 2/?size=64", "flowers-2"),
        ("table:x/cars.v2.csv?label=price", "cars-v2"),
        ("npz:猫.npz", "npz"),
        ("iris", "iris"),
    ],
)
def test_a_study_is_named_after_the_last_part_of_its_source(source, name):
    assert study_name(source) == name


def test_the_budget_cuts_seeds_to_three_and_then_epochs_and_says_so():
    recipe = read_recipe("digits", changes=Changes(seeds=5, epochs=30))
    # 12.75 minutes, which are 85% of 15: the rest is for starting and the report.
    cost = Cost(epoch=0.85, total=0.85 * 30 * 5 * 6)
    assert fitted(recipe, cost, 20)[:2] == (5, 30)
    assert fitted(recipe, cost, 20)[2] == ""
    assert fitted(recipe, cost, 12)[:2] == (4, 30)
    seeds, epochs, sentence = fitted(recipe, cost, 6)
    assert (seeds, epochs) == (3, 20)
    assert sentence == (
        "6 minutes allow 3 seeds instead of 5 and 20 epochs instead of 30: an epoch "
        "takes about 0.85 s. 3 seeds and 30 epochs would take --minutes 9"
    )


def test_what_the_user_chose_is_not_cut_and_the_time_it_takes_is_said():
    recipe = read_recipe("digits", changes=Changes(seeds=5, epochs=30))
    cost = Cost(epoch=0.85, total=0.85 * 900.0)
    assert fitted(recipe, cost, 6, fixed=["seeds"])[:2] == (5, 12)
    seeds, epochs, sentence = fitted(recipe, cost, 6, fixed=["seeds", "epochs"])
    assert (seeds, epochs) == (5, 30)
    assert sentence == (
        "the study takes about 15 minutes, since an epoch takes about 0.85 s. To shorten it, "
        "choose fewer --arms, --seeds or --epochs"
    )
    assert "even with 3 seeds instead of 5 and 5 epochs" in fitted(recipe, cost, 0.5)[2]


def test_the_cost_is_that_of_all_trials():
    data = load("iris")
    recipe, _ = recipe_for(dataclasses.replace(data))
    cost = cost_of(recipe, data)
    trials = recipe.seeds * len(recipe.arms) * recipe.training.epochs
    assert cost.total == pytest.approx(cost.epoch * trials)
    assert 0 < cost.epoch < 20


def test_the_generated_text_is_toml_with_the_fields_of_a_recipe():
    _, text = recipe_for(data_of((2,)))
    assert set(tomllib.loads(text)) == {
        "name", "baseline", "seeds", "metrics", "data", "model", "training", "arms"
    }  # fmt: skip
