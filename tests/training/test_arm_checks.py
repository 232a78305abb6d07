import pytest
import torch

from vicinal.data import DataSet, Split, load
from vicinal.errors import UserError
from vicinal.models import build
from vicinal.training.arm_checks import _fill_zeros, _has_no_effect, check_arms
from vicinal.training.recipe import read_recipe

MIXUP = {"policy": "mixup", "alpha": 1.0}
CUTMIX = {"policy": "cutmix"}


@pytest.fixture
def problem(small_recipe):
    """Return a function that checks an arm, and answers with the sentence of the error."""

    def check(fields, source="digits", network="small-cnn", data=None):
        changes = {"data.source": source, "model.name": network, "arms.mixup-features": None}
        recipe = read_recipe(str(small_recipe(changes | {"arms.mixup": fields})))
        try:
            check_arms(recipe, data or load(source), recipe.arms)
        except UserError as error:
            return str(error)
        return ""

    return check


@pytest.mark.parametrize(
    "fields",
    [
        CUTMIX | {"at": ["input", "stage1"]},  # whose output is as large as the input
        {"policy": "regmixup", "inner": MIXUP, "at": ["stage1", "stage2", "stage3"]},
        {"policy": "one-of", "policies": [MIXUP, "none"], "at": ["stage2"]},
        MIXUP | {"pairing": "nearest"},
        MIXUP | {"pairing": "different-class", "at": ["stage3"]},
    ],
)
def test_an_arm_that_fits_is_not_an_error(problem, fields):
    assert problem(fields) == ""


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            CUTMIX | {"at": ["input", "stage2"]},
            "arms.mixup.at: CutMix draws regions for the size of the inputs, (8, 8), which the "
            'output of stage2 does not have. Choose layers that have it, such as "input".',
        ),
        (
            {"policy": "one-of", "policies": [MIXUP, "fmix"], "at": ["stage3"]},
            "arms.mixup.at: FMix draws regions for the size of the inputs, (8, 8), which the "
            'output of stage3 does not have. Choose layers that have it, such as "input".',
        ),
        (
            MIXUP | {"pairing": {"name": "similar-targets", "bandwidth": 1.0}},
            "arms.mixup: SimilarTargets expects real-valued targets, got classes. Choose another "
            "pairing.",
        ),
        (
            {"policy": "column-cutmix"},
            "arms.mixup: ColumnCutMix cannot mix inputs of shape (1, 8, 8). Choose another policy, "
            "such as mixup.",
        ),
        (
            MIXUP | {"targets": "union"},
            'arms.mixup: targets = "union" expects several labels for each example. Remove it.',
        ),
        (
            {"policy": "import", "object": "vicinal:MixUp", "options": {"alpha": "x"}},
            "arms.mixup: vicinal:MixUp cannot be called with the options alpha (TypeError: MixUp: "
            "expected alpha as a number or a tuple of two, got 'x'.).",
        ),
    ],
)
def test_an_arm_that_does_not_fit_images_of_classes_is_an_error(problem, fields, sentence):
    assert problem(fields) == sentence


def test_a_region_in_the_row_of_a_table_is_an_error(problem):
    for fields in (CUTMIX, {"policy": "regmixup", "inner": "cutmix"}):
        assert problem(fields, "iris", "mlp") == (
            "arms.mixup: CutMix shows the partner in a region, so it expects images, got inputs of "
            "shape (4,). Choose another policy, such as mixup or column-cutmix."
        )
    assert problem(MIXUP | {"pairing": "nearest", "at": ["layer1"]}, "iris", "mlp") == ""
    assert problem({"policy": "column-cutmix"}, "iris", "mlp") == ""


