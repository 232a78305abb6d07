import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import ColumnCutMix, CutMix, MixUp, generator_at
from vicinal.data import Loader, Split, load, normalization_of
from vicinal.data.dataset import ReadResult
from vicinal.errors import UserError
from vicinal.mixing.passes import mixing_inside
from vicinal.models import build
from vicinal.training.devices import make_fabric
from vicinal.training.evaluation import predict
from vicinal.training.loop import TrainingProgress, make_learner, train
from vicinal.training.schedules import rate_factor
from vicinal.training.settings import SGD, AdamW, Linear, OneCycle, Training

ORDER = 1
CYCLE = OneCycle(name="one-cycle")
PLAIN = SGD(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)


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


def learner_of(
    model, policy=None, *, at=("input",), mixed_epochs=None, lr=0.01, weight_decay=0.0, **changes
):
    """Return a learner with AdamW and one cycle."""
    adamw = AdamW(name="adamw", lr=lr, weight_decay=weight_decay)
    settings = {"epochs": 3, "batch_size": 8, "weight_decay_on": "all"}
    settings |= {"optimizer": adamw, "schedule": CYCLE} | changes
    fabric = make_fabric(accelerator="cpu", precision=changes.get("precision", "float32"))
    return make_learner(
        model, Training(**settings), fabric=fabric, policy=policy, at=at, mixed_epochs=mixed_epochs
    )


def run(model, policy=None, *, x=None, y=None, batch_size=8, seed=0, log=None, **changes):
    """Train a network; return the learner and the mean losses."""
    if x is None:
        x, y = problem()
    learner = learner_of(model, policy, **changes)
    loader = Loader(Split(x, y), batch_size=batch_size, seed=seed)
    options = {} if log is None else {"log": log}
    return learner, [progress.mean for progress in train(learner, loader, seed=seed, **options)]


def trained(policy=None, **changes):
    model = network()
    return model, run(model, policy, **changes)[1]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns():
    model, losses = trained(epochs=20)
    assert losses[-1] < losses[0] / 4
    assert predict(model, [problem()]).metric("accuracy", "classification") == 1


def test_it_trains_like_a_plain_loop():
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


def test_a_training_does_not_depend_on_the_global_seed():
    first, again = [], []
    for keep, seed in ((first, 1), (again, 2)):
        model = network()
        torch.manual_seed(seed)
        run(model, MixUp(1.0), at=("input", "0"))
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


@pytest.mark.parametrize(
    ("policy", "shape"),
    [
        (ColumnCutMix(), (3,)),
        (CutMix(), (2, 5)),
        (CutMix(), (1, 4, 6)),
        (CutMix(), (1, 2, 3, 4)),
    ],
    ids=str,
)
def test_regions_fit_tables_and_signals_and_images_and_volumes(policy, shape):
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 2))
    model.register_forward_pre_hook(lambda _model, inputs: seen.append(inputs[0]))
    y = torch.arange(8) % 2
    x = torch.arange(8.0).reshape(8, *[1] * len(shape)).expand(8, *shape)
    run(model, policy, x=x, y=y, epochs=6)
    blends = torch.cat(seen).flatten(1)
    assert bool((blends.max(1).values != blends.min(1).values).any())


def test_mixing_with_alpha_zero_trains_like_no_mixing():
    torch.testing.assert_close(weights(trained(MixUp(0.0))[0]), weights(trained()[0]))


def test_a_loss_that_is_not_finite_raises():
    x, y = problem()
    x[3] = float("nan")
    with pytest.raises(UserError, match=r"became nan in epoch 1. Lower the .* now 0\.01\)"):
        run(network(), x=x, y=y)


def test_evaluation_never_mixes_and_restores_the_mode():
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(3, 2)).train()
    x, y = problem()
    first, again = (predict(model, [(x, y)]).outputs for _ in range(2))
    assert torch.equal(first, again)
    assert model.training
    assert all(module.training for module in model)


