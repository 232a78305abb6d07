import itertools
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import MixUp
from vicinal.errors import UserError
from vicinal.models import NETWORKS, build, mixing_layers

COUNTS = {
    # Known elsewhere: the papers give them in millions, PyTorch's own models to the last one.
    "wrn-28-10": ((3, 32, 32), 10, 36_479_194),
    "densenet-bc-100": ((3, 32, 32), 10, 769_162),
    "densenet-bc-190": ((3, 32, 32), 10, 25_624_430),
    "resnet-50": ((3, 224, 224), 1000, 25_557_032),
    "resnet-101": ((3, 224, 224), 1000, 44_549_160),
    "resnext-101-32x4d": ((3, 224, 224), 1000, 44_177_704),
    "resnext-101-64x4d": ((3, 224, 224), 1000, 83_455_272),
    "lenet": ((1, 28, 28), 10, 431_080),
    "mlp": ((30,), 2, 31 * 128 + 129 * 128 + 129 * 2),
    # Counted by hand from their layers, below.
    "preact-resnet-10-small": ((3, 32, 32), 10, 308_378),
    "preact-resnet-18": ((3, 32, 32), 10, None),
    "preact-resnet-18-mixup": ((3, 32, 32), 10, 11_171_274),
    "preact-resnet-18-manifold": ((3, 32, 32), 10, 11_171_146),
    "preact-resnet-34": ((3, 32, 32), 10, None),
    "preact-resnet-50": ((3, 32, 32), 10, None),
    "preact-resnet-50-small": ((3, 28, 28), 10, None),
    "vgg-11": ((1, 160, 101), 30, None),
    "small-cnn": ((1, 8, 8), 10, None),
    "fast-cnn": ((3, 32, 32), 10, None),
}


def preact(units, widths, stem, *, bottleneck=False, projected=False):
    """Count weights from the text of the paper: convolutions without bias, norms with two each."""
    total, channels = 3 * 9 * stem, stem
    for k, (count, width) in enumerate(zip(units, widths, strict=True)):
        for j in range(count):
            if bottleneck:
                total += 2 * (channels + 2 * width) + width * (channels + 9 * width + 4 * width)
                out = 4 * width
            else:
                total += 2 * (channels + width) + 9 * width * (channels + width)
                out = width
            if channels != out or (k and not j) or (projected and not k and not j):
                total += channels * out
            channels = out
    return total + 2 * channels + 11 * channels - channels + 10


