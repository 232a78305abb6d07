import json
import sys
import tomllib
from types import ModuleType, SimpleNamespace

import pytest
import tomlkit
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vicinal.data import DataSet, Normalize, Split
from vicinal.errors import UserError
from vicinal.models import build
from vicinal.training.devices import make_fabric
from vicinal.training.loop import make_learner
from vicinal.training.optimizers import make_optimizers
from vicinal.training.recipe import read_recipe
from vicinal.training.settings import SGD, AdamW, Linear, Muon, Training
from vicinal.training.trial_setup import network_notes, normalization

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def pretrained(tmp_path):
    """Write weights of a small network for ten other classes, and return the file."""
    torch.manual_seed(27)
    path = tmp_path / "pretrained.safetensors"
    save_file(build("small-cnn", shape=(1, 8, 8), classes=12).state_dict(), path)
    return path


def weights(folder):
    stored = load_file(folder / "checkpoint.safetensors")
    return {k.removeprefix("/weights/"): v for k, v in stored.items() if k.startswith("/weights/")}


FROZEN = {"training.freeze": "backbone", "training.head_lr_factor": 10.0}


@pytest.fixture
def frozen_recipe(small_recipe, pretrained):
    """Return a function that writes a recipe that fine-tunes the head of a network alone."""
    name = f"small-cnn?weights={pretrained}"
    return lambda **changes: small_recipe({"model.name": name} | FROZEN | changes)


def train(vicinal, recipe, out, *more, arm="erm"):
    done = vicinal("train", recipe, "--arm", arm, "--out", out, "--logger", "none", *more)
    assert done.exit_code == 0, done.stderr
    return done


def test_a_frozen_backbone_keeps_its_pretrained_weights_and_statistics(
    frozen_recipe, pretrained, tmp_path, vicinal
):
    done = train(vicinal, frozen_recipe(), tmp_path / "run")
    assert "the head starts from random weights" in done.stderr
    before, after = load_file(pretrained), weights(tmp_path / "run")
    for name, value in before.items():
        if "head" not in name:
            assert torch.equal(after[name], value), name
    # The checkpoint is complete: it is scored without the file that its training started from.
    pretrained.unlink()
    scored = vicinal("score", tmp_path / "run" / "checkpoint.safetensors", "--json")
    assert scored.exit_code == 0, scored.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert json.loads(scored.stdout)["metrics"]["accuracy"] == result["test_metric"]


def test_a_frozen_training_with_a_moving_average_resumes_bit_for_bit(
    frozen_recipe, tmp_path, vicinal, monkeypatch
):
    from vicinal.training import trial

    recipe = frozen_recipe(**{"training.ema_decay": 0.9})
    train(vicinal, recipe, tmp_path / "whole", arm="mixup")
    real = trial.TrialCheckpointer.save

    def save_and_die(self, progress):
        real(self, progress)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial.TrialCheckpointer, "save", save_and_die)
        vicinal("train", recipe, "--arm", "mixup", "--out", tmp_path / "cut", "--logger", "none")
    train(vicinal, recipe, tmp_path / "cut", "--resume", arm="mixup")
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_a_study_does_not_continue_with_other_pretrained_weights(
    frozen_recipe, pretrained, tmp_path, vicinal
):
    recipe = frozen_recipe(**{"training.epochs": 1})
    words = ["study", recipe, "--out", tmp_path / "study", "--seeds", 1]
    done = vicinal(*words)
    assert done.exit_code == 0, done.stderr
    next((tmp_path / "study" / "trials").glob("erm*/result.json")).unlink()
    save_file({k: v + 1 for k, v in load_file(pretrained).items()}, pretrained)
    refused = vicinal(*words)
    assert refused.exit_code == 2
    assert "network.pretrained has changed" in refused.stderr


