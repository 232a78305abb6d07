"""What every policy and every pairing has to keep."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from vicinal import (
    ColumnCutMix,
    CutMix,
    DifferentClass,
    DirichletMixUp,
    FMix,
    Halves,
    MixUp,
    Nearest,
    OneOf,
    OtherBatch,
    RegMixUp,
    ResizeMix,
    Reverse,
    SameClass,
    Shuffle,
    SimilarTargets,
)

SIZE, HEIGHT, WIDTH = 8, 10, 12
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
PAIRINGS = [
    Shuffle(),
    Shuffle(meet_self=False),
    Reverse(),
    Halves(),
    SameClass(),
    DifferentClass(),
    Nearest(k=2),
    SimilarTargets(bandwidth=1.0),
    OtherBatch(batch=SIZE),
]
PER = ["batch", "pair", "example"]
POLICIES = [
    MixUp(0.7),
    MixUp((2.0, 1.0)),
    CutMix(1.0),
    ResizeMix(),
    FMix(1.0),
    DirichletMixUp(0.8, parents=4),
    ColumnCutMix(1.0),
    RegMixUp(MixUp(2.0)),
    OneOf([MixUp(1.0), CutMix(1.0), None], [0.4, 0.4, 0.2]),
]
EVERY = [
    *POLICIES,
    *[dataclasses.replace(p, per=per) for p in POLICIES[:5] for per in PER[1:]],
    *[dataclasses.replace(p, mix_rate=0.6) for p in POLICIES[:5]],
    dataclasses.replace(POLICIES[5], per="example"),
    *[dataclasses.replace(POLICIES[6], per=per, mix_rate=0.6) for per in PER[:2]],
    RegMixUp(ColumnCutMix(1.0)),
    ColumnCutMix((2.0, 1.0), groups=[k // 4 for k in range(WIDTH)]),
    *[MixUp(0.7, per="example", pairing=pairing) for pairing in PAIRINGS],
    *[CutMix(1.0, per="pair", mix_rate=0.7, pairing=pairing) for pairing in PAIRINGS],
    *[DirichletMixUp(1.0, pairing=pairing) for pairing in PAIRINGS],
]


def name(policy):
    return str(policy).replace("'", "")


class OfTwoBatches:
    """A plan whose partners are in a second batch, which has the same rows as the first."""

    def __init__(self, plan):
        self.plan = plan

    def __getattr__(self, name):
        return getattr(self.plan, name)

    def __len__(self):
        return len(self.plan)

    def mix(self, x):
        return self.plan.mix(x, other=x)

    def targets(self, y, num_classes):
        return self.plan.targets(y, num_classes, other=y)

    def loss(self, criterion, output, y):
        return self.plan.loss(criterion, output, y, other=y)

    def accuracy(self, output, y):
        return self.plan.accuracy(output, y, other=y)


def drawn(policy, seed=0):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    features = torch.arange(SIZE, dtype=torch.float32, device="cpu") ** 2
    targets = Y.float() if "SimilarTargets" in str(policy) else Y
    plan = policy.draw(
        SIZE, generator=generator, y=targets, features=features, image_size=size_for(policy)
    )
    return OfTwoBatches(plan) if "OtherBatch" in str(policy) else plan


def size_for(policy):
    return (WIDTH,) if "ColumnCutMix" in str(policy) else (HEIGHT, WIDTH)


def indicators(policy):
    """Return pictures of which picture i has ones in channel i, and zeros in all the others.

    For a table, return rows of which row i has i in all columns.
    """
    if "ColumnCutMix" in str(policy):
        return torch.arange(SIZE, dtype=torch.float32)[:, None].repeat(1, WIDTH)
    each = torch.eye(SIZE, dtype=torch.float32)
    return each[:, :, None, None].repeat(1, 1, HEIGHT, WIDTH)


def shares_in(mixed):
    """Return how much of each example is in each blend of ``indicators``."""
    if mixed.dim() == 2:
        return F.one_hot(mixed.long(), SIZE).to(torch.float32).mean(1)
    return mixed.mean((2, 3))


@pytest.fixture(params=EVERY, ids=name)
def policy(request):
    return request.param


def test_inputs_and_targets_arrive_unharmed(policy):
    plan, x, y = drawn(policy), indicators(policy), Y.clone()
    mixed = plan.mix(x)
    plan.targets(y, num_classes=3)
    plan.loss(F.cross_entropy, torch.randn(len(mixed), 3), y)
    mixed.add_(1)
    assert torch.equal(x, indicators(policy))
    assert torch.equal(y, Y)


def test_targets_sum_to_one(policy):
    targets = drawn(policy).targets(Y, num_classes=3)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets), dtype=torch.float32))
    assert bool((targets >= 0).all())


@pytest.mark.parametrize("seed", range(4))
def test_lam_is_the_share_of_the_own_example_in_the_blend(policy, seed):
    plan = drawn(policy, seed)
    shares = shares_in(plan.mix(indicators(policy)))
    own = torch.arange(len(shares)) % SIZE
    partners = getattr(plan, "partner", None)
    if partners is None:  # a clean batch above the blends
        partners = torch.cat([torch.arange(SIZE), plan.plan.partner])
    expected = plan.lam.clone()
    rows = partners if partners.dim() == 2 else partners[None]
    gives = getattr(plan, "shares", None)
    gives = (1 - plan.lam)[None] if gives is None else gives
    expected += ((rows == own) * gives).sum(0)  # who meets itself has that share too
    assert bool(((plan.lam >= 0) & (plan.lam <= 1)).all())
    torch.testing.assert_close(shares[torch.arange(len(shares)), own], expected)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares), dtype=torch.float32))


def test_the_targets_have_the_shares_of_the_pictures(policy):
    plan = drawn(policy)
    shares = shares_in(plan.mix(indicators(policy)))
    torch.testing.assert_close(plan.targets(torch.arange(SIZE), num_classes=SIZE), shares)


def test_the_same_seed_draws_the_same_plan(policy):
    one, two = (drawn(policy, seed=3).mix(indicators(policy)) for _ in range(2))
    assert torch.equal(one, two)


def test_other_seeds_draw_other_plans(policy):
    x = indicators(policy)
    first = drawn(policy, seed=0).mix(x)
    assert any(not torch.equal(first, drawn(policy, seed).mix(x)) for seed in (1, 2))


def test_torch_manual_seed_alone_replays_the_draw(policy):
    plans = []
    for _ in range(2):
        torch.manual_seed(11)
        plans.append(drawn(policy, seed=None).mix(indicators(policy)))
    assert torch.equal(*plans)


def test_a_default_device_moves_nothing_that_is_drawn_on_the_cpu(policy):
    x, scores = (
        indicators(policy),
        torch.randn(2 * SIZE, 3, generator=torch.Generator().manual_seed(2)),
    )
    expected = drawn(policy)
    x_mixed = expected.mix(x)
    scores = scores[: len(x_mixed)]
    with torch.device("meta"):
        plan = drawn(policy)
        assert torch.equal(plan.mix(x), x_mixed)
        assert torch.equal(plan.targets(Y, num_classes=3), expected.targets(Y, num_classes=3))
        loss = plan.loss(F.cross_entropy, scores, Y)
        accuracy = plan.accuracy(scores, Y)
    assert torch.equal(loss, expected.loss(F.cross_entropy, scores, Y))
    assert torch.equal(accuracy, expected.accuracy(scores, Y))


def test_calling_a_policy_names_the_layer_and_the_two_lines(policy):
    with pytest.raises(TypeError, match=r"draw\(len\(x\)\).*MixUpLayer"):
        policy(indicators(policy), Y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_nothing(policy, dtype):
    def results():
        plan = drawn(policy)
        x = indicators(policy)
        mixed = plan.mix(x)
        scores = torch.linspace(-1, 1, 3 * len(mixed), dtype=torch.float32).reshape(-1, 3)
        loss = plan.loss(F.cross_entropy, scores, Y)
        return [plan.lam, mixed, plan.targets(Y, num_classes=3), loss, plan.accuracy(scores, Y)]

    expected, before = results(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = results()
    finally:
        torch.set_default_dtype(before)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("policy", [p for p in EVERY if "batch=8" not in str(p)], ids=name)
def test_every_batch_size_works(policy, size):
    y = torch.arange(size) % 2
    plan = policy.draw(
        size,
        y=y.float() if "SimilarTargets" in str(policy) else y,
        features=torch.rand(size, 3),
        image_size=size_for(policy),
    )
    assert len(plan) == size
    x = torch.rand(size, 3, HEIGHT, WIDTH)
    mixed = plan.mix(x[:, 0, 0] if "ColumnCutMix" in str(policy) else x)
    assert plan.targets(y, num_classes=2).shape == (len(mixed), 2)


CHANGES = [
    (MixUp(0.7), {"alpha": 3.0, "mix_rate": 0.5, "per": "example", "pairing": Reverse()}),
    (MixUp(0.7, per="example"), {"keep_larger": True, "targets": "own"}),
    *[
        (policy, {"mix_rate": 0.5, "per": "example", "pairing": Reverse(), "targets": "own"})
        for policy in (CutMix(0.7), ResizeMix(), FMix(0.7))
    ],
    (
        ColumnCutMix(0.7),
        {"mix_rate": 0.5, "per": "batch", "pairing": Reverse(), "targets": "own"}
        | {"alpha": 3.0, "groups": [0] * 6 + [1] * 6},
    ),
    (CutMix(0.7), {"alpha": 3.0}),
    (ResizeMix(), {"scale": (0.7, 0.8)}),
    (FMix(0.7), {"alpha": 3.0, "decay": 0.5}),
    (
        DirichletMixUp(0.7),
        {"alpha": 3.0, "parents": 2, "per": "example", "pairing": Reverse(), "targets": "own"},
    ),
    (RegMixUp(MixUp(0.7)), {"policy": MixUp(3.0), "weight": 0.5}),
    (
        OneOf([MixUp(0.7), MixUp(3.0)]),
        {"policies": [MixUp(0.1), MixUp(0.2)], "probabilities": [1.0, 0.0]},
    ),
    (Shuffle(), {"meet_self": False}),
    (Nearest(k=1), {"k": 4}),
    (SimilarTargets(0.1), {"bandwidth": math.inf}),
    (OtherBatch(8), {"batch": 3}),
]


@pytest.mark.parametrize(
    ("thing", "option", "value"),
    [(thing, option, value) for thing, options in CHANGES for option, value in options.items()],
    ids=lambda value: name(value)[:40],
)
def test_each_documented_option_changes_something(thing, option, value):
    def results(thing):
        found = []
        for seed in range(6):
            policy = thing if hasattr(thing, "draw") else MixUp(0.7, pairing=thing)
            plan = drawn(policy, seed)
            output = torch.linspace(0, 1, 3 * len(plan.lam)).reshape(-1, 3)
            found.append((plan.mix(indicators(policy)), plan.loss(F.cross_entropy, output, Y)))
        return found

    one, two = results(thing), results(dataclasses.replace(thing, **{option: value}))
    assert any(
        a.shape != b.shape or not torch.equal(a, b) or not torch.equal(c, d)
        for (a, c), (b, d) in zip(one, two, strict=True)
    )


def test_the_list_above_holds_every_option_of_every_policy_and_pairing():
    listed = {}
    for thing, options in CHANGES:
        listed.setdefault(type(thing), set()).update(options)
    for kind in {type(thing) for thing in (*POLICIES, *PAIRINGS)}:
        fields = {field.name for field in dataclasses.fields(kind)}
        assert listed.get(kind, set()) == fields, kind
