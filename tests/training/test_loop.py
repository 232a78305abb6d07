import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from vicinal import MixUp, generator_at
from vicinal.data import Loader, Part, load, standardise_by
from vicinal.errors import UserError
from vicinal.mixing.layers import mixing_inside
from vicinal.models import build
from vicinal.training.evaluation import evaluate
from vicinal.training.loop import train

SETTINGS = {"epochs": 3, "lr": 0.01, "weight_decay": 0.0, "seed": 0}
ORDER = 1


def problem():
    """Two classes of points, apart in the first coordinate; 20 of them, so the last batch is 4."""
    chance = torch.Generator().manual_seed(0)
    y = torch.arange(20) % 2
    x = torch.randn(20, 3, generator=chance)
    x[:, 0] += 6 * y - 3
    return x, y


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def batches(x, y, batch_size=8):
    return Loader(Part(x, y), batch_size=batch_size, seed=0)


def trained(policy=None, *, batch_size=8, **changes):
    model, (x, y) = network(), problem()
    fabric = Fabric(accelerator="cpu", devices=1)
    loader = Loader(Part(x, y), batch_size=batch_size, seed=changes.get("seed", 0))
    losses = list(train(model, loader, fabric=fabric, policy=policy, **SETTINGS | changes))
    return model, losses


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns():
    model, losses = trained(epochs=20)
    assert losses[-1] < losses[0] / 4
    assert evaluate(model, [problem()]).accuracy == 1


def test_it_does_what_a_plain_loop_does():
    model, (x, y) = network(), problem()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=9, cycle_momentum=False
    )
    for epoch in range(3):
        order = torch.randperm(20, generator=generator_at(0, epoch, stream=ORDER))
        for rows in (order[:8], order[8:16], order[16:]):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    assert torch.equal(weights(model), weights(trained()[0]))


def test_the_reported_loss_is_the_mean_over_examples():
    # A step so small that nothing changes: the loss of the epoch is that of the whole set.
    _, losses = trained(lr=1e-12, epochs=1)
    x, y = problem()
    assert losses[0] == pytest.approx(F.cross_entropy(network()(x), y).item(), rel=1e-5)


def test_a_run_repeats_itself_whatever_the_global_seed():
    first, again = [], []
    for keep, seed in ((first, 1), (again, 2)):
        model, loader = network(), batches(*problem())
        torch.manual_seed(seed)
        fabric = Fabric(accelerator="cpu", devices=1)
        list(train(model, loader, fabric=fabric, policy=MixUp(1.0), at=("input", "0"), **SETTINGS))
        keep.append(weights(model))
    assert torch.equal(first[0], again[0])


def test_every_setting_changes_the_training():
    plain = weights(trained()[0])
    mixed = weights(trained(MixUp(1.0))[0])
    others = [
        plain,
        mixed,
        weights(trained(MixUp(1.0), at=("0",))[0]),
        weights(trained(MixUp(1.0), at=("0", "input"))[0]),
        weights(trained(epochs=4)[0]),
        weights(trained(batch_size=7)[0]),
        weights(trained(lr=0.02)[0]),
        weights(trained(weight_decay=0.5)[0]),
        weights(trained(seed=1)[0]),
    ]
    for i, one in enumerate(others):
        assert not any(torch.equal(one, other) for other in others[:i])


def test_mixing_with_alpha_zero_trains_like_no_mixing():
    torch.testing.assert_close(weights(trained(MixUp(0.0))[0]), weights(trained()[0]))


def test_a_loss_that_is_not_finite_ends_the_training_in_words():
    model, (x, y) = network(), problem()
    x[3] = float("nan")
    fabric = Fabric(accelerator="cpu", devices=1)
    with pytest.raises(UserError, match=r"became nan in epoch 1: lower training\.lr, now 0\.01"):
        list(train(model, batches(x, y), fabric=fabric, policy=None, **SETTINGS))


def test_evaluation_never_mixes_and_leaves_the_mode_as_it_was():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(3, 2)).train()
    x, y = problem()
    first, again = evaluate(model, [(x, y)]), evaluate(model, [(x, y)])
    assert first == again
    assert model.training
    assert all(module.training for module in model)


def trained_by_hand(*, exact):
    """Train on digits, mixed after stage1, with the gradient below that place or without it."""
    digits = load("digits", test_fraction=0.3, seed=0)
    inputs = standardise_by(digits.train).apply(digits.train.inputs, torch.empty(0))
    torch.manual_seed(0)
    model = build("small-cnn", shape=(1, 8, 8), classes=10)
    begin = model.stage1[0].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(6):
        rows = slice(64 * step, 64 * (step + 1))
        plan = MixUp(1.0).draw(64, generator=generator_at(0, step))
        mix = plan.mix if exact else lambda x, plan=plan: plan.mix(x.detach())
        with mixing_inside(model.stage1, mix):
            output = model(inputs[rows])
        optimizer.zero_grad()
        plan.loss(F.cross_entropy, output, digits.train.targets[rows]).backward()
        optimizer.step()
    return begin, model


def test_without_the_gradient_below_the_mixing_layer_training_goes_another_way():
    begin, exact = trained_by_hand(exact=True)
    _, cut = trained_by_hand(exact=False)
    assert torch.equal(cut.stage1[0].weight, begin)
    assert (exact.stage1[0].weight - begin).abs().max().item() > 1e-3
    assert (exact.head[2].weight - cut.head[2].weight).abs().max().item() > 1e-3
