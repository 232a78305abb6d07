import math
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from vicinal import (
    ColumnCutMix,
    CutMix,
    DifferentClass,
    DirichletMixUp,
    FMix,
    MixedInside,
    MixUp,
    MixUpLayer,
    Nearest,
    OneOf,
    Plan,
    RegMixUp,
    SameClass,
    generator_at,
    rows_of_another_rank,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_mixing_inside_equals_mixing_between_the_two_halves_of_the_network():
    model, x = network(), torch.rand(6, 3)
    plan = MixUp(1.0, per="example").draw(6, generator=torch.Generator().manual_seed(1))
    with plan.inside(model[1]):
        output = model(x)
    assert torch.equal(output, model[2](plan.mix(model[1](model[0](x)))))
    assert not torch.equal(output, model(x))


def test_the_gradient_below_the_mixed_layer_is_exact():
    model, x = network().double(), torch.rand(4, 3, dtype=torch.float64)
    plan = MixUp(1.0, per="example").draw(4, generator=torch.Generator().manual_seed(2))

    def run(x):
        with plan.inside(model[0]):
            return model(x)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(),))


def test_the_module_is_as_before_after_the_block_even_after_an_error():
    model, x = network(), torch.rand(6, 3)
    with pytest.raises(ZeroDivisionError), MixUp(1.0).draw(6).inside(model[0]):
        raise ZeroDivisionError
    assert torch.equal(model(x), network()(x))


def test_a_module_that_runs_twice_raises_an_error():
    model, x = network(), torch.rand(6, 3)
    with MixUp(1.0).draw(6).inside(model[0]):
        model(x)
        with pytest.raises(RuntimeError, match="Linear ran a second time"):
            model(x)


def test_a_module_that_does_not_run_raises_an_error():
    model, x = network(), torch.rand(6, 3)
    with (
        pytest.raises(RuntimeError, match="Dropout did not run"),
        MixUp(1.0).draw(6).inside(nn.Dropout()),
    ):
        model(x)


def test_a_module_that_puts_out_a_tuple_raises_an_error():
    model, x = nn.LSTM(3, 4), torch.rand(6, 3)
    with (
        pytest.raises(
            TypeError, match="LSTM: expected a module whose output is one tensor, got a tuple"
        ),
        MixUp(1.0).draw(6).inside(model),
    ):
        model(x)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


