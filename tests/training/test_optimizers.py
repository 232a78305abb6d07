import pytest
import torch
from torch import nn

from vicinal.errors import UserError
from vicinal.training.muon import FilterMuon
from vicinal.training.optimizers import make_optimizers
from vicinal.training.settings import SGD, AdamW, Linear, Muon, Training


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)
    )


def optimizers(model, chosen, *, weight_decay_on):
    linear = Linear(name="linear")
    return make_optimizers(
        model,
        Training(
            epochs=1,
            batch_size=8,
            optimizer=chosen,
            schedule=linear,
            weight_decay_on=weight_decay_on,
        ),
    )


def one_step(model, chosen, weight_decay_on="weights"):
    made = optimizers(model, chosen, weight_decay_on=weight_decay_on)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model(x).square().sum().backward()
    for optimizer in made:
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


CHOSEN = {
    "sgd": SGD(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.3),
    "adamw": AdamW(name="adamw", lr=0.1, weight_decay=0.3),
    "muon": Muon(name="muon", lr=0.1, rest=SGD(name="sgd", lr=0.1, weight_decay=0.3)),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_every_parameter_is_learned_and_belongs_to_one_optimizer(name):
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    after = one_step(model, CHOSEN[name])
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    made = optimizers(network(), CHOSEN[name], weight_decay_on="weights")
    sizes = [p.numel() for o in made for group in o.param_groups for p in group["params"]]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_do_not_decay_unless_all_do(name):
    # Without a gradient, what changes is what decays.
    for decay, expected in (
        ("weights", [True, False, False, False, True, False]),
        ("all", [True, True, True, True, True, True]),
    ):
        model = network()
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
        made = optimizers(model, CHOSEN[name], weight_decay_on=decay)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        for optimizer in made:
            optimizer.step()
        assert [bool((p != 1).all()) for p in model.parameters()] == expected


def test_frozen_parameters_are_left_alone():
    model = network()
    model[0].weight.requires_grad_(False)
    made = optimizers(model, CHOSEN["sgd"], weight_decay_on="all")
    held = [p for o in made for group in o.param_groups for p in group["params"]]
    assert not any(p is model[0].weight for p in held)
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(UserError, match="expected a network with parameters to train"):
        optimizers(model, CHOSEN["sgd"], weight_decay_on="all")


def test_muon_makes_steps_of_filters_orthogonal_in_either_memory_format():
    steps = []
    for format in (torch.contiguous_format, torch.channels_last):
        layer = nn.Conv2d(4, 6, 3, bias=False)
        with torch.no_grad():
            layer.weight.zero_()
        layer.to(memory_format=format)
        optimizer = FilterMuon([layer.weight], lr=0.5, momentum=0.0)
        chance = torch.Generator().manual_seed(1)
        gradient = torch.randn(6, 4, 3, 3, generator=chance)
        layer.weight.grad = gradient.to(memory_format=format)
        optimizer.step()
        steps.append(layer.weight.detach().flatten(1) / 0.5)
        # An independent way to the nearest orthogonal matrix: singular values become one.
        u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        cosine = torch.nn.functional.cosine_similarity(
            steps[-1].flatten(), -(u @ v).flatten(), dim=0
        )
        assert cosine > 0.97
    torch.testing.assert_close(steps[0], steps[1], rtol=0.02, atol=0.02)


def test_muon_forgets_gradients_of_filters():
    layer = nn.Conv2d(1, 2, 2)
    optimizer = FilterMuon([layer.weight], lr=0.5)
    layer(torch.rand(1, 1, 4, 4)).sum().backward()
    optimizer.zero_grad()
    assert layer.weight.grad is None
    before = layer.weight.detach().clone()
    optimizer.step()
    assert torch.equal(layer.weight, before)


def test_muon_keeps_the_size_of_filters():
    layer = nn.Conv2d(3, 8, 3, bias=False)
    optimizer = FilterMuon([layer.weight], lr=0.1)
    with torch.no_grad():
        layer.weight *= 100
    layer(torch.rand(2, 3, 8, 8)).square().sum().backward()
    before = layer.weight.detach().flatten(1).clone()
    optimizer.step()
    after = layer.weight.detach().flatten(1)
    # Eight filters of mean square length 1, and a step of eight orthogonal rows times 0.1.
    unit = before / before.square().sum(1).mean().sqrt()
    step = torch.linalg.matrix_norm(after - unit, 2)
    assert 0.05 < step < 0.13


def test_muon_without_convolutions_raises():
    with pytest.raises(UserError, match=r"Linear has none to train\. Choose sgd or adamw"):
        optimizers(nn.Linear(2, 2), CHOSEN["muon"], weight_decay_on="all")


def test_norms_of_several_dimensions_do_not_decay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 6, 6]), nn.GroupNorm(2, 8))
    (optimizer,) = optimizers(model, CHOSEN["sgd"], weight_decay_on="weights")
    decaying, others = optimizer.param_groups
    assert [id(p) for p in decaying["params"]] == [id(model[0].weight)]
    assert (len(others["params"]), others["weight_decay"]) == (5, 0.0)


def test_muon_trains_filters_of_2d_convolutions_only():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv1d(3, 8, 3), nn.Linear(2, 2))
    model.register_parameter("positions", nn.Parameter(torch.zeros(1, 3, 8, 8)))
    _, rest = optimizers(model, CHOSEN["muon"], weight_decay_on="weights")
    found = {id(p) for group in rest.param_groups for p in group["params"]}
    assert found == {id(p) for p in model.parameters()} - {id(model[0].weight)}
    with pytest.raises(UserError, match="muon trains 2D convolutions, and Conv1d has none"):
        optimizers(nn.Conv1d(3, 8, 3), CHOSEN["muon"], weight_decay_on="weights")