def test_a_second_batch_and_classes_that_are_not_there_are_errors(problem, tmp_path, monkeypatch):
    (tmp_path / "other.py").write_text(
        "from vicinal import MixUp, OtherBatch\nPOLICY = MixUp(1.0, pairing=OtherBatch(4))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert problem({"policy": "import", "object": "other:POLICY"}) == (
        "arms.mixup: OtherBatch needs a second batch, and a training step has one. Choose another "
        "pairing."
    )
    real = Split(torch.rand(8, 1, 8, 8), torch.rand(8))
    data = DataSet(classes=(), train=real, test=real)
    assert problem(MIXUP | {"pairing": "same-class"}, data=data) == (
        "arms.mixup: SameClass expects one class for each example. Choose another pairing."
    )
    similar = {"name": "similar-targets", "bandwidth": 1.0}
    assert problem(MIXUP | {"pairing": similar}, data=data) == ""


TEXTS = """
from torch import nn

def net(shape, classes):
    rest = [nn.Flatten(), nn.Linear(4 * shape[0], classes)]
    return nn.Sequential(nn.Embedding(10, 4), *rest)
"""


def test_tokens_cannot_be_mixed_but_their_vectors_can(problem, tmp_path, monkeypatch):
    (tmp_path / "texts.py").write_text(TEXTS)
    monkeypatch.syspath_prepend(tmp_path)
    tokens = Split(torch.randint(10, (8, 6)), torch.arange(8) % 2)
    data = DataSet(classes=("no", "yes"), train=tokens, test=tokens)
    assert problem(MIXUP, network="texts:net", data=data) == (
        "arms.mixup.at: tokens are numbers of words, so the input of a text network cannot be "
        'mixed. Mix the vectors of the tokens: at = ["0"].'
    )
    for fields in (MIXUP, {"policy": "regmixup", "inner": MIXUP | {"pairing": "same-class"}}):
        assert problem(fields | {"at": ["0"]}, network="texts:net", data=data) == ""
    nearest = MIXUP | {"pairing": "nearest"}
    for fields in (nearest, {"policy": "regmixup", "inner": nearest}):
        found = problem(fields | {"at": ["0"]}, network="texts:net", data=data)
        assert "the numbers of tokens have no distances" in found


def test_all_arms_that_do_not_fit_are_reported_before_training(small_recipe, tmp_path, vicinal):
    changes = {"arms.mixup": CUTMIX | {"at": ["stage2"]}}
    changes["arms.mixup-features"] = MIXUP | {
        "pairing": {"name": "similar-targets", "bandwidth": 1.0}
    }
    recipe = small_recipe(changes)
    done = vicinal("study", recipe, "--out", tmp_path / "study", "--json")
    assert done.exit_code == 2
    assert "arms.mixup.at: CutMix draws regions" in done.stderr
    assert "arms.mixup-features: SimilarTargets expects" in done.stderr
    assert not (tmp_path / "study" / "trials").exists()
    done = vicinal("train", recipe, "--arm", "mixup", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "arms.mixup.at: CutMix draws regions" in done.stderr
    assert vicinal("train", recipe, "--arm", "erm", "--out", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"batch_size": 2000}, "arms.mixup.training.batch_size: expected at most 1257"),
        ({"accumulation_steps": 3}, "arms.mixup: training.batch_size: expected a multiple of 3"),
        pytest.param(
            {"accelerator": "cuda"},
            "arms.mixup.training.accelerator: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
        ({"dropout": 0.5}, "arms.mixup.training.dropout: expected a network with dropout layers"),
    ],
)
def test_settings_of_an_arm_that_cannot_be_trained_are_reported_before_training(
    small_recipe, tmp_path, vicinal, changed, sentence
):
    changes = {"arms.mixup.training": changed, "arms.mixup-features": None, "model.name": "mlp"}
    recipe = small_recipe(changes)
    done = vicinal("study", recipe, "--out", tmp_path / "study")
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert not (tmp_path / "study" / "trials").exists()
    done = vicinal("train", recipe, "--arm", "mixup", "--out", tmp_path / "run")
    assert sentence.partition("training.")[2] in done.stderr