def by_hand(name):
    wide = (64, 128, 256, 512)
    if name == "vgg-11":
        widths = [1, 64, 128, 256, 256, 512, 512, 512, 512]
        pairs = itertools.pairwise(widths)
        return sum(9 * a * b + 2 * b for a, b in pairs) + 513 * 30
    if name == "small-cnn":
        convolutions = 9 * (16 + 16 * 32 + 32 * 32) + 2 * (16 + 32 + 32)
        return convolutions + (32 * 16 + 1) * 10
    if name == "fast-cnn":
        pairs = [(24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256)]
        return 24 * 12 + 24 + sum(9 * a * b + 2 * b for a, b in pairs) + 256 * 10
    return {
        "preact-resnet-18": lambda: preact((2, 2, 2, 2), wide, 64),
        "preact-resnet-34": lambda: preact((3, 4, 6, 3), wide, 64),
        "preact-resnet-50": lambda: preact((3, 4, 6, 3), wide, 64, bottleneck=True),
        "preact-resnet-50-small": lambda: preact((8, 8, 8), (16, 32, 64), 16, projected=True),
    }[name]()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_weights_is_the_published_one(name):
    shape, classes, known = COUNTS[name]
    with torch.device("meta"):
        network = build(name, shape=shape, classes=classes)
    assert sum(p.numel() for p in network.parameters()) == (known or by_hand(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_mixing_layer_is_a_module_that_can_be_mixed(name):
    # Shapes only, and all layers in one pass: the largest networks are slow on a CPU.
    with torch.device("meta"):
        model = build(name, shape=(3, 32, 32), classes=10)
        x, plan = torch.rand(4, 3, 32, 32), MixUp(1.0).draw(4).to("meta")
    layers = mixing_layers(name)
    assert layers[0] == "input"
    assert len(set(layers)) == len(layers) > 2
    with ExitStack() as stack:
        for layer in layers[1:]:
            stack.enter_context(plan.inside(model.get_submodule(layer)))
        assert model(x).shape == (4, 10)


def test_units_of_a_residual_network_add_to_their_input():
    model = build("preact-resnet-18", shape=(3, 32, 32), classes=10)
    unit = model.get_submodule("stages.stage1")[1]
    nn.init.zeros_(unit.conv2.weight)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(unit(x), x)


def test_shortcuts_of_the_mixup_variant_start_after_the_activation():
    x = torch.randn(2, 64, 8, 8)
    for name, expected in (("mixup", F.relu(x / (1 + 1e-5) ** 0.5)), ("manifold", x)):
        model = build(f"preact-resnet-18-{name}", shape=(3, 32, 32), classes=10).eval()
        unit = model.get_submodule("stages.stage1")[0]
        nn.init.zeros_(unit.conv2.weight)
        torch.testing.assert_close(unit(x), expected)


@pytest.mark.parametrize("name", ["preact-resnet-18-mixup", "preact-resnet-18-manifold"])
def test_the_variants_agree_with_a_plain_version_of_the_published_programs(name):
    torch.manual_seed(0)
    model = build(name, shape=(3, 32, 32), classes=10).eval()
    torch.manual_seed(0)
    first = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    assert torch.equal(model.stem[1].weight, first.weight), "PyTorch's default weights"
    plain, x = dict(model.named_parameters()), torch.randn(2, 3, 32, 32)

    def norm(x, name):
        scaled = x / (1 + 1e-5) ** 0.5  # statistics that nothing was learned of yet
        weight, bias = (plain[f"{name}.{one}"][:, None, None] for one in ("weight", "bias"))
        return F.relu(scaled * weight + bias)

    out = F.conv2d(x, plain["stem.1.weight"], padding=1)
    if name.endswith("mixup"):
        out = norm(out, "stem.2")
    for stage in range(4):
        for unit in range(2):
            at, stride = f"stages.stage{stage + 1}.{unit}", 2 if stage and not unit else 1
            active = norm(out, f"{at}.norm1")
            around = active if name.endswith("mixup") else out
            if stride == 2:
                around = F.conv2d(active, plain[f"{at}.around.weight"], stride=2)
            y = F.conv2d(active, plain[f"{at}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(norm(y, f"{at}.norm2"), plain[f"{at}.conv2.weight"], padding=1)
            out = y + around
    expected = F.linear(F.avg_pool2d(out, 4).flatten(1), plain["head.weight"], plain["head.bias"])
    torch.testing.assert_close(model(x), expected)


def test_the_small_network_of_the_mxnet_layer_normalizes_its_input_without_weights():
    model = build("preact-resnet-50-small", shape=(3, 28, 28), classes=10)
    first = model.stem[0]
    x = torch.randn(64, 3, 28, 28) * 50 + 120
    assert not list(first.parameters())
    assert abs(first(x).mean().item()) < 1e-4
    assert first(x).std().item() == pytest.approx(1, abs=1e-3)


def test_an_unknown_network_raises_an_error_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'smal-cnn'. Did you mean 'small-cnn'"):
        build("smal-cnn", shape=(1, 8, 8), classes=10)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("small-cnn", (30,), r"small-cnn does not take .* \(30,\). These networks do: mlp\.$"),
        (
            "resnet-50",
            (3, 28, 28),
            r"\(3, 28, 28\). These networks do: small-cnn, fast-cnn, mlp, lenet, preact",
        ),
    ],
)
def test_a_network_that_does_not_take_such_examples_names_those_that_do(name, shape, message):
    with pytest.raises(UserError, match=message):
        build(name, shape=shape, classes=2)
