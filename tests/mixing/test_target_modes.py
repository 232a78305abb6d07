import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode

from vicinal import (
    CutMix,
    DirichletMixUp,
    FMix,
    MixUp,
    MixUpLayer,
    OneOf,
    OtherBatch,
    Plan,
    RegMixUp,
    ResizeMix,
    Reverse,
)

SIZE, CLASSES = 6, 4
UNION_POLICIES = [
    MixUp(0.3, per="example", targets="union"),
    MixUp(1.0, mix_rate=0.5, targets="union"),
    DirichletMixUp(0.5, parents=4, per="example", targets="union"),
    CutMix(1.0, per="example", targets="union"),
    CutMix(1.0, targets="union"),
    ResizeMix(targets="union"),
    FMix(per="example", targets="union"),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def soft_labels(rows=SIZE, dtype=torch.float64):
    """Return labels of which some are 0, some 1 and some between."""
    labels = torch.rand(rows, CLASSES, generator=seeded(1), dtype=torch.float64) * 2 - 0.5
    return labels.clamp(0, 1).to(dtype)


def union_by_hand(plan, y, other=None):
    """Return the union of the labels of each blend, from a loop over its parents."""
    source = y if other is None else other
    shares = plan.shares if plan.shares is not None else (1 - plan.lam)[None]
    rows = []
    for i in range(len(y)):
        parents = [("own" if other is not None else i, y[i])] if plan.lam[i] > 0 else []
        for partner, share in zip(torch.atleast_2d(plan.partner)[:, i], shares[:, i], strict=True):
            if share > 0:
                parents.append((int(partner), source[partner]))
        once = dict(parents)  # an example that is twice among the parents counts once
        rows.append([min(1.0, sum(float(one[k]) for one in once.values())) for k in range(CLASSES)])
    return torch.tensor(rows, dtype=torch.float64)


def plan_by_hand(mode):
    """Return a plan with a row that keeps everything and one that keeps nothing."""
    lam = torch.tensor([0.9, 0.5, 1.0, 0.0, 0.2, 0.01], dtype=torch.float32)
    return Plan(torch.tensor([1, 2, 3, 4, 5, 0]), lam, target_mode=mode)


def test_a_union_has_every_label_of_both_parents_whatever_lam_is():
    y = torch.tensor([[1, 0, 0.0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.float32)
    lam = torch.tensor([0.01, 0.99, 1.0, 0.0], dtype=torch.float32)
    plan = Plan(torch.tensor([1, 3, 0, 2]), lam, target_mode="union")
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert plan.targets(y).tolist() == expected
    assert plan.targets(y.bool()).tolist() == expected
    assert plan.targets(y.bool()).dtype == torch.float32
    yes_or_no = torch.tensor([False, True, False, True])
    assert plan.targets(yes_or_no).tolist() == [1, 1, 0, 0]


def test_soft_labels_are_added_up_to_one():
    y = torch.tensor([[0.25, 0.5], [0.5, 0.75]], dtype=torch.float64)
    lam = torch.full((2,), 0.5, dtype=torch.float32)
    union = Plan(torch.tensor([1, 0]), lam, target_mode="union").targets(y)
    assert union.dtype == torch.float64
    assert union.tolist() == [[0.75, 1.0], [0.75, 1.0]]


@pytest.mark.parametrize("policy", UNION_POLICIES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_union_of_every_policy_is_that_of_a_loop_over_the_parents(policy, seed):
    y = soft_labels()
    plan = policy.draw(SIZE, generator=seeded(seed), image_size=(8, 8))
    torch.testing.assert_close(plan.targets(y), union_by_hand(plan, y))
    assert torch.equal(plan.targets(y > 0.5), union_by_hand(plan, y > 0.5).float())


@pytest.mark.parametrize("policy", UNION_POLICIES, ids=str)
def test_a_union_changes_the_shares_of_equal_parents_but_not_the_blend(policy):
    weighted = copy.copy(policy)
    object.__setattr__(weighted, "targets", "weighted")
    x = torch.rand(2, 3, 8, 8, generator=seeded(2), dtype=torch.float64)
    for seed in range(4):
        one, two = (
            p.draw(2, generator=seeded(seed), image_size=(8, 8)) for p in (policy, weighted)
        )
        expected = two.mix(x)
        if isinstance(policy, ResizeMix):  # a row with lam 1 does not show itself, shrunk
            expected = torch.where((one.lam == 1)[:, None, None, None], x, expected)
        torch.testing.assert_close(one.mix(x), expected, rtol=1e-6, atol=1e-7)


def test_an_example_that_is_its_own_partner_counts_once():
    y = soft_labels(1)
    for policy in UNION_POLICIES:  # a batch of one has no other partner
        plan = policy.draw(1, generator=seeded(3), image_size=(8, 8))
        torch.testing.assert_close(plan.targets(y), y)
        assert plan.lam.tolist() == [1.0]


def test_partners_of_a_second_batch_are_others_even_with_the_same_row_number():
    y, other = soft_labels(3) * 0.5, soft_labels(5)[-1:]
    for policy in (MixUp, DirichletMixUp):
        plan = policy(1.0, pairing=OtherBatch(1), targets="union").draw(3, generator=seeded(4))
        expected = (y + other).clamp(max=1)
        torch.testing.assert_close(plan.targets(y, other=other), expected)
        torch.testing.assert_close(plan.targets(y, other=other), union_by_hand(plan, y, other))
        loss = plan.loss(F.binary_cross_entropy, y, y, other=other)
        torch.testing.assert_close(loss, F.binary_cross_entropy(y, expected))


@pytest.mark.parametrize("policy", [CutMix(1.0, per="example", targets="union"), FMix()], ids=str)
def test_each_pixel_of_a_multi_label_mask_has_the_labels_of_where_it_comes_from(policy):
    plan = policy.draw(SIZE, generator=seeded(5), image_size=(8, 8))
    masks = torch.rand(SIZE, CLASSES, 8, 8, generator=seeded(6), dtype=torch.float32)
    assert torch.equal(plan.targets(masks), plan.mix(masks))


CRITERIA = [
    F.binary_cross_entropy_with_logits,
    nn.BCEWithLogitsLoss(),
    nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)),
    nn.MultiLabelSoftMarginLoss(),
    nn.MSELoss(reduction="sum"),
    F.cross_entropy,
]


@pytest.mark.parametrize("mode", ["union", "own"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_loss_is_that_of_the_criterion_against_the_targets(mode, criterion):
    plan, y = plan_by_hand(mode), soft_labels()
    targets = union_by_hand(plan, y) if mode == "union" else y
    output = torch.randn(SIZE, CLASSES, generator=seeded(7), dtype=torch.float64)
    ours, theirs = (output.clone().requires_grad_() for _ in range(2))
    loss, expected = plan.loss(criterion, ours, y), criterion(theirs, targets)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, ours)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, theirs)[0])


@pytest.mark.parametrize("mode", ["union", "own"])
def test_the_gradient_of_the_loss_is_the_one_worked_out_by_hand(mode):
    plan, y = plan_by_hand(mode), soft_labels() > 0.5
    targets = union_by_hand(plan, y) if mode == "union" else y.double()
    output = torch.randn(SIZE, CLASSES, generator=seeded(8), dtype=torch.float64).requires_grad_()

    def loss(output):
        return plan.loss(F.binary_cross_entropy_with_logits, output, y)

    gradient = (output.detach().sigmoid() - targets) / targets.numel()
    torch.testing.assert_close(torch.autograd.grad(loss(output), output)[0], gradient)
    torch.testing.assert_close(torch.func.grad(loss)(output.detach()), gradient)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(output)
    torch.testing.assert_close(torch.autograd.grad(compiled, output)[0], gradient)
    assert torch.autograd.gradgradcheck(loss, (output,))


def test_soft_labels_that_are_learned_get_the_gradient_of_the_sum_below_one():
    y = torch.tensor([[0.25, 0.5], [0.5, 0.75]], dtype=torch.float64, requires_grad=True)
    lam = torch.tensor([0.5, 1.0], dtype=torch.float32)
    union = Plan(torch.tensor([1, 0]), lam, target_mode="union").targets(y)
    assert union.tolist() == [[0.75, 1.0], [0.5, 0.75]]
    # Row 0 adds both rows, but its second sum is cut off at 1; row 1 keeps everything.
    assert torch.autograd.grad(union.sum(), y)[0].tolist() == [[1, 0], [2, 1]]


def test_own_targets_are_converted_and_not_mixed():
    plan, y = plan_by_hand("own"), torch.tensor([0, 1, 2, 3, 0, 1])
    assert torch.equal(plan.targets(y, num_classes=4), F.one_hot(y, 4).float())
    real = torch.randn(SIZE, generator=seeded(9), dtype=torch.float64)
    assert torch.equal(plan.targets(real), real)
    assert torch.equal(plan.targets(y > 1), (y > 1).float())
    masks = torch.randint(3, (SIZE, 8, 8), generator=seeded(9))
    plan = CutMix(1.0, targets="own").draw(SIZE, image_size=(8, 8))
    assert torch.equal(plan.targets(masks, 3), F.one_hot(masks, 3).movedim(-1, 1).float())


def test_the_loss_and_accuracy_of_own_classes_are_those_of_unmixed_labels():
    plan, y = plan_by_hand("own"), torch.tensor([0, 1, 2, 3, -100, 1])
    output = torch.randn(SIZE, CLASSES, generator=seeded(10), dtype=torch.float64)
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    torch.testing.assert_close(plan.loss(smoothed, output, y), smoothed(output, y))
    counted = y >= 0
    right = (output.argmax(1) == y)[counted].double().mean()
    torch.testing.assert_close(plan.accuracy(output, y).double(), right)


def test_own_targets_need_no_targets_of_the_batch_that_the_partners_come_from():
    plan = MixUp(1.0, pairing=OtherBatch(20), targets="own").draw(SIZE, generator=seeded(11))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    assert torch.equal(plan.targets(y, 4), F.one_hot(y, 4).float())
    assert torch.equal(plan[2:4].targets(y[2:4], 4), F.one_hot(y[2:4], 4).float())
    with pytest.raises(ValueError, match=r"batch of 6.*got shape \(5,\)"):
        plan.targets(y[:5], 4)


def test_slices_have_the_targets_of_their_rows():
    y = soft_labels()
    for policy in UNION_POLICIES:
        plan = policy.draw(SIZE, generator=seeded(12), image_size=(8, 8))
        parts = [plan[part].targets(y[part], other=y) for part in (slice(0, 2), slice(2, 6))]
        assert torch.equal(torch.cat(parts), plan.targets(y))


@pytest.mark.parametrize("mode", ["union", "own"])
def test_a_plan_keeps_its_target_mode_wherever_it_goes(mode):
    plan, y = plan_by_hand(mode), soft_labels()
    for again in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert torch.equal(again.targets(y), plan.targets(y))
    assert f"target_mode={mode!r}" in repr(plan)
    moved = plan.to("meta")
    assert moved.target_mode == mode
    assert moved.targets(y.to("meta")).device.type == "meta"
    assert plan.targets(y.to("meta")).shape == y.shape


@pytest.mark.parametrize("mode", ["union", "own"])
def test_the_clean_rows_of_regmixup_keep_their_labels_and_the_blends_have_theirs(mode):
    both = RegMixUp(MixUp(1.0, targets=mode), weight=0.3).draw(SIZE, generator=seeded(13))
    y = soft_labels() > 0.5
    blends = union_by_hand(both.plan, y) if mode == "union" else y.double()
    assert torch.equal(both.targets(y).double(), torch.cat([y.double(), blends]))
    output = torch.randn(2 * SIZE, CLASSES, generator=seeded(14), dtype=torch.float64)
    criterion = F.binary_cross_entropy_with_logits
    expected = criterion(output[:SIZE], y.double()) + 0.3 * criterion(output[SIZE:], blends)
    torch.testing.assert_close(both.loss(criterion, output, y), expected)
    assert both.to("meta").plan.target_mode == mode


def test_the_policies_of_one_of_bring_their_own_targets():
    policy = OneOf([MixUp(1.0, targets="union"), CutMix(1.0, targets="own"), None])
    y, modes = soft_labels(), set()
    for seed in range(20):
        plan = policy.draw(SIZE, generator=seeded(seed), image_size=(8, 8))
        modes.add(plan.target_mode)
        expected = union_by_hand(plan, y) if plan.target_mode == "union" else y
        torch.testing.assert_close(plan.targets(y), expected)
    assert modes == {"union", "own", "weighted"}


def test_the_layer_returns_the_targets_of_its_policy():
    x, y = torch.rand(SIZE, 3, dtype=torch.float32), soft_labels(dtype=torch.float32)
    pair = MixUp(8.0, pairing=Reverse(), targets="union")
    assert torch.equal(MixUpLayer(pair)(x, y)[1], (y + y.flip(0)).clamp(max=1))
    classes = torch.tensor([0, 1, 2, 3, 0, 1])
    layer = MixUpLayer(MixUp(8.0, targets="own"), num_classes=4)
    mixed, kept = layer(x, classes)
    assert not torch.equal(mixed, x)
    assert torch.equal(kept, F.one_hot(classes, 4).float())


@pytest.mark.parametrize("policy", UNION_POLICIES, ids=str)
def test_a_plan_with_a_union_is_drawn_where_tensors_have_no_values(policy):
    with FakeTensorMode():
        plan = policy.draw(8, image_size=(8, 8))
        assert plan.targets(torch.rand(8, 3, dtype=torch.float32)).shape == (8, 3)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.zeros(6, dtype=torch.int64), r"multi-label.*int64 of shape \(6,\).*F\.one_hot"),
        (torch.zeros(6, 4, dtype=torch.uint8), r"multi-label.*uint8.*y\.float\(\)"),
        (torch.rand(6, dtype=torch.float32), r"\(batch, classes\).*\(6,\).*weighted.*y\.bool"),
        (torch.full((6, 2), 1.5, dtype=torch.float32), r"0 to 1.*got 1\.5 to 1\.5.*weighted"),
        (torch.full((6, 2), -1.0, dtype=torch.float32), r"0 to 1.*got -1 to -1"),
        (torch.full((6, 2), torch.nan, dtype=torch.float32), r"0 to 1.*got nan to nan"),
    ],
)
def test_a_union_of_other_targets_raises_an_error(y, words):
    plan = plan_by_hand("union")
    classes = None if y.dtype.is_floating_point else 4
    with pytest.raises(ValueError, match=words):
        plan.targets(y, classes)
    with pytest.raises(ValueError, match=words):
        plan.loss(F.mse_loss, torch.zeros(y.shape, dtype=torch.float32), y)