def test_an_augmentation_of_an_arm_that_does_not_fit_is_reported_before_training(
    small_recipe, tmp_path, vicinal
):
    jitter = {"name": "hls-jitter", "hue": 0.1, "lightness": 0.1, "saturation": 0.1}
    recipe = small_recipe({"arms.mixup.augment": [jitter], "arms.mixup-features": None})
    done = vicinal("study", recipe, "--out", tmp_path / "study")
    assert done.exit_code == 2
    assert "arms.mixup.augment: hls-jitter expects images with values up to 255" in done.stderr
    assert not (tmp_path / "study" / "trials").exists()


def test_the_check_does_not_change_the_random_numbers_of_the_caller(problem):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    problem({"policy": "regmixup", "inner": MIXUP, "at": ["stage1"]})
    assert torch.equal(torch.rand(3), expected)


def test_labels_are_united_only_if_there_are_several(problem):
    x = torch.rand(40, 3)
    values = Split(x, torch.linspace(0, 1, 40)[:, None])  # the first ones look like labels
    data = DataSet((), values, values)
    fields = MIXUP | {"targets": "union"}
    assert 'targets = "union" expects several labels' in problem(fields, "iris", "mlp", data)
    labels = Split(x, (torch.rand(40, 2) > 0.5).float())
    assert problem(fields, "iris", "mlp", DataSet((), labels, labels)) == ""


def test_labels_of_real_values_are_not_corrupted(small_recipe, tmp_path, vicinal):
    rows = "".join(f"{k},{k % 7},{k / 3}\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}")
    changes = {"data.source": f"table:{tmp_path / 't.csv'}?label=y", "model.name": "mlp"}
    recipe = small_recipe(changes | {"corrupted_labels": [0.0], "arms.mixup-features": None})
    done = vicinal("train", recipe, "--arm", "erm", "--corrupted", 0.3, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "corrupted_labels: expected a classification task, got regression" in done.stderr


def test_a_layer_whose_output_decides_nothing_is_named(problem, tmp_path, monkeypatch):
    (tmp_path / "networks_with_a_dead_end.py").write_text(
        """
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.unused, self.head = nn.Flatten(), nn.ReLU(), nn.Linear(64, 10)

    def forward(self, x):
        x = self.body(x)
        self.unused(x)
        return self.head(x)

def build(shape, classes):
    return Network()
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = "networks_with_a_dead_end:build"
    assert problem(MIXUP | {"at": ["body"]}, network=network) == ""
    assert problem(MIXUP | {"at": ["body", "unused"]}, network=network) == (
        "arms.mixup.at: mixing the output of unused does not change what the network returns. "
        "Choose other layers."
    )


def test_layers_that_a_part_of_each_example_goes_past_are_warned_of(
    small_recipe, tmp_path, monkeypatch
):
    (tmp_path / "networks_with_branches.py").write_text(
        """
from vicinal import models

def build(shape, classes):
    return models.build("preact-resnet-18", shape=shape, classes=classes)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    fields = {"arms.mixup-features": None, "model.name": "networks_with_branches:build"}

    def warnings(*at):
        recipe = read_recipe(str(small_recipe(fields | {"arms.mixup": MIXUP | {"at": at}})))
        return check_arms(recipe, load("digits"), recipe.arms)

    assert warnings("input", "stages.stage?", "stages.stage2.1") == []
    (one,) = warnings("stages.stage1", "stages.stage1.0.conv2", "stages.stage2.1.conv1")
    assert one.startswith(
        "warning: arms.mixup.at: only a part of each example passes through "
        "'stages.stage1.0.conv2', 'stages.stage2.1.conv1', as in a residual branch"
    )
    assert " and 3 more, as" in warnings("stages.stage?.?.conv2")[0]


def test_layers_in_residual_branches_that_begin_at_zero_are_no_dead_ends(problem):
    network = build("resnet-50", shape=(3, 32, 32), classes=10).eval()
    x = torch.rand(4, 3, 32, 32)
    assert _has_no_effect(network, "stages.stage1.0.conv2", x, network(x))
    _fill_zeros(network)
    assert not _has_no_effect(network, "stages.stage1.0.conv2", x, network(x))