def trained_by_hand(*, exact):
    """Train on digits, mixed after stage1, with the gradient below that place or without it."""
    digits = load("digits", test_fraction=0.3, seed=0)
    inputs = normalization_of(digits.train).apply(digits.train.inputs, torch.empty(0))
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


def test_without_the_gradient_below_the_mixing_layer_training_differs():
    begin, exact = trained_by_hand(exact=True)
    _, cut = trained_by_hand(exact=False)
    assert torch.equal(cut.stage1[0].weight, begin)
    assert (exact.stage1[0].weight - begin).abs().max().item() > 1e-3
    assert (exact.head[2].weight - cut.head[2].weight).abs().max().item() > 1e-3


def dropping():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_training_resumed_at_a_step_ends_like_an_uninterrupted_one(stop):
    whole = dropping()
    run(whole, MixUp(1.0), optimizer=SGD(name="sgd", lr=0.1, momentum=0.0))
    # Without momentum the weights are all that there is of the past.
    model, (x, y) = dropping(), problem()
    learner = learner_of(model, MixUp(1.0), optimizer=SGD(name="sgd", lr=0.1, momentum=0.0))
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) == (stop if stop < 3 else 2 * (stop // 3) + stop % 3)

    loader = Loader(Split(x, y), batch_size=8, seed=0)
    for progress in train(learner, loader, seed=0, should_stop=should_stop):
        if progress.step:
            break
    assert 3 * progress.epoch + progress.step == stop
    again = dropping()
    again.load_state_dict(model.state_dict())
    learner = learner_of(again, MixUp(1.0), optimizer=SGD(name="sgd", lr=0.1, momentum=0.0))
    start = TrainingProgress(progress.epoch, progress.step, progress.loss, progress.seen)
    list(train(learner, loader, seed=0, start=start))
    assert torch.equal(weights(again), weights(whole))


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    # 20 examples in batches of 12: parts of 4, the last step has two of them.
    whole, parts = network().double(), network().double()
    sgd = SGD(name="sgd", lr=0.1)
    run(whole, batch_size=12, optimizer=sgd, precision="float64")
    run(parts, batch_size=4, accumulation_steps=3, optimizer=sgd, precision="float64")
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-12, atol=1e-12)


def test_large_gradients_are_clipped():
    model = network()
    before = weights(model)
    run(
        model,
        epochs=1,
        batch_size=20,
        optimizer=SGD(name="sgd", lr=1.0, momentum=0.0),
        max_grad_norm=0.01,
    )
    assert (weights(model) - before).norm().item() == pytest.approx(0.01, rel=1e-3)
    settings = Training(
        epochs=1,
        batch_size=8,
        optimizer=SGD(name="sgd", lr=0.1),
        schedule=Linear(name="linear"),
        max_grad_norm=1.0,
    )
    with pytest.raises(UserError, match=r"max_grad_norm: expected one optimizer.* got 2"):
        make_learner(
            network(),
            settings,
            fabric=make_fabric(accelerator="cpu"),
            optimizers=lambda model: [
                torch.optim.SGD([one], lr=0.1) for one in list(model.parameters())[:2]
            ],
        )


def test_label_smoothing_is_that_of_the_criterion():
    _, losses = trained(lr=1e-12, epochs=1, label_smoothing=0.2)
    x, y = problem()
    expected = F.cross_entropy(network()(x), y, label_smoothing=0.2).item()
    assert losses[0] == pytest.approx(expected, rel=1e-5)


def test_epochs_outside_the_mixed_ones_are_plain():
    plain = weights(trained()[0])
    assert torch.equal(weights(trained(MixUp(1.0), mixed_epochs=range(3, 9))[0]), plain)
    assert not torch.equal(weights(trained(MixUp(1.0), mixed_epochs=range(2, 9))[0]), plain)


def test_the_moving_average_equals_a_hand_calculation():
    model, (x, y) = network(), problem()
    sgd = SGD(name="sgd", lr=0.5, momentum=0.0)
    learner, _ = run(model, batch_size=20, epochs=4, optimizer=sgd, ema_decay=0.75)
    by_hand, average = network(), None
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.5)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * rate_factor(step, learner.settings, steps_per_epoch=1)
        optimizer.zero_grad()
        F.cross_entropy(by_hand(x), y).backward()
        optimizer.step()
        now = weights(by_hand).clone()
        average = now if average is None else 0.75 * average + 0.25 * now
    torch.testing.assert_close(weights(learner.trained), average, rtol=1e-4, atol=1e-6)
    assert learner.trained is not model


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precisions_train_float32_weights(precision):
    model = network()
    _, losses = run(model, epochs=20, precision=precision)
    assert losses[-1] < losses[0] / 4
    assert weights(model).dtype == torch.float32
    assert not torch.equal(weights(model), weights(trained(epochs=20)[0]))