def test_the_labels_of_the_second_batch_are_checked_too():
    plan, y = plan_by_hand("union"), torch.zeros(6, 2, dtype=torch.float32)
    with pytest.raises(ValueError, match="from 0 to 1"):
        plan.targets(y, other=y + 2)


def test_the_accuracy_of_a_union_raises_an_error():
    with pytest.raises(ValueError, match=r"one class per example.*union.*plan\.targets\(y\)"):
        plan_by_hand("union").accuracy(soft_labels(), torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixUp(1.0, targets="sum"),
        lambda: CutMix(targets="sum"),
        lambda: ResizeMix(targets="sum"),
        lambda: FMix(targets="sum"),
        lambda: DirichletMixUp(1.0, targets="sum"),
        lambda: plan_by_hand("sum"),
    ],
)
def test_an_unknown_target_mode_raises_an_error(make):
    with pytest.raises(ValueError, match=r'expected target.*"weighted", "union" or "own".*\'sum\''):
        make()


@pytest.mark.parametrize("policy", [CutMix, ResizeMix, FMix], ids=lambda one: one.__name__)
def test_a_union_has_the_labels_of_all_pixels_that_a_second_batch_gives(policy):
    x, other = torch.zeros(6, 1, 8, 8), torch.ones(6, 1, 8, 8)
    y, other_y = torch.tensor([[1.0, 0.0]]).expand(6, 2), torch.tensor([[0.0, 1.0]]).expand(6, 2)
    met = 0
    for seed in range(20):
        plan = policy(targets="union").draw(6, generator=seeded(seed), image_size=(8, 8))
        shown = plan.mix(x, other).amax((1, 2, 3)) > 0
        met += int((plan.partner == torch.arange(6)).sum())
        assert torch.equal(plan.targets(y, other=other_y)[:, 1] > 0, shown)
    assert met > 10
