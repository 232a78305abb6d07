"""Mixing, training and probes on a GPU, next to the same on the CPU."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import (
    ColumnCutMix,
    CutMix,
    DifferentClass,
    DirichletMixUp,
    FMix,
    Halves,
    MixedInside,
    MixUp,
    Nearest,
    OneOf,
    OtherBatch,
    RegMixUp,
    ResizeMix,
    Reverse,
    SameClass,
    load,
    mix,
)
from vicinal.data import (
    HLSJitter,
    Loader,
    RandomCrop,
    RandomHorizontalFlip,
    Split,
    normalization_of,
)
from vicinal.data import load as load_data
from vicinal.models import build
from vicinal.probes import attacks, between, calibration, memorization, ood
from vicinal.training.devices import make_fabric
from vicinal.training.loop import make_learner, train
from vicinal.training.settings import SGD, Linear, Training
from vicinal.training.trial_result import read_metrics

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a GPU"
)

POLICIES = {
    "mixup": MixUp(1.0),
    "mixup per example": MixUp(1.0, per="example", mix_rate=0.7),
    "mixup per pair": MixUp(1.0, per="pair", pairing=Halves()),
    "reverse": MixUp(1.0, pairing=Reverse()),
    "same class": MixUp(1.0, per="example", pairing=SameClass()),
    "different class": MixUp(1.0, per="example", pairing=DifferentClass()),
    "nearest": MixUp(1.0, per="example", pairing=Nearest(3)),
    "own targets": MixUp(1.0, targets="own"),
    "union": MixUp(1.0, targets="union"),
    "cutmix": CutMix(1.0),
    "fmix": FMix(1.0),
    "resizemix": ResizeMix(),
    "dirichlet": DirichletMixUp(1.0, parents=3),
    "one of": OneOf([MixUp(0.8), CutMix(1.0)]),
    "regmixup": RegMixUp(MixUp(1.0)),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(rows=24, dtype=torch.float32):
    """Return images, labels and logits on the CPU."""
    x = torch.rand(rows, 3, 12, 10, generator=seeded(), dtype=torch.float64)
    x[:, 0] += (
        torch.arange(rows, dtype=torch.float64)[:, None, None] ** 1.5
    )  # one order of neighbors
    logits = torch.randn(rows, 4, generator=seeded(1), dtype=torch.float64)
    return x.to(dtype), torch.arange(rows) % 4, logits.to(dtype)


def draw(policy, x, y, seed=0):
    return policy.draw(len(x), generator=seeded(seed), y=y, features=x, image_size=x.shape[2:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_gives_the_inputs_and_losses_of_the_cpu(name, dtype):
    x, y, logits = batch(dtype=dtype)
    policy = POLICIES[name]
    for seed in range(5):
        here, there = draw(policy, x, y, seed), draw(policy, x.to(DEVICE), y.to(DEVICE), seed)
        expected, got = here.mix(x), there.mix(x.to(DEVICE))
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(got.cpu(), expected, rtol=2 * eps, atol=0)
        in_place = x.to(DEVICE)
        if hasattr(there, "mix_"):
            there.mix_(in_place)
            assert torch.equal(in_place, got)
        if policy.__class__ is MixUp and policy.targets == "union":
            continue  # its targets are vectors; see below
        outputs = logits if len(expected) == len(logits) else torch.cat([logits, logits])
        want = here.loss(F.cross_entropy, outputs, y)
        loss = there.loss(F.cross_entropy, outputs.to(DEVICE), y.to(DEVICE))
        torch.testing.assert_close(loss.cpu(), want, rtol=8 * eps, atol=0)
        want, soft = here.targets(y, num_classes=4), there.targets(y.to(DEVICE), num_classes=4)
        torch.testing.assert_close(soft.cpu(), want, rtol=1e-6, atol=1e-7)


def test_the_union_of_labels_and_the_columns_of_a_table_are_those_of_the_cpu():
    x, y, _ = batch()
    labels = F.one_hot(y, 4).float()
    plan = MixUp(1.0, per="example", targets="union").draw(len(x), generator=seeded())
    assert torch.equal(plan.targets(labels.to(DEVICE)).cpu(), plan.targets(labels))
    table = x.flatten(1)
    plan = ColumnCutMix(1.0).draw(len(table), generator=seeded(), image_size=table.shape[1:])
    assert torch.equal(plan.mix(table.to(DEVICE)).cpu(), plan.mix(table))


def test_partners_of_an_earlier_batch_stay_on_the_gpu():
    policy = MixUp(1.0, per="example", pairing=OtherBatch(batch=24))
    x, y, _ = batch()
    plan = policy.draw(len(x), generator=seeded())
    other = x.flip(0)
    got = plan.mix(x.to(DEVICE), other=other.to(DEVICE))
    assert got.device.type == DEVICE.type
    torch.testing.assert_close(got.cpu(), plan.mix(x, other=other), rtol=3e-7, atol=0)
    soft = plan.targets(y.to(DEVICE), num_classes=4, other=y.flip(0).to(DEVICE))
    torch.testing.assert_close(soft.cpu(), plan.targets(y, num_classes=4, other=y.flip(0)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_the_cpu_also_of_the_shares_and_twice(layout):
    x, y, _ = batch(dtype=torch.float64)
    results = []
    for device in ("cpu", DEVICE):
        plan = draw(MixUp(1.0, per="example"), x, y)
        inputs = x.to(device, memory_format=layout).requires_grad_()
        lam = plan.lam.double().to(device).requires_grad_()
        mixed = mix(inputs, partner=plan.partner, lam=lam)  # partner is moved
        first = torch.autograd.grad((mixed**3).sum(), (inputs, lam), create_graph=True)
        second = torch.autograd.grad(sum((one**2).sum() for one in first), (inputs, lam))
        results.append([one.detach().cpu() for one in (*first, *second)])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("policy", [MixUp(1.0, per="example"), CutMix(1.0), DirichletMixUp(1.0)])
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_a_training_step_never_waits_for_the_gpu(policy):
    x, y, logits = (one.to(DEVICE) for one in batch())
    for waits in ("default", "error"):  # the first round compiles
        plan = policy.draw(len(x), generator=seeded(), image_size=(12, 10))
        torch.cuda.set_sync_debug_mode(waits)
        try:
            inputs = x.clone().requires_grad_()
            loss = plan.loss(F.cross_entropy, logits + plan.mix(inputs).mean(), y)
            loss.backward()
            plan.mix_(x.clone())
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_mixing_in_place_takes_no_second_batch_of_memory():
    x = torch.rand(64, 3, 512, 512, device=DEVICE)  # 192 MiB
    plan = MixUp(1.0, per="example").draw(64, generator=seeded()).to(DEVICE)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    plan.mix_(x)
    assert torch.cuda.max_memory_allocated() - before < 70 * 2**20


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(960, 4)
    ).to(DEVICE)


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_compiled_networks_that_mix_inside_give_the_gradients_of_eager_ones(mode):
    if mode and DEVICE.type != "cuda":
        pytest.skip("needs a GPU")
    x, y, _ = (one.to(DEVICE) for one in batch())
    x = x / 10
    policy = MixUp(1.0, per="example")
    eager = MixedInside(small_network(), policy, at=("input", "1"))
    compiled = copy.deepcopy(eager)
    compiled.compile(mode=mode, dynamic=False)
    for step in range(12):
        plan = policy.draw(len(x), generator=seeded(step))
        gradients = []
        for network in (eager, compiled):
            network.zero_grad()
            outputs = network(x, plan, at=("input", "1")[step % 2])
            plan.loss(F.cross_entropy, outputs, y).backward()
            gradients.append([one.grad.clone() for one in network.parameters()])
        for expected, got in zip(*gradients, strict=True):
            torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-5)


AUGMENT = (RandomCrop(padding=2), RandomHorizontalFlip(), HLSJitter())


def test_loaded_batches_are_those_of_the_cpu():
    x = torch.randint(256, (50, 3, 12, 10), generator=seeded(), dtype=torch.uint8)
    split = Split(x, torch.arange(50) % 4)
    normalize = normalization_of(split)
    standardized, moved = (*AUGMENT, normalize), (*AUGMENT, normalize.to(DEVICE))
    for (a, _), (b, _) in zip(
        Loader(split, batch_size=16, seed=3, augment=standardized).epoch(0),
        Loader(split, batch_size=16, seed=3, augment=moved, device=DEVICE).epoch(0),
        strict=True,
    ):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=0.02)
    here = Loader(split, batch_size=16, seed=3, augment=AUGMENT)
    there = Loader(split, batch_size=16, seed=3, augment=AUGMENT, device=DEVICE)
    for (a, labels), (b, others) in zip(here.epoch(1), there.epoch(1), strict=True):
        assert b.device.type == others.device.type == DEVICE.type
        assert torch.equal(labels, others.cpu())
        assert (a.int() - b.cpu().int()).abs().max() <= 1  # rounding of the jitter


def test_batches_read_from_files_are_those_of_the_cpu(tmp_path):
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for k in range(12):
            pixels = torch.randint(256, (12, 10, 3), generator=seeded(k), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / label / f"{k}.png")
    data = load_data(f"folder:{tmp_path}", test_fraction=0.25, in_memory=False)
    here = Loader(data.train, batch_size=5, seed=0, augment=AUGMENT)
    there = Loader(data.train, batch_size=5, seed=0, augment=AUGMENT, device=DEVICE)
    for (a, labels), (b, others) in zip(here.epoch(0), there.epoch(0), strict=True):
        assert torch.equal(labels, others.cpu())
        assert (a.int() - b.cpu().int()).abs().max() <= 1


def learn(epochs=3, device=None, policy=None, at=("input",), **changes):
    """Train on points in four corners; return the network and the losses."""
    device = device or DEVICE.type
    generator = seeded()
    y = torch.arange(60) % 4
    x = torch.randn(60, 3, 16, 16, generator=generator) / 2
    x[y % 2 == 1, 0] += 1
    x[y >= 2, 1] += 1
    settings = {
        "epochs": epochs,
        "batch_size": 16,
        "optimizer": SGD(name="sgd", lr=0.05, weight_decay=1e-3),
        "schedule": Linear(name="linear"),
        "accelerator": device,
    }
    fabric = make_fabric(accelerator=device, precision=changes.get("precision", "float32"))
    torch.manual_seed(0)
    network = build("small-cnn", shape=(3, 16, 16), classes=4)
    learner = make_learner(
        network, Training(**settings | changes), fabric=fabric, policy=policy, at=at
    )
    loader = Loader(Split(x, y), batch_size=16, seed=0, device=fabric.device)
    said = []
    losses = [one.mean for one in train(learner, loader, seed=0, log=said.append)]
    return learner.trained, losses, said


@pytest.mark.parametrize("at", [("input",), ("input", "stage1")])
def test_training_on_the_gpu_gives_the_losses_of_the_cpu(at):
    for policy in (None, MixUp(1.0, per="example")):
        where = at if policy else ("input",)
        _, here, _ = learn(device="cpu", policy=policy, at=where, precision="float64")
        _, there, _ = learn(policy=policy, at=where, precision="float64")
        assert there == pytest.approx(here, rel=1e-4)


SPEEDS = [
    {"precision": "bfloat16"},
    {"precision": "float16"},
    {"channels_last": True},
    {"compile": True},
    {"compile": True, "cuda_graphs": True},
    {"compile": True, "cuda_graphs": True, "precision": "bfloat16", "channels_last": True},
    {"compile": True, "precision": "bfloat16", "channels_last": True, "ema_decay": 0.9},
    {"accumulation_steps": 2, "max_grad_norm": 1.0, "precision": "float16"},
]


@pytest.mark.parametrize("changes", SPEEDS, ids="-".join)
def test_every_way_to_train_faster_learns_as_plain_training_does(changes):
    policy, at = MixUp(1.0, per="example"), ("input", "stage1")
    _, plain, _ = learn(epochs=12, policy=policy, at=at)
    _, losses, said = learn(epochs=12, policy=policy, at=at, **changes)
    assert not said  # in particular, that torch.compile does not work
    assert losses[-1] < 0.75 * losses[0]
    if "accumulation_steps" not in changes:
        close = 0.02 if changes.get("precision", "float32") == "float32" else 0.1
        assert losses[:2] == pytest.approx(plain[:2], rel=close)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("graphs", [False, True])
def test_a_study_on_the_gpu_ends_with_a_page_and_networks_that_run_on_the_cpu(
    graphs, precision, small_recipe, tmp_path, vicinal
):
    recipe = small_recipe(
        {
            "training.epochs": 5,
            "training.precision": precision,
            "training.channels_last": True,
            "training.compile": graphs,
            "training.cuda_graphs": graphs,
            "arms.mixup.at": ["input", "stage1"],
        }
    )
    done = vicinal("study", recipe, "--out", tmp_path / "study")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "study" / "report.html").exists()
    for folder in (tmp_path / "study" / "trials").iterdir():
        result = json.loads((folder / "result.json").read_text())
        assert result["test_metric"] > 0.5
        inputs = load_data("digits", test_fraction=0.2).test.inputs[:50]
        here, there = (load(folder, accelerator=one)(inputs) for one in ("cpu", DEVICE.type))
        torch.testing.assert_close(there, here, rtol=2e-2, atol=2e-2)


def test_a_resumed_training_continues_the_losses_of_the_gpu(small_recipe, tmp_path, vicinal):
    settings = {"training.epochs": 6, "arms.mixup.at": ["input", "stage1"]}
    settings |= {"training.checkpoint_every": 1, "training.optimizer.lr": 0.02}
    recipe = small_recipe(settings)
    words = ("train", recipe, "--arm", "mixup", "--logger", "none", "--out")
    assert vicinal(*words, tmp_path / "whole").exit_code == 0
    from vicinal.training import loop

    rate_of, calls = loop.rate_factor, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return rate_of(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "rate_factor", interrupted)
        vicinal(*words, tmp_path / "broken")
    assert len(calls) == 40
    done = vicinal(*words, tmp_path / "broken", "--resume")
    assert done.exit_code == 0, done.output
    losses = [
        [row.train_loss for row in read_metrics(tmp_path / name, "accuracy")]
        for name in ("whole", "broken")
    ]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_probes_give_the_values_of_the_cpu():
    x, y, _ = batch(48)
    x = x / x.max()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x.double()), y).backward()
        optimizer.step()
    optimizer.zero_grad()

    def results(device):
        network = copy.deepcopy(model).to(device)
        data = [(x.double().to(device), y.to(device))]
        other = [(x.double().flip(3).to(device), y.to(device))]
        marked = [(x.double().to(device), y.to(device), (y == 1).to(device))]
        attacked = attacks(network, data, epsilons=[0.0, 0.02], names=["fgsm", "pgd-5"])
        scaled = calibration(network, data)
        lines = between(network, data, pairs=20, lams=5)
        return [attacked, scaled, lines, ood(network, data, other), memorization(network, marked)]

    for here, there in zip(results("cpu"), results(DEVICE), strict=True):
        _same(here, there)


def _same(here, there):
    if isinstance(here, torch.Tensor):
        if here.is_floating_point():
            torch.testing.assert_close(there.cpu(), here.cpu(), rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(there.cpu(), here.cpu())
    elif isinstance(here, dict):
        assert here.keys() == there.keys()
        for key in here:
            _same(here[key], there[key])
    elif isinstance(here, (tuple, list)):
        for one, other in zip(here, there, strict=True):
            _same(one, other)
    elif hasattr(here, "__dict__"):
        _same(vars(here), vars(there))
    elif isinstance(here, float):
        assert there == pytest.approx(here, rel=1e-4, abs=1e-6)
    else:
        assert str(there) == str(here)
