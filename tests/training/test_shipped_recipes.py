"""Every recipe that comes with vicinal, and every variant of it."""

import tomllib
from importlib import resources

import pytest
import torch

from vicinal.models import build
from vicinal.training.recipe import load_resolved, read_recipe, resolved_text, shipped

SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32)}
SHAPES |= dict.fromkeys(("abalone", "arcene", "arrhythmia", "htru2", "iris", "phishing"), (8,))
IMAGENET = (3, 224, 224)


def as_written(name):
    return tomllib.loads((resources.files("vicinal") / f"recipes/{name}.toml").read_text("utf-8"))


RECIPES = [
    (name, variant)
    for name in shipped()
    if name != "paper-gan"  # tests/studies/test_gan.py
    for variant in [None, *as_written(name).get("variants", {})]
]
of_every_recipe = pytest.mark.parametrize(("name", "variant"), RECIPES)


@of_every_recipe
def test_it_is_valid_wherever_its_data_are_and_survives_being_written(
    name, variant, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where there are no data
    recipe = read_recipe(name, variant=variant)
    assert recipe.name == (name if variant is None else f"{name}-{variant}")
    (tmp_path / "recipe.toml").write_text(resolved_text(recipe))
    assert load_resolved(tmp_path / "recipe.toml") == recipe


@of_every_recipe
def test_its_network_can_be_built_and_mixed_where_its_arms_say(name, variant):
    recipe = read_recipe(name, variant=variant)
    with torch.device("meta"):
        shape = SHAPES.get(recipe.data.source, IMAGENET)
        network = build(recipe.model.name, shape=shape, classes=100)
    for arm in recipe.arms.values():
        for layer in getattr(arm, "at", ()):
            assert layer == "input" or network.get_submodule(layer) is not None


@of_every_recipe
def test_its_rates_fall_before_the_training_is_over(name, variant):
    recipe = read_recipe(name, variant=variant)
    for arm in recipe.arms:
        training = recipe.training_of(arm)
        milestones = getattr(training.schedule, "milestones", (1,))
        assert list(milestones) == sorted(set(milestones))
        assert milestones[-1] < training.epochs


@of_every_recipe
def test_its_published_rows_are_accuracies_of_this_network(name, variant):
    recipe = read_recipe(name, variant=variant)
    for row in recipe.published:
        # Two of the tables are hard: the paper's errors are above 50%.
        hard = name == "paper-uci" and variant in (None, "arcene", "arrhythmia")
        assert hard or row.accuracy > 50, "an error, where an accuracy is wanted"
    changed = as_written(name)["variants"][variant] if variant else {}
    if recipe.published and "model" in changed:
        assert changed["published"], "the rows are of another network"


def test_the_recipes_of_the_paper_have_the_numbers_of_the_paper():
    def errors(name, variant, source):
        rows = read_recipe(name, variant=variant).published
        return [round(100 - row.accuracy, 2) for row in rows if source in row.source]

    paper, code = "1710.09412", "hongyi-zhang"
    assert errors("paper-cifar10", None, paper) == [5.6, 4.2]
    assert errors("paper-cifar10", None, code) == [5.53, 4.24]
    assert errors("paper-cifar10", "weight-decay-5e-4", "") == [5.18, 4.68]
    assert errors("paper-cifar10", "wrn-28-10", "") == [3.8, 2.7]
    assert errors("paper-cifar10", "densenet-bc-190", "") == [3.7, 2.7]
    assert errors("paper-cifar100", None, "") == [25.6, 21.1]
    assert errors("paper-cifar100", "wrn-28-10", "") == [19.4, 17.5]
    assert errors("paper-cifar100", "densenet-bc-190", "") == [19.0, 16.8]
    assert errors("paper-imagenet", None, "") == [23.5, 23.3, 23.6, 22.1]
    assert errors("paper-imagenet", "resnet-101", "") == [22.1, 21.5]
    assert errors("paper-imagenet", "resnext-101-32x4d", "") == [21.2, 20.7]
    assert errors("paper-imagenet", "resnext-101-64x4d", "") == [20.4, 19.8]
    assert errors("paper-uci", None, "") == [74.0, 73.6]
    assert errors("paper-uci", "arcene", "") == [57.6, 48.0]
    assert errors("paper-uci", "arrhythmia", "") == [56.6, 46.3]
    assert errors("paper-uci", "htru2", "") == [2.0, 2.0]
    assert errors("paper-uci", "iris", "") == [21.3, 17.3]
    assert errors("paper-uci", "phishing", "") == [16.3, 15.2]
    assert errors("paper-commands", None, "") == [10.3, 10.8, 11.3]
    assert errors("paper-commands", "vgg-11", "") == [4.6, 3.8, 3.4]
    assert errors("paper-ablation", None, "") == [5.53, 4.24]
    assert errors("manifold-cifar10", None, "") == [4.83, 3.82, 2.95]


@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [
        ("paper-cifar10", None, 11_171_274),  # facebookresearch/mixup-cifar10
        ("paper-cifar10", "weight-decay-5e-4", 11_171_146),  # hongyi-zhang/mixup
        ("paper-cifar100", None, 11_171_274 + 90 * 513),
        ("manifold-cifar10", None, 11_171_146),  # vikasverma1077/manifold_mixup
    ],
)
def test_published_rows_are_shown_next_to_the_network_they_were_measured_with(name, variant, count):
    recipe = read_recipe(name, variant=variant)
    classes = 100 if recipe.data.source == "cifar100" else 10
    with torch.device("meta"):
        network = build(recipe.model.name, shape=(3, 32, 32), classes=classes)
    assert sum(p.numel() for p in network.parameters()) == count


@of_every_recipe
def test_a_recipe_with_published_rows_lists_the_known_differences(name, variant):
    recipe = read_recipe(name, variant=variant)
    assert recipe.known_differences or not recipe.published
    for sentence in recipe.known_differences:
        assert sentence.endswith(".")


def test_the_recipe_of_the_mxnet_layer_names_its_different_loss_and_eps():
    differences = " ".join(read_recipe("cifar10-resnet50").known_differences)
    assert "-log(sum y*p)" in differences
    assert "eps is 2e-5" in differences