def test_low_precisions_mix_inputs_as_they_are():
    seen = []

    class Noting(nn.Linear):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    run(nn.Sequential(Noting(3, 2)), MixUp(1.0), epochs=1, precision="bfloat16")
    assert all(one.dtype == torch.float32 for one in seen)
    mixed = torch.cat(seen)
    assert not torch.equal(mixed, mixed.bfloat16().float())


class SomeUnreadable:
    """Inputs of files, of which some rows cannot be read."""

    def __init__(self, inputs, bad):
        self.inputs, self.bad = inputs, bad
        self.shape, self.dtype = inputs.shape, inputs.dtype

    def __len__(self):
        return len(self.inputs)

    def read(self, rows):
        kept = [k for k, row in enumerate(rows) if row not in self.bad]
        skipped = [f"row {row} is bad" for row in rows if row in self.bad]
        inputs = self.inputs[[rows[k] for k in kept]]
        return ReadResult(inputs, np.array(kept, np.int64), skipped)


def test_a_batch_that_cannot_be_read_changes_neither_the_step_nor_its_number():
    x, y = (part[:8] for part in problem())
    order = torch.randperm(8, generator=generator_at(0, 0, stream=ORDER)).tolist()
    for place in (0, 3, 6, 7):  # the first, the last of a step, and the last of the epoch
        files = SomeUnreadable(x, {order[place]})
        learner = learner_of(network(), epochs=1, accumulation_steps=4, optimizer=PLAIN)
        loader = Loader(Split(files, y), batch_size=1, seed=0, workers=0)
        assert len(list(train(learner, loader, seed=0))) == 1
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, batch in enumerate((order[:4], order[4:])):
            rows = [row for row in batch if row != order[place]]
            optimizer.zero_grad()
            (F.cross_entropy(model(x[rows]), y[rows], reduction="sum") / 4).backward()
            optimizer.param_groups[0]["lr"] = 0.1 * rate_factor(step, learner.settings, 2)
            optimizer.step()
        torch.testing.assert_close(weights(learner.model), weights(model), rtol=1e-4, atol=1e-6)


def pictures():
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(16) % 2


def small_convolution():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def test_the_memory_format_does_not_change_the_weights():
    x, y = pictures()
    plain, last = small_convolution(), small_convolution()
    run(plain, MixUp(1.0), x=x, y=y)
    run(last, MixUp(1.0), x=x, y=y, channels_last=True)
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last[0].weight, plain[0].weight, rtol=1e-4, atol=1e-5)


def test_compiled_training_agrees_and_a_broken_compiler_is_reported():
    x, y = pictures()
    plain, compiled, broken = small_convolution(), small_convolution(), small_convolution()
    said = []
    run(plain, MixUp(1.0), x=x, y=y, at=("input", "0"))
    run(compiled, MixUp(1.0), x=x, y=y, at=("input", "0"), compile=True, log=said.append)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-4, atol=1e-5)
    assert said == []
    torch.compiler.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        run(broken, MixUp(1.0), x=x, y=y, at=("input", "0"), compile=True, log=said.append)
    assert len(said) == 1
    assert said[0].startswith("torch.compile does not work here")
    assert torch.equal(weights(broken), weights(plain))