class ResNet(nn.Module):
    """A small residual network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layer1, self.layer2 = Block(6), Block(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


X = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(5))
Y = torch.tensor([0, 1, 2, 3, 0, 1])
LAYERS = ["input", "layer1", "layer2"]


def plan_at(seed):
    return MixUp(1.0, per="example").draw(6, generator=torch.Generator().manual_seed(seed))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def test_mixed_inside_equals_inside_at_each_layer():
    model = ResNet()
    mixed = MixedInside(model, MixUp(1.0), at=["input", "layer?"])
    assert mixed.layers == LAYERS
    for seed, layer in enumerate(LAYERS):
        plan = plan_at(seed)
        ours = mixed(X, plan, at=layer)
        if layer == "input":
            expected = model(plan.mix(X))
        else:
            with plan.inside(model.get_submodule(layer)):
                expected = model(X)
        assert torch.equal(ours, expected)
        assert not torch.equal(ours, model(X))


def test_every_layer_is_drawn_and_the_seed_decides():
    mixed = MixedInside(ResNet(), MixUp(1.0), at=LAYERS)
    layers = [mixed.draw(6, generator=generator_at(0, step))[0] for step in range(30)]
    assert set(layers) == set(LAYERS)
    with torch.device("meta"):  # a default device is not where plans are drawn
        again = [mixed.draw(6, generator=generator_at(0, step))[0] for step in range(30)]
    assert layers == again


def test_the_model_alone_is_not_mixed_after_it_was_mixed():
    model = ResNet()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    plan = plan_at(1)
    plan.loss(F.cross_entropy, mixed(X, plan, at="layer1"), Y).backward()
    assert torch.equal(model(X), ResNet()(X))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_step_compiles_without_graph_break_at_most_once_for_each_layer(backend):
    counter = CompileCounterWithBackend(backend)
    mixed = MixedInside(ResNet(), MixUp(1.0, per="example"), at=LAYERS)
    compiled = torch.compile(mixed, fullgraph=True, backend=counter)
    seen = set()
    for step in range(12):
        layer, plan = mixed.draw(6, generator=generator_at(3, step))
        seen.add(layer)
        ours = gradients(mixed, plan.loss(F.cross_entropy, compiled(X, plan, at=layer), Y))
        expected = gradients(mixed, plan.loss(F.cross_entropy, mixed(X, plan, at=layer), Y))
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert seen == set(LAYERS)
    assert counter.frame_count <= len(LAYERS)


def test_a_whole_step_with_its_loss_compiles_without_graph_break():
    mixed = MixedInside(ResNet(), MixUp(1.0), at=LAYERS)

    @torch.compile(fullgraph=True, backend="eager")
    def step(x, y, plan, layer):
        return plan.loss(F.cross_entropy, mixed(x, plan, at=layer), y)

    for layer in LAYERS:
        plan = plan_at(2)
        expected = plan.loss(F.cross_entropy, mixed(X, plan, at=layer), Y)
        torch.testing.assert_close(step(X, Y, plan, layer), expected)


def test_rows_of_another_rank_need_ranks():
    with pytest.raises(RuntimeError, match=r"expected a distributed run\. Call"):
        rows_of_another_rank(torch.rand(2))


class Several(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(x, x + 1)


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    ("form", "entry"),
    [
        (lambda a, b: (a, b), 1),
        (lambda a, b: (a, b), -1),
        (lambda a, b: [a, b], 1),
        (lambda a, b: {"a": a, "b": b}, "b"),
        (Pair, 1),
    ],
)
def test_one_entry_of_a_tuple_a_list_or_a_dict_is_mixed(form, entry):
    model, x, plan = Several(form), torch.rand(6, 3), plan_at(0)
    for output in (inside_of(model, x, plan, entry), mixed_inside_of(model, x, plan, entry)):
        assert type(output) is type(form(x, x))
        assert torch.equal(output[entry], plan.mix(x + 1))
        others = output.values() if isinstance(output, dict) else output
        assert torch.equal(next(iter(others)), x)


def inside_of(model, x, plan, entry):
    with plan.inside(model, entry=entry):
        return model(x)


def mixed_inside_of(model, x, plan, entry):
    whole = nn.Sequential(model)
    return MixedInside(whole, MixUp(1.0), at=["0"], entry=entry)(x, plan, at="0")


@pytest.mark.parametrize(
    ("form", "entry", "words"),
    [
        (lambda a, b: (a, b), None, "got a tuple. Pass the entry"),
        (lambda a, b: (a, b), 2, "an entry of the tuple from Several, got 2"),
        (lambda a, b: {"a": a}, "b", "an entry of the dict from Several, got 'b'"),
        (lambda a, b: (a, "text"), 1, "entry 1 of Several: expected a tensor"),
    ],
)
def test_an_entry_that_cannot_be_mixed_raises_an_error(form, entry, words):
    with pytest.raises(TypeError, match=words):
        inside_of(Several(form), torch.rand(6, 3), plan_at(0), entry)


def test_an_unknown_layer_raises_an_error_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"no layer 'layr1'. Did you mean 'layer1'"):
        MixedInside(ResNet(), MixUp(1.0), at=["layr1"])
    with pytest.raises(ValueError, match=r"expected a list of layers.*got 'layer1'"):
        MixedInside(ResNet(), MixUp(1.0), at="layer1")
    mixed = MixedInside(ResNet(), MixUp(1.0), at=["layer1"])
    with pytest.raises(ValueError, match=r"no layer 'layer2'. Did you mean 'layer1'"):
        mixed(X, plan_at(0), at="layer2")


def test_a_layer_that_runs_twice_or_never_raises_an_error():
    shared = nn.Linear(3, 3)
    mixed = MixedInside(nn.Sequential(shared, nn.ReLU(), shared), MixUp(1.0), at=["0"])
    with pytest.raises(RuntimeError, match="0 ran a second time in one forward pass"):
        mixed(torch.rand(6, 3), plan_at(0), at="0")
    model = ResNet()
    model.spare = nn.ReLU()
    with pytest.raises(RuntimeError, match="spare ran 0 times"):
        MixedInside(model, MixUp(1.0), at=["spare"])(X, plan_at(0), at="spare")


def test_the_weights_of_a_wrapped_model_are_its_own():
    model = ResNet()
    mixed = MixedInside(model, MixUp(1.0), at=LAYERS)
    assert [n for n, _ in mixed.named_parameters()] == [
        f"model.{n}" for n, _ in model.named_parameters()
    ]
    assert len(list(mixed.modules())) == len(list(model.modules())) + 1


def test_a_layer_mixes_inputs_and_labels_in_train_mode_and_nothing_in_eval_mode():
    layer = MixUpLayer(MixUp(1.0, per="example"), num_classes=4)
    torch.manual_seed(3)
    x, y = layer(X, Y)
    torch.manual_seed(3)
    plan = MixUp(1.0, per="example").draw(6)
    assert torch.equal(x, plan.mix(X))
    assert torch.equal(y, plan.targets(Y, num_classes=4))
    layer.eval()
    x, y = layer(X, Y)
    assert x is X
    assert y is Y


def test_a_layer_draws_regions_for_the_pictures_that_it_gets_and_pairs_by_their_classes():
    x, y = MixUpLayer(CutMix(1.0, pairing=SameClass()), num_classes=4)(X, Y)
    assert x.shape == X.shape
    torch.testing.assert_close(y, F.one_hot(Y, 4).float())


def test_regmixup_inside_returns_clean_rows_and_then_blends():
    model, plan = network(), RegMixUp(MixUp(1.0)).draw(6)
    x = torch.rand(6, 3)
    with plan.inside(model[1]):
        output = model(x)
    assert torch.equal(output[:6], model(x))
    assert torch.equal(output[6:], model[2](plan.plan.mix(model[1](model[0](x)))))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: MixedInside(ResNet(), 0.2, at=["layer1"]),
            "MixedInside: expected a policy.*got 0.2",
        ),
        (lambda: MixUpLayer(MixUp, 4), "MixUpLayer: expected a policy"),
        (lambda: MixUpLayer(RegMixUp(MixUp(1.0)), 4), "RegMixUp, whose weight would be lost"),
        (lambda: MixUp(1.0, pairing="reverse"), r"pairing such as Shuffle\(\), got 'reverse'"),
        (lambda: MixUp(1.0, pairing=SameClass), "pairing such as"),
        (lambda: MixUp("0.2"), "alpha as a number or a tuple of two, got '0.2'"),
        (lambda: plan_at(0).inside("layer1").__enter__(), "module, such as model.layer1"),
    ],
)
def test_arguments_of_another_kind_raise_an_error(make, words):
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize("sizes", [(50,), (6, 7), (4, 5, 6)])
def test_a_layer_cuts_along_the_sizes_and_never_across_channels(sizes):
    layer = MixUpLayer(CutMix(1.0, per="example"), num_classes=8)
    torch.manual_seed(1)
    x = torch.arange(8.0).reshape(8, 1, *[1] * len(sizes)).expand(8, 3, *sizes)
    mixed, soft = layer(x.contiguous(), torch.arange(8))
    assert all(torch.equal(mixed[:, 0], mixed[:, channel]) for channel in (1, 2))
    shares = torch.stack([(mixed[:, 0] == k).flatten(1).float().mean(1) for k in range(8)], 1)
    torch.testing.assert_close(shares, soft)


def test_a_layer_with_a_policy_for_images_raises_an_error_for_signals():
    with pytest.raises(
        ValueError, match=r"FMix: expected image_size as \(height, width\), got \(50,\)"
    ):
        MixUpLayer(FMix())(torch.zeros(4, 3, 50), torch.zeros(4, 2))


@pytest.mark.parametrize(
    "policy",
    [
        MixUp(0.2),
        MixUp(0.2, per="example", pairing=DifferentClass()),
        DirichletMixUp(1.0, per="example"),
        ColumnCutMix(1.0, per="example"),
        OneOf([MixUp(0.2), None]),
    ],
)
def test_a_compiled_layer_takes_a_last_batch_that_is_smaller(policy):
    torch._dynamo.reset()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = MixUpLayer(policy, 5), nn.Linear(16, 5)

        def forward(self, x, y):
            x, y = self.mix(x, y)
            return F.cross_entropy(self.head(x), y)

    net = torch.compile(Net(), backend="eager")
    for rows in (8, 8, 5, 3):
        net(torch.rand(rows, 16), torch.arange(rows) % 5).backward()


def test_a_layer_gives_its_input_to_pairings_of_neighbors():
    x = torch.tensor([[0.0], [10.0], [0.1], [10.1]])
    layer = MixUpLayer(MixUp(math.inf, pairing=Nearest(k=1)), 2)
    assert layer(x, torch.tensor([0, 1, 0, 1]))[0].flatten().tolist() == pytest.approx(
        [0.05, 10.05, 0.05, 10.05]
    )


@pytest.mark.parametrize("at", [["input"], ["inp*"], ["*"]])
def test_a_module_named_input_is_not_taken_for_the_input(at):
    model = nn.ModuleDict({"input": nn.Linear(4, 4), "body": nn.Linear(4, 2)})
    with pytest.raises(ValueError, match="the model has a module of that name too"):
        MixedInside(model, MixUp(1.0), at=at)


def test_a_policy_whose_weight_would_be_lost_is_refused_inside_another_one():
    layer = MixUpLayer(OneOf([RegMixUp(MixUp(1.0), weight=0.1)]), 3)
    with pytest.raises(TypeError, match="whose weight would be lost"):
        layer(torch.rand(4, 2), torch.tensor([0, 1, 2, 0]))


def test_a_layer_of_several_parents_compiles_without_graph_breaks():
    layer = torch.compile(MixUpLayer(DirichletMixUp(1.0), 3), fullgraph=True, backend="eager")
    x, y = layer(torch.rand(4, 2), torch.tensor([0, 1, 2, 0]))
    assert (x.shape, y.shape) == ((4, 2), (4, 3))


def test_an_entry_of_a_dictionary_that_can_be_indexed_by_number_is_mixed():
    class Output(dict):  # as ModelOutput of transformers
        def __getitem__(self, key):
            return list(self.values())[key] if isinstance(key, int) else dict.__getitem__(self, key)

        def copy(self):
            return Output(self)

    class Encoder(nn.Module):
        def forward(self, x):
            return Output(last=x, other=x + 1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

        def forward(self, x):
            output = self.encoder(x)
            return output["last"], output["other"]

    model, x, plan = (
        Model(),
        torch.tensor([[0.0], [8.0]]),
        Plan(torch.tensor([1, 0]), torch.ones(2) / 4),
    )
    for entry, expected in (
        (0, ([6, 2], [1, 9])),
        (-1, ([0, 8], [7, 3])),
        ("last", ([6, 2], [1, 9])),
    ):
        mixed = MixedInside(model, MixUp(1.0), at=["encoder"], entry=entry)
        first, second = mixed(x, plan, at="encoder")
        assert (first.flatten().tolist(), second.flatten().tolist()) == expected