def test_one_study_compares_frozen_and_unfrozen_arms(recipe_text, pretrained, tmp_path, vicinal):
    settings = tomllib.loads(recipe_text({"model.name": f"small-cnn?weights={pretrained}"}))
    plain = {"policy": "none"}
    settings["arms"] = {
        "frozen": {"title": "frozen", "training": {"freeze": "backbone"}} | plain,
        "whole": {"title": "whole"} | plain,
    }
    settings |= {"seeds": 1, "baseline": "frozen"}
    path = tmp_path / "frozen.toml"
    path.write_text(tomlkit.dumps(settings))
    done = vicinal("study", path, "--out", tmp_path / "study")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("initial weights:") == 1
    before = load_file(pretrained)["stage1.0.weight"]
    same = {
        folder.name.partition("-")[0]: torch.equal(weights(folder)["stage1.0.weight"], before)
        for folder in (tmp_path / "study" / "trials").iterdir()
    }
    assert same == {"frozen": True, "whole": False}


CHOSEN = [
    SGD(name="sgd", lr=0.1, weight_decay=0.3),
    AdamW(name="adamw", lr=0.1, weight_decay=0.3),
    Muon(name="muon", lr=0.1, rest=SGD(name="sgd", lr=0.1, weight_decay=0.3)),
]


def training(optimizer, **settings):
    return Training(
        epochs=1,
        batch_size=8,
        optimizer=optimizer,
        schedule=Linear(name="linear"),
        **settings,
    )


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda one: one.name)
def test_the_head_has_its_own_learning_rate_and_the_same_weight_decay(chosen):
    network = build("small-cnn", shape=(1, 8, 8), classes=3)
    made = make_optimizers(network, training(chosen, head_lr_factor=5.0))
    rates = {
        id(p): (group["lr"], group.get("weight_decay"))
        for optimizer in made
        for group in optimizer.param_groups
        for p in group["params"]
    }
    head = list(network.head.parameters())
    assert [rates[id(p)] for p in head] == [(0.5, 0.3), (0.5, 0.0)]
    assert rates[id(network.stage1[1].weight)] == (0.1, 0.0)
    groups = [group for optimizer in made for group in optimizer.param_groups]
    assert {group["lr"] for group in groups} == {0.1, 0.5}
    count = sum(len(group["params"]) for group in groups)
    assert count == len(list(network.parameters()))


def test_muon_trains_the_filters_of_a_convolutional_head_with_its_own_rate():
    network = nn.Sequential()
    network.add_module("body", nn.Conv2d(1, 4, 3))
    network.add_module("head", nn.Conv2d(4, 3, 1, bias=False))
    made = make_optimizers(network, training(CHOSEN[2], head_lr_factor=5.0))
    assert [(type(o).__name__, o.param_groups[0]["lr"]) for o in made] == [
        ("FilterMuon", 0.1),
        ("FilterMuon", 0.5),
        ("SGD", 0.1),
    ]


def test_muon_has_nothing_to_train_if_all_convolutions_are_frozen():
    network = build("small-cnn", shape=(1, 8, 8), classes=3)
    frozen = training(CHOSEN[2], freeze="backbone")
    with pytest.raises(UserError, match="has none to train"):
        make_learner(network, frozen, fabric=make_fabric(accelerator="cpu"))


def images(channels, brightest=255):
    x = torch.randint(0, 256, (8, channels, 16, 16), dtype=torch.uint8)
    split = Split(x, torch.arange(8) % 2)
    return DataSet(("cat", "dog"), split, split, brightest=brightest)


@pytest.fixture
def recipe_of(small_recipe):
    """Return a function that reads a recipe with a network."""
    return lambda name, **changes: read_recipe(str(small_recipe({"model.name": name} | changes)))