@pytest.mark.parametrize("policy", [None, MixUp(1.0)])
def test_a_compiled_training_evaluates_the_network_as_it_is_saved(policy):
    learner = learner_of(small_convolution(), policy, compile=True)
    assert all(one._compiled_call_impl is None for one in learner.trained.modules())
    assert any(one._compiled_call_impl is not None for one in learner.network.modules())


class WithNorm(nn.Module):
    """A network whose batch norm sees one value of each example, and which writes down batches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head, self.sizes = nn.BatchNorm1d(3), nn.Linear(3, 2), []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.head(self.norm(x))


@pytest.mark.parametrize(
    ("count", "accumulation_steps", "sizes"),
    [
        (65, 1, [65]),
        (129, 1, [64, 65]),
        (65, 2, [32, 33]),
        (97, 2, [32, 32, 33]),
        (66, 2, [32, 32, 2]),
    ],
)
def test_a_batch_norm_is_never_trained_on_a_last_batch_of_one(count, accumulation_steps, sizes):
    x, y = torch.randn(count, 3), torch.arange(count) % 2
    model = WithNorm()
    _, losses = run(
        model,
        x=x,
        y=y,
        batch_size=64 // accumulation_steps,
        accumulation_steps=accumulation_steps,
        epochs=1,
    )
    assert model.sizes == sizes
    assert math.isfinite(losses[0])


def test_each_example_of_a_merged_last_step_has_the_same_weight():
    # With accumulation in float64 the gradient is that of the mean over all 33 + 32 examples.
    x, y = torch.randn(65, 3, dtype=torch.float64), torch.arange(65) % 2
    model = network().double()
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    F.cross_entropy(expected(x), y).backward()
    optimizer.step()
    chosen = SGD(name="sgd", lr=0.1, momentum=0.0, nesterov=False)
    run(
        model,
        x=x,
        y=y,
        batch_size=32,
        accumulation_steps=2,
        epochs=1,
        precision="float64",
        optimizer=chosen,
        schedule=Linear(name="linear"),
    )
    torch.testing.assert_close(weights(model), weights(expected))


def test_a_batch_norm_with_batches_of_one_raises():
    with pytest.raises(
        UserError, match=r"training\.batch_size: batch norms expect at least two examples"
    ):
        run(WithNorm(), batch_size=1, epochs=1)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.second(self.first(x).relu())


@torch._dynamo.config.patch(recompile_limit=2)
def test_what_earlier_trials_compiled_does_not_count_for_later_ones():
    # Batches of two sizes: one training reaches this limit, and a second one would exceed it.
    policy, said = MixUp(1.0, per="example"), []
    for mixing, layer in [(None, "input"), (policy, "first"), (policy, "first")]:
        compiled, plain = TwoLayers(), TwoLayers()
        run(compiled, mixing, at=(layer,), compile=True, log=said.append)
        run(plain, mixing, at=(layer,))
        torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-4, atol=1e-5)
    assert not said


class OneBuffer(nn.Module):
    """Returns its outputs in the same memory each time, as a replayed CUDA graph does."""

    def __init__(self):
        super().__init__()
        self.layer, self.outputs = nn.Linear(3, 2), torch.empty(10, 2)

    def forward(self, x):
        return self.outputs.copy_(self.layer(x))


def test_predictions_are_kept_although_the_network_overwrites_its_outputs():
    model, (x, y) = OneBuffer(), problem()
    found = predict(model, [(x[:10], y[:10]), (x[10:], y[10:])])
    assert torch.equal(found.outputs, model.layer(x))
