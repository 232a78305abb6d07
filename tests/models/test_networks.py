"""What every network has to do: learn, be mixed at its layers, and compile."""

import copy
import itertools
import os
import shutil
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from vicinal import MixUp
from vicinal.errors import UserError
from vicinal.models import NETWORKS, build, mixing_layers, set_dropout
from vicinal.models.densenet import DenseNet
from vicinal.models.preact_resnet import PreActResNet
from vicinal.models.resnet import ResNet

LARGE = {"wrn-28-10", "densenet-bc-190", "resnet-101", "resnext-101-32x4d", "resnext-101-64x4d"}
LONG_TO_COMPILE = LARGE | {
    "preact-resnet-18-mixup",
    "preact-resnet-18-manifold",
    "preact-resnet-34",
    "preact-resnet-50",
    "preact-resnet-50-small",
    "densenet-bc-100",
    "resnet-50",
}
RATES = {"fast-cnn": 0.1, "preact-resnet-50-small": 0.005, "densenet-bc-100": 0.005}


slow = pytest.mark.skipif(
    os.environ.get("VICINAL_SLOW") != "1", reason="takes long; VICINAL_SLOW=1 runs it"
)


def networks(slow_ones):
    return [pytest.param(name, marks=[slow] if name in slow_ones else []) for name in NETWORKS]


def batch(name, size):
    """Return random inputs of the smallest shape that a network takes, and random labels."""
    smallest = NETWORKS[name].smallest
    shape = (32,) if smallest is None else (3, smallest, smallest)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, *shape, generator=generator)
    return x, torch.randint(10, (size,), generator=generator)


@cache
def built(name):
    torch.manual_seed(0)
    return build(name, shape=tuple(batch(name, 1)[0].shape[1:]), classes=10)


def fresh(name):
    return copy.deepcopy(built(name))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def forget_networks():
    yield
    built.cache_clear()
    torch.compiler.reset()


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", networks(LARGE))
def test_a_step_changes_all_trainable_weights_and_no_other(name):
    model, (x, y) = fresh(name), batch(name, 8)
    # The last norm of a unit of a ResNet starts at zero, so that the layers before it get no
    # gradient in the first step: use another value.
    for unit in model.modules():
        if isinstance(model, ResNet) and hasattr(unit, "norm3"):
            torch.nn.init.constant_(unit.norm3.weight, 0.1)
    before = copy.deepcopy(dict(model.named_parameters()))
    learning = trained(model)
    optimizer = torch.optim.Adam(learning.values(), lr=1e-3)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    assert 0 < loss.item() < 10
    assert torch.isfinite(F.cross_entropy(model(x), y))
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(learning)


@pytest.mark.parametrize("name", networks(LARGE))
def test_16_random_labels_are_memorized(name):
    model, (x, y) = fresh(name), batch(name, 16)
    optimizer = torch.optim.AdamW(trained(model).values(), lr=RATES.get(name, 0.002))
    for _ in range(100):
        loss = F.cross_entropy(model(x), y)
        if loss < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize("name", networks(LARGE))
def test_mixing_at_a_layer_blends_its_output(name):
    model, (x, _) = fresh(name).double(), batch(name, 4)
    x = x.double()
    plan = MixUp(1.0, per="example").draw(4, generator=torch.Generator().manual_seed(2))

    def blend(_module, _args, out):
        lam = plan.lam.double().view(-1, *[1] * (out.dim() - 1))
        return lam * out + (1 - lam) * out[plan.partner]

    outputs = [model(x)]
    for layer in mixing_layers(name)[1:]:
        module = model.get_submodule(layer)
        with plan.inside(module):
            outputs.append(model(x))
        handle = module.register_forward_hook(blend)
        torch.testing.assert_close(outputs[-1], model(x))
        handle.remove()
    # No two layers are equivalent. The input is left out, since mixing it equals mixing after a
    # linear stem.
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-3 * one.abs().max()


def same_compiled(model, x, y, backend):
    """Compare scores, gradients and running statistics of one step, compiled and not."""
    torch.compiler.reset()
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    ours, theirs = plain(x), compiled(x)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    F.cross_entropy(ours, y).backward()
    F.cross_entropy(theirs, y).backward()
    for (name, p), (_, other) in zip(
        plain.named_parameters(), model.named_parameters(), strict=True
    ):
        if p.requires_grad:
            close = 1e-4 * p.grad.abs().max().item() + 1e-7
            torch.testing.assert_close(other.grad, p.grad, rtol=1e-3, atol=close, msg=name)
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("name", networks(LONG_TO_COMPILE))
def test_a_compiled_step_equals_an_eager_one(name):
    same_compiled(fresh(name), *batch(name, 8), "aot_eager")


@slow
@pytest.mark.skipif(
    not any(map(shutil.which, [os.environ.get("CXX", "g++"), "clang++"])),
    reason="there is no C++ compiler here, which inductor needs",
)
@pytest.mark.parametrize(("name", "shape"), [("mlp", (32,)), ("lenet", (3, 28, 28))])
def test_a_step_compiled_by_inductor_equals_an_eager_one(name, shape):
    # LeNet is compiled at more than its smallest size: with torch 2.13, where a 1x1 image is left
    # to flatten, inductor loses the gradient of the pooling (pytorch/pytorch issue 185509).
    torch.manual_seed(0)
    model = build(name, shape=shape, classes=10)
    same_compiled(model, torch.randn(8, *shape), torch.arange(8), "inductor")


@pytest.mark.parametrize(
    ("make", "side"),
    [
        (lambda: DenseNet((3, 8, 8), 10, depth=10, growth=12), 8),
        (lambda: ResNet((3, 32, 32), 10, units=(1, 1), groups=8, group_width=4), 32),
        (
            lambda: PreActResNet(
                (3, 8, 8),
                10,
                units=(1, 1),
                widths=(8, 16),
                stem=8,
                bottleneck=True,
                projected=True,
                normalize_input=True,
            ),
            8,
        ),
    ],
    ids=["densenet", "resnext", "preact-bottleneck"],
)
def test_a_compiled_step_of_a_shallow_variant_equals_an_eager_one(make, side):
    torch.manual_seed(0)
    same_compiled(make(), torch.randn(8, 3, side, side), torch.arange(8), "aot_eager")


def test_dropout_follows_the_first_relu_inside_each_unit_of_a_preact_resnet():
    network = build("preact-resnet-18", shape=(3, 8, 8), classes=4).train()
    x = torch.randn(6, 3, 8, 8)
    plain = network(x)
    set_dropout(network, 0.5)
    dropped = []
    for unit in [unit for stage in network.stages for unit in stage]:
        unit.dropout.register_forward_hook(
            lambda _, inputs, output: dropped.append((*inputs, output))
        )
        unit.conv2.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs))
    assert (network(x) - plain).abs().max() > 0.01
    assert len(dropped) == 16  # two for each of eight units
    for (before, after), (read,) in zip(dropped[::2], dropped[1::2], strict=True):
        assert before.min() == 0  # a ReLU came before
        kept = after != 0
        torch.testing.assert_close(after[kept], 2 * before[kept])
        assert torch.equal(after, read)
    with pytest.raises(UserError, match=r"training\.dropout: expected .* got MLP, which has none"):
        set_dropout(build("mlp", shape=(4,), classes=3), 0.5)