@pytest.fixture
def timm(monkeypatch):
    """Replace timm by a module with a network that has its own mean and std."""
    module = ModuleType("timm")
    module.is_model = lambda name: True
    module.get_pretrained_cfg = lambda name: SimpleNamespace(
        mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5), input_size=(3, 24, 24), num_classes=10
    )
    module.create_model = lambda name, pretrained, num_classes, in_chans: nn.Sequential(
        nn.Conv2d(in_chans, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.usefixtures("timm")
def test_images_are_normalized_as_the_pretrained_weights_expect(recipe_of):
    recipe, data = recipe_of("timm:tiny?pretrained=true"), images(3)
    x = data.train.inputs
    got = normalization(recipe, data).apply(x, torch.empty(8, 0))
    mean, std = torch.tensor([[0.5, 0.4, 0.3], [0.2, 0.25, 0.5]])[:, :, None, None]
    torch.testing.assert_close(got, (x / 255 - mean) / std)
    texts = [note.text for note in network_notes(recipe, data)]
    assert "by the mean 0.5, 0.4, 0.3 and std 0.2, 0.25, 0.5 of timm" in texts[1]
    assert "images of 24x24 pixels, these have 16x16" in texts[2]


@pytest.mark.usefixtures("timm")
def test_gray_images_are_repeated_to_the_channels_of_the_pretrained_weights(recipe_of):
    recipe, gray = recipe_of("timm:tiny?pretrained=true"), images(1)
    x = gray.train.inputs
    got = normalization(recipe, gray).apply(x, torch.empty(8, 0))
    rgb = DataSet((), *[Split(x.repeat(1, 3, 1, 1), gray.train.targets)] * 2, brightest=255)
    expected = normalization(recipe, rgb).apply(rgb.train.inputs, torch.empty(8, 0))
    assert torch.equal(got, expected)
    assert any("repeated to 3 channels" in note.text for note in network_notes(recipe, gray))


@pytest.mark.usefixtures("timm")
def test_spectrograms_are_repeated_with_their_own_mean_and_std(recipe_of):
    x = torch.randn(8, 1, 16, 16) * 7 - 40
    split = Split(x, torch.arange(8) % 2)
    recipe = recipe_of("timm:tiny?pretrained=true")
    got = normalization(recipe, DataSet(("a", "b"), split, split)).apply(x, torch.empty(8, 0))
    assert got.shape == (8, 3, 16, 16)
    torch.testing.assert_close(got[:, 2], (x[:, 0] - x.mean()) / x.std(correction=0))


@pytest.mark.usefixtures("timm")
def test_images_of_other_channels_and_networks_from_scratch_are_told_apart(recipe_of):
    with pytest.raises(UserError, match="expects 3 channels, got 2"):
        normalization(recipe_of("timm:tiny?pretrained=true"), images(2))
    scratch = normalization(recipe_of("timm:tiny"), images(2))
    assert scratch.mean.shape == (2, 1, 1)


def test_an_unknown_format_of_pretrained_weights_is_a_warning(recipe_of, pretrained):
    recipe = recipe_of(f"small-cnn?weights={pretrained}", **FROZEN)
    *_, note = network_notes(recipe, images(1))
    assert note.doubtful
    assert "the format that its weights expect is not known" in note.text
    *_, note = network_notes(
        recipe_of(f"small-cnn?weights={pretrained}&mean=0.5&std=0.5", **FROZEN), images(1)
    )
    assert not note.doubtful


def test_a_mean_and_std_for_inputs_without_a_known_range_are_refused(recipe_of, pretrained):
    split = Split(torch.randn(8, 1, 8, 8), torch.arange(8) % 2)
    recipe = recipe_of(f"small-cnn?weights={pretrained}&mean=0.5&std=0.5")
    with pytest.raises(UserError, match=r"the options mean and std are for images.*Remove them"):
        normalization(recipe, DataSet(("a", "b"), split, split))


def test_a_frozen_backbone_of_random_weights_is_a_warning(recipe_of):
    (note,) = network_notes(recipe_of("small-cnn", **FROZEN), images(1))
    assert note.doubtful
    assert "freezes a backbone of random weights" in note.text


def test_tokens_are_not_normalized():
    tokens = torch.arange(6).view(2, 3)
    normalize = Normalize(torch.zeros(1), torch.ones(1))
    assert normalize.apply(tokens, torch.empty(2, 0)) is tokens


def test_a_network_that_fails_on_the_data_is_an_error_before_training(
    small_recipe, vicinal, tmp_path, monkeypatch
):
    (tmp_path / "fixed_size.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__(2, classes)\n"
        "    def forward(self, x):\n"
        "        raise AssertionError('height (8) does not match the network (224)')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = small_recipe({"model.name": "fixed_size:Net"})
    done = vicinal("train", recipe, "--arm", "erm", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "failed on two examples of shape (1, 8, 8)" in done.stderr
    assert "height (8) does not match the network (224)" in done.stderr
    assert "size=224" in done.stderr
