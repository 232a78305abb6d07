import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import CutMix, FMix, MixUp, Plan, ResizeMix


@pytest.fixture
def batch():
    chance = torch.Generator().manual_seed(1)
    output = torch.randn(16, 5, dtype=torch.float64, generator=chance)
    y = torch.randint(5, (16,), generator=chance)
    plan = MixUp(1.0, per="example").draw(16, generator=chance)
    return plan, output, y


def test_cross_entropy_equals_the_hand_written_pair_loss(batch):
    plan, output, y = batch
    total = 0.0
    for i in range(16):
        logp = output[i] - torch.logsumexp(output[i], 0)
        lam = plan.lam[i].item()
        total += -lam * logp[y[i]] - (1 - lam) * logp[y[plan.partner[i]]]
    loss = plan.loss(F.cross_entropy, output, y)
    torch.testing.assert_close(loss, total / 16, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("criterion", [F.cross_entropy, nn.CrossEntropyLoss()])
def test_cross_entropy_equals_the_loss_against_soft_labels(batch, criterion):
    plan, output, y = batch
    soft = F.cross_entropy(output, plan.targets(y, num_classes=5).double())
    torch.testing.assert_close(plan.loss(criterion, output, y), soft, rtol=1e-6, atol=1e-6)


def test_label_smoothing_equals_the_loss_against_smoothed_soft_labels(batch):
    plan, output, y = batch
    smoothed = 0.9 * plan.targets(y, num_classes=5).double() + 0.1 / 5
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    loss = plan.loss(criterion, output, y)
    torch.testing.assert_close(loss, F.cross_entropy(output, smoothed), rtol=1e-6, atol=1e-6)


def test_soft_labels_give_the_same_loss_as_integer_labels(batch):
    plan, output, y = batch
    soft = plan.loss(F.cross_entropy, output, F.one_hot(y, 5).double())
    torch.testing.assert_close(soft, plan.loss(F.cross_entropy, output, y))


def test_class_weights_multiply_and_the_mean_is_over_examples(batch):
    plan, output, y = batch
    weight = torch.tensor([0.1, 1.0, 3.0, 0.5, 9.0], dtype=torch.float64)
    total = 0.0
    for i in range(16):
        logp = output[i].log_softmax(0)
        own, met, lam = y[i], y[plan.partner[i]], plan.lam[i].double()
        total -= lam * weight[own] * logp[own] + (1 - lam) * weight[met] * logp[met]
    loss = plan.loss(nn.CrossEntropyLoss(weight=weight), output, y)
    torch.testing.assert_close(loss, total / 16)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(ignore_index=4),
        functools.partial(F.cross_entropy, ignore_index=4),
    ],
)
def test_an_ignored_side_counts_neither_in_the_loss_nor_in_the_mean(batch, criterion):
    plan, output, y = batch
    y = y.clone()
    y[0] = y[plan.partner[0]] = 4
    total, counted = 0.0, 0.0
    for i in range(16):
        sides = [(plan.lam[i].double(), y[i]), (1 - plan.lam[i].double(), y[plan.partner[i]])]
        for share, k in sides:
            if k != 4:
                counted += share
                total -= share * output[i].log_softmax(0)[k]
    assert 0 < counted < 15
    torch.testing.assert_close(plan.loss(criterion, output, y), total / counted)


def test_any_criterion_works_by_reduction_none(batch):
    plan, output, _ = batch
    real = torch.rand(16, 5, dtype=torch.float64)
    lam, poisson = plan.lam.double()[:, None], output.exp() - real * output
    expected = (lam * poisson + (1 - lam) * (output.exp() - real[plan.partner] * output)).mean()
    torch.testing.assert_close(plan.loss(F.poisson_nll_loss, output, real), expected)
    torch.testing.assert_close(plan.loss(nn.PoissonNLLLoss(), output, real), expected)
    assert plan.loss(nn.PoissonNLLLoss(reduction="none"), output, real).shape == (16, 5)
    summed = plan.loss(nn.PoissonNLLLoss(reduction="sum"), output, real)
    torch.testing.assert_close(summed, expected * 16 * 5)


def test_the_criterion_is_left_as_it_was(batch):
    plan, output, y = batch
    criterion = nn.CrossEntropyLoss()
    plan.loss(criterion, output, y)
    assert criterion.reduction == "mean"


def test_a_criterion_that_cannot_answer_per_example_raises_an_error(batch):
    plan, output, y = batch

    def plain(output, y):
        return F.cross_entropy(output, y)

    def deaf(output, y, reduction):
        return F.cross_entropy(output, y)

    with pytest.raises(TypeError, match=r"plain has no argument reduction"):
        plan.loss(plain, output, y)
    with pytest.raises(TypeError, match="Identity has no attribute reduction"):
        plan.loss(nn.Identity(), output, y)
    with pytest.raises(ValueError, match=r"each of 16 examples, got shape \(\)"):
        plan.loss(deaf, output, y)


def test_the_loss_has_the_gradient_of_the_soft_label_loss(batch):
    plan, output, y = batch
    output.requires_grad_()
    pair = torch.autograd.grad(plan.loss(F.cross_entropy, output, y), output)[0]
    soft_loss = F.cross_entropy(output, plan.targets(y, num_classes=5).double())
    torch.testing.assert_close(
        pair, torch.autograd.grad(soft_loss, output)[0], rtol=1e-6, atol=1e-8
    )


def by_hand(plan, each):
    """Return the mean over rows of lam * own + (1 - lam) * partner, with ``each(row, whose)``."""
    rows = []
    for i in range(len(plan)):
        lam = plan.lam[i].double()
        rows.append(lam * each(i, i) + (1 - lam) * each(i, int(plan.partner[i])))
    return torch.stack(rows).mean()


def focal(output, y, reduction="mean"):
    loss = F.cross_entropy(output, y, reduction="none")
    loss = (1 - torch.exp(-loss)) ** 2 * loss
    return loss if reduction == "none" else loss.mean()


def test_a_focal_loss_is_mixed_and_not_the_probability_inside_of_it(batch):
    plan, output, y = batch
    expected = by_hand(plan, lambda i, j: focal(output[i : i + 1], y[j : j + 1]))
    torch.testing.assert_close(plan.loss(focal, output, y), expected)


@pytest.mark.parametrize("make", [nn.L1Loss, nn.SmoothL1Loss, nn.MSELoss, nn.HuberLoss])
def test_an_output_that_equals_the_blended_real_values_has_no_loss(make):
    plan, real = Plan(torch.tensor([1, 0]), torch.tensor([0.7, 0.7])), torch.tensor([0.0, 10.0])
    exact = torch.tensor([3.0, 7.0], requires_grad=True)
    loss = plan.loss(make(), exact, real)
    (gradient,) = torch.autograd.grad(loss, exact)
    assert loss < 1e-10
    assert gradient.abs().max() < 1e-5
    assert plan.loss(make(), exact + 2, real) > 1


@pytest.mark.parametrize("name", ["l1_loss", "smooth_l1_loss", "mse_loss", "huber_loss"])
def test_losses_of_real_values_compare_the_output_with_the_blended_value(batch, name):
    plan, output, _ = batch
    loss, settings = getattr(F, name), {"beta": 0.3} if name == "smooth_l1_loss" else {}
    real = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    lam = plan.lam.double()
    blended = torch.stack(
        [lam[i] * real[i] + (1 - lam[i]) * real[int(plan.partner[i])] for i in range(16)]
    )
    for reduction in ("mean", "sum", "none"):
        own = functools.partial(loss, reduction=reduction, **settings)
        expected = own(output[:, 0], blended)
        torch.testing.assert_close(plan.loss(own, output[:, 0], real), expected)


def test_blended_real_values_of_narrow_types_are_not_rounded():
    plan = MixUp(1.0, per="example").draw(64)
    real, output = torch.randn(64).to(torch.bfloat16), torch.randn(64).to(torch.bfloat16)
    blended = plan.lam * real.float() + (1 - plan.lam) * real.float()[plan.partner]
    expected = F.mse_loss(output.float(), blended)
    torch.testing.assert_close(plan.loss(F.mse_loss, output, real), expected)


class InnerIgnore(nn.Module):
    """A criterion with a cross-entropy inside, or one that passes ignore_index on in its code."""

    def __init__(self, reduction="mean", *, hidden=False):
        super().__init__()
        self.reduction = reduction
        if not hidden:
            self.inner = nn.CrossEntropyLoss(ignore_index=255)

    def forward(self, output, y):
        return F.cross_entropy(output, y, ignore_index=255, reduction=self.reduction)


def test_ignored_pixels_of_an_own_criterion_do_not_count_or_are_refused():
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(8, 4, 6, 6, generator=generator)
    y = torch.randint(4, (8, 6, 6), generator=generator)
    y[:, :3] = 255
    plan = CutMix(1.0).draw(8, image_size=(6, 6), generator=generator)
    pasted = torch.where(plan.region.expand(8, 6, 6), y[plan.partner], y)
    expected = F.cross_entropy(output, pasted, ignore_index=255)
    torch.testing.assert_close(plan.loss(InnerIgnore(), output, y), expected)
    with pytest.raises(ValueError, match=r"0 to 3 in a mask.*got 255.*ignore_index"):
        plan.loss(InnerIgnore(hidden=True), output, y)


class Composite(nn.Module):
    """A criterion whose parts ignore different classes, which only their own code can know."""

    reduction = "mean"

    def __init__(self):
        super().__init__()
        self.foreground = nn.CrossEntropyLoss(ignore_index=0, reduction="none")
        self.main = nn.CrossEntropyLoss(reduction="none")

    def forward(self, output, y):
        each = self.main(output, y) + 0.5 * self.foreground(output, y)
        return each if self.reduction == "none" else each.mean()


class Margins(nn.Module):
    """A loss of embeddings, which have fewer dimensions than there are classes."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction
        self.weight = nn.Parameter(torch.linspace(-1, 1, 500, dtype=torch.float64).view(100, 5))

    def forward(self, output, y):
        return F.cross_entropy(output @ self.weight.T, y, reduction=self.reduction)


@pytest.mark.parametrize("criterion", [Composite(), Margins()])
def test_criteria_of_other_kinds_are_the_weighted_sum_of_both_losses(batch, criterion):
    plan, output, y = batch
    if isinstance(criterion, Margins):
        y = 20 * y + 3
    expected = by_hand(plan, lambda i, j: criterion(output[i : i + 1], y[j : j + 1]))
    torch.testing.assert_close(plan.loss(criterion, output, y), expected)


class MyMSE(nn.MSELoss):
    """A subclass that changes nothing."""


@pytest.mark.parametrize(
    "criterion",
    [MyMSE(), torch.compile(F.mse_loss, backend="eager"), functools.partial(F.mse_loss)],
    ids=["subclass", "compiled", "partial"],
)
def test_the_squared_error_in_any_form_compares_with_the_blended_value(batch, criterion):
    plan, output, _ = batch
    real = torch.randn(16, 1, dtype=torch.float64)
    lam = plan.lam.double()[:, None]
    blended = lam * real + (1 - lam) * real[plan.partner]
    one = output[:, :1]
    torch.testing.assert_close(plan.loss(criterion, one, real), F.mse_loss(one, blended))


def test_a_forward_that_was_replaced_by_a_wrapper_is_called(batch):
    plan, output, y = batch
    criterion = nn.CrossEntropyLoss()
    original = criterion.forward
    criterion.forward = lambda output, y: 2 * original(output, y)
    expected = 2 * plan.loss(nn.CrossEntropyLoss(), output, y)
    torch.testing.assert_close(plan.loss(criterion, output, y), expected)
    assert criterion.reduction == "mean"


@pytest.mark.parametrize("add", ["register_forward_hook", "register_forward_pre_hook", "forward"])
def test_hooks_of_a_cross_entropy_run(batch, add):
    _, output, y = batch
    criterion = nn.CrossEntropyLoss()
    if add == "register_forward_hook":
        criterion.register_forward_hook(lambda module, arguments, result: 10 * result)
    elif add == "register_forward_pre_hook":
        criterion.register_forward_pre_hook(lambda module, arguments: (arguments[0] / 2, y))
    else:
        criterion.forward = lambda output, y: 10 * F.cross_entropy(output, y, reduction="none")
    expected = criterion(output, y).mean()
    unmixed = MixUp(0.0).draw(16)
    torch.testing.assert_close(unmixed.loss(criterion, output, y), expected)


@pytest.mark.parametrize("smoothing", [-0.5, 1.5])
def test_label_smoothing_out_of_range_is_refused_as_by_pytorch(batch, smoothing):
    plan, output, y = batch
    with pytest.raises(ValueError, match=f"label_smoothing from 0 to 1, got {smoothing}"):
        plan.loss(nn.CrossEntropyLoss(label_smoothing=smoothing), output, y)


def test_deprecated_arguments_of_a_criterion_are_refused(batch):
    plan, output, y = batch
    unset = functools.partial(F.cross_entropy, size_average=None, reduce=None)
    torch.testing.assert_close(
        plan.loss(unset, output, y), plan.loss(F.cross_entropy, output, y), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(TypeError, match="expected reduction, got reduce or size_average"):
        plan.loss(functools.partial(F.cross_entropy, reduce=False), output, y)


def test_the_accuracy_refuses_classes_that_the_output_does_not_have(batch):
    plan, output, y = batch
    with pytest.raises(ValueError, match=r"accuracy: expected classes from 0 to 4.*got 7"):
        plan.accuracy(output, torch.where(y == 0, 7, y))
    with pytest.raises(ValueError, match=r"ignore_index 255, got -1"):
        plan.accuracy(output, torch.where(y == 0, -1, y).to(torch.int8), ignore_index=255)


def test_multi_label_targets_under_bce_equal_soft_targets(batch):
    plan, output, _ = batch
    many = (
        torch.rand(16, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float32) < 0.4
    ).double()
    for criterion in (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss()):
        loss = plan.loss(criterion, output, many)
        expected = F.binary_cross_entropy_with_logits(output, plan.targets(many))
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)


def test_masks_are_mixed_pixel_by_pixel():
    chance = torch.Generator().manual_seed(4)
    output = torch.randn(6, 3, 4, 5, dtype=torch.float64, generator=chance)
    masks = torch.randint(3, (6, 4, 5), generator=chance)
    masks[0, 0] = masks[1, 0] = -100
    plan = MixUp(1.0, per="example").draw(6, generator=chance)
    total, counted = 0.0, 0.0
    for i, h, w in itertools.product(range(6), range(4), range(5)):
        sides = [(plan.lam[i].double(), masks[i, h, w])]
        sides.append((1 - sides[0][0], masks[plan.partner[i], h, w]))
        for share, k in sides:
            if k != -100:
                counted += share
                total -= share * output[i, :, h, w].log_softmax(0)[k]
    torch.testing.assert_close(plan.loss(F.cross_entropy, output, masks), total / counted)


def test_masks_under_a_region_take_their_class_from_where_the_pixel_is():
    chance = torch.Generator().manual_seed(4)
    output = torch.randn(6, 3, 4, 5, dtype=torch.float64, generator=chance)
    masks = torch.randint(3, (6, 4, 5), generator=chance)
    plan = CutMix(1.0, per="example").draw(6, generator=chance, image_size=(4, 5))
    pasted = plan.mix(masks)
    torch.testing.assert_close(
        plan.loss(F.cross_entropy, output, masks), F.cross_entropy(output, pasted)
    )
    assert torch.equal(plan.targets(masks, num_classes=3).argmax(1), pasted)
    assert plan.accuracy(F.one_hot(pasted, 3).movedim(-1, 1).float(), masks).item() == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_masks_of_volumes_take_the_share_of_each_pixel(size):
    draw = torch.Generator().manual_seed(0)
    output = torch.randn(size, 4, 2, 5, 6, generator=draw, dtype=torch.float32)
    y = torch.randint(4, (size, 2, 5, 6), generator=draw)
    region = torch.rand(size, 5, 6, generator=draw, dtype=torch.float32) < 0.4
    partner = torch.arange(size).flip(0)
    plan = Plan(partner, 1 - region.double().mean((1, 2)), region=region)
    each = F.cross_entropy(output, y, reduction="none")
    met = F.cross_entropy(output, y[partner], reduction="none")
    expected = torch.where(region[:, None], met, each).mean()
    torch.testing.assert_close(plan.loss(F.cross_entropy, output, y), expected)


def test_several_heads_take_one_plan(batch):
    plan, output, y = batch
    age = torch.rand(16, dtype=torch.float64)
    together = plan.loss(F.cross_entropy, output[:, :4], y % 4) + plan.loss(
        F.mse_loss, output[:, 4], age
    )
    apart = F.cross_entropy(output[:, :4], plan.targets(y % 4, num_classes=4).double())
    lam = plan.lam.double()
    pair = (output[:, 4] - (lam * age + (1 - lam) * age[plan.partner])).square().mean()
    torch.testing.assert_close(together, apart + pair, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fused_cross_entropy_equals_pytorch_per_example(batch, smoothing, weighted):
    plan, output, y = batch
    weight = torch.tensor([0.1, 1.0, 3.0, 0.5, 9.0], dtype=torch.float64) if weighted else None
    options = {"weight": weight, "label_smoothing": smoothing}
    loss = plan.loss(nn.CrossEntropyLoss(**options, reduction="none"), output, y)
    own, met = (
        F.cross_entropy(output, one, **options, reduction="none") for one in (y, y[plan.partner])
    )
    expected = plan.lam * own + (1 - plan.lam) * met
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    for reduction in ("sum", "mean"):
        whole = plan.loss(
            functools.partial(F.cross_entropy, **options, reduction=reduction), output, y
        )
        torch.testing.assert_close(whole, getattr(expected, reduction)(), rtol=1e-6, atol=1e-7)


def test_the_fused_cross_entropy_has_exact_first_and_second_gradients(batch):
    plan, output, y = batch
    small = output[:4].clone().requires_grad_()
    part = Plan(torch.tensor([1, 0, 3, 3]), plan.lam[:4])

    def loss(output):
        return part.loss(F.cross_entropy, output, y[:4])

    assert torch.autograd.gradcheck(loss, (small,))
    assert torch.autograd.gradgradcheck(loss, (small,))
    hessian = torch.func.hessian(loss)(small.detach())
    assert torch.allclose(hessian, torch.autograd.functional.hessian(loss, small.detach()))


def test_scores_that_somebody_else_needs_are_left_alone(batch):
    plan, output, y = batch
    before = output.clone()
    leaf = output.requires_grad_()
    plan.loss(F.cross_entropy, leaf, y).backward()
    assert torch.equal(leaf.detach(), before)


def test_a_blend_of_which_all_is_ignored_counts_nowhere(batch):
    plan, output, y = batch
    everything = torch.full_like(y, -100)
    everything[0] = 1
    plan = Plan(torch.arange(16).roll(1), torch.full((16,), 0.5, dtype=torch.float32))
    loss = plan.loss(F.cross_entropy, output, everything)
    rows = [0, 1]  # the labeled row, and who met it
    expected = F.cross_entropy(output[rows], torch.tensor([1, 1]))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.full((16,), 5), r"classes from 0 to 4.*got 5 with logits of shape \(16, 5\)"),
        (torch.full((16,), -1), "ignore_index -100, got -1"),
        (torch.zeros(16, 2, dtype=torch.int64), r"got \(16, 5\) and \(16, 2\)"),
    ],
)
def test_classes_that_do_not_fit_the_scores_raise_an_error(batch, y, words):
    plan, output, _ = batch
    with pytest.raises(ValueError, match=words):
        plan.loss(F.cross_entropy, output, y)


def test_soft_labels_with_the_wrong_class_count_raise_an_error_with_both_shapes(batch):
    plan, output, _ = batch
    with pytest.raises(ValueError, match=r"\(16, 5\) and soft labels \(16, 4\)"):
        plan.loss(F.cross_entropy, output, torch.rand(16, 4, dtype=torch.float32))


def test_half_precision_scores_lose_no_share_of_a_large_mask():
    output = torch.zeros(8, 2, 256, 256, dtype=torch.float16, requires_grad=True)
    y = torch.zeros(8, 256, 256, dtype=torch.int64)
    plan = Plan(torch.arange(7, -1, -1), torch.full((8,), 0.97, dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = plan.loss(F.cross_entropy, output, y)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-4)


def test_losses_of_whole_examples_are_those_of_the_pasted_masks():
    def by_example(output, y, reduction="mean"):
        return (output[:, 0] - y).square().mean((1, 2))

    chance = torch.Generator().manual_seed(6)
    output, y = (
        torch.rand(8, 1, 8, 8, generator=chance, dtype=torch.float32),
        torch.rand(8, 8, 8, generator=chance, dtype=torch.float32),
    )
    plan = CutMix(per="example").draw(8, generator=chance, image_size=(8, 8))
    pasted = y.clone()
    for row in range(8):
        there = plan.region[row]
        pasted[row][there] = y[plan.partner[row]][there]
    torch.testing.assert_close(plan.loss(by_example, output, y), by_example(output, pasted).mean())


@pytest.mark.parametrize("policy", [CutMix(1.0), FMix(), ResizeMix(per="example")])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_dice_loss_is_that_of_the_pasted_mask(policy, reduction):
    class Dice(nn.Module):
        def __init__(self):
            super().__init__()
            self.reduction = reduction

        def forward(self, output, y):
            p, y = output.flatten(1), y.flatten(1)
            each = 1 - 2 * (p * y).sum(1) / (p + y).sum(1)
            return {"mean": each.mean(), "sum": each.sum(), "none": each}[self.reduction]

    chance = torch.Generator().manual_seed(7)
    y = (torch.rand(4, 1, 16, 16, generator=chance, dtype=torch.float32) > 0.5).float()
    plan = policy.draw(4, generator=chance, image_size=(16, 16))
    pasted = plan.targets(y)
    assert not torch.equal(pasted, y)
    assert torch.equal(plan.loss(Dice(), pasted, y), Dice()(pasted, pasted))
    torch.testing.assert_close(plan.loss(Dice(), y, y), Dice()(y, pasted))


def test_a_criterion_keeps_its_reduction_its_counters_and_its_hooks():
    class Annealed(nn.Module):
        def __init__(self):
            super().__init__()
            self.reduction, self.step = "mean", 0

        def forward(self, output, y):
            self.step += 1
            return F.cross_entropy(output, y, reduction=self.reduction) * self.step

    output, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    plan, criterion, calls = MixUp(1.0).draw(4), Annealed(), []
    criterion.register_forward_hook(lambda *_: calls.append(1))
    for step in range(3):
        found = plan.loss(criterion, output, y)
        share = plan.lam[0].item()
        expected = math.log(3) * (share * (2 * step + 1) + (1 - share) * (2 * step + 2))
        assert found.item() == pytest.approx(expected, rel=1e-5)
    assert (criterion.step, len(calls), criterion.reduction) == (6, 6, "mean")


def test_a_criterion_may_be_of_any_class():
    known = {}

    class Absolute(nn.Module):
        reduction = "mean"

        def __init_subclass__(cls, name, **options):
            assert name not in known
            known[name] = cls

        def forward(self, output, y):
            each = (output - y).abs()
            return each.mean() if self.reduction == "mean" else each

    class Named(Absolute, name="absolute"):
        def forward(self, output, y):
            assert type(self) is Named
            before, self.reduction = self.reduction, "none"
            each = super().forward(output, y)
            self.reduction = before
            return each if before == "none" else each.mean()

    class Forwarding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.L1Loss()

        @property
        def reduction(self):
            return self.inner.reduction

        @reduction.setter
        def reduction(self, value):
            self.inner.reduction = value

        def forward(self, output, y):
            return self.inner(output, y)

    output, y = torch.zeros(4, 3), torch.ones(4, 3)
    for criterion in (Named(), Forwarding()):
        assert MixUp(1.0).draw(4).loss(criterion, output, y).item() == pytest.approx(1)
        assert criterion(output, y).item() == 1
        assert criterion.reduction == "mean"
    assert known == {"absolute": Named}


@pytest.mark.parametrize("compiled", ["torch.compile", "compile in place"])
@pytest.mark.parametrize("make", [nn.BCEWithLogitsLoss, nn.MSELoss, nn.CrossEntropyLoss])
def test_a_compiled_criterion_is_as_good_as_the_plain_one(make, compiled):
    output = torch.randn(8, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float32)
    y = output.softmax(1).flip(0)
    plan, plain, criterion = MixUp(0.2).draw(8), make(), make()
    if compiled == "torch.compile":
        criterion = torch.compile(criterion, backend="eager")
    else:
        criterion.compile(backend="eager")
    for _ in range(2):
        torch.testing.assert_close(plan.loss(criterion, output, y), plan.loss(plain, output, y))
        assert criterion.reduction == "mean"
    assert criterion(output, y).dim() == 0


def test_the_default_reduction_of_a_function_is_its_own():
    def summed(output, y, reduction="sum"):
        return F.cross_entropy(output, y, reduction=reduction)

    output, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    assert MixUp(1.0).draw(4).loss(summed, output, y).item() == pytest.approx(4 * math.log(3))


@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4, 1, 2, 2), (4, 2, 2))])
def test_integer_targets_that_are_compared_all_with_all_raise_an_error(shapes):
    output, y = torch.zeros(shapes[0]), torch.ones(shapes[1], dtype=torch.int64)

    def squared(output, y, reduction="mean"):
        return (output - y).square()

    with pytest.raises(ValueError, match="The criterion broadcast the two"):
        MixUp(0.0).draw(4).loss(squared, output, y)
    assert MixUp(0.0).draw(4).loss(squared, output.reshape(y.shape), y.float()).item() == 1


def test_classes_of_uint8_masks_are_all_counted_in_the_accuracy():
    output, y = torch.zeros(3, 200), torch.tensor([0, 156, 3], dtype=torch.uint8)
    output[1, 156] = 1
    assert MixUp(0.0).draw(3).accuracy(output, y).item() == pytest.approx(2 / 3)


def test_boolean_targets_count_as_zero_and_one(batch):
    plan, output, _ = batch
    many = torch.rand(16, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float32) < 0.4
    loss = plan.loss(F.binary_cross_entropy_with_logits, output, many)
    torch.testing.assert_close(
        loss, plan.loss(F.binary_cross_entropy_with_logits, output, many.double())
    )


@pytest.mark.parametrize(
    ("criterion", "output", "y", "words"),
    [
        (
            F.mse_loss,
            torch.rand(16, 1, dtype=torch.float32),
            torch.rand(16, dtype=torch.float32),
            r"\(16,\), .*got \(16, 1\)\. .*Call",
        ),
        (
            F.mse_loss,
            torch.rand(16, 2, dtype=torch.float32),
            torch.ones(16, 2, dtype=torch.float32).long(),
            r"Call y\.float",
        ),
        (
            nn.CrossEntropyLoss,
            torch.rand(16, 2, dtype=torch.float32),
            torch.ones(16, dtype=torch.float32).long(),
            r"Pass CrossE",
        ),
        (
            nn.KLDivLoss(reduction="batchmean"),
            torch.rand(16, 2, dtype=torch.float32),
            torch.rand(16, 2, dtype=torch.float32),
            "batchmean",
        ),
        (
            nn.CrossEntropyLoss(weight=torch.ones(5, dtype=torch.float32)),
            torch.rand(16, 2, dtype=torch.float32),
            torch.ones(16, dtype=torch.float32).long(),
            r"each of 2 classes, got weights of shape \(5,\)",
        ),
    ],
)
def test_what_would_be_a_wrong_number_raises_an_error(batch, criterion, output, y, words):
    with pytest.raises((TypeError, ValueError), match=words):
        batch[0].loss(criterion, output, y)


THREE_PARENTS = Plan(
    torch.tensor([[1, 2, 3, 0], [2, 0, 3, 3]]),
    torch.tensor([0.5, 0.25, 1.0, 0.0], dtype=torch.float32),
    torch.tensor([[0.25, 0.25, 0.0, 0.0], [0.25, 0.5, 0.0, 1.0]], dtype=torch.float32),
)


def soft_loss(plan, output, y, weight, reduction):
    """Return the loss and its gradient as PyTorch takes them from soft labels, in float64."""
    leaf = output.detach().double().requires_grad_()
    soft = plan.targets(y, num_classes=output.shape[1]).double()
    weight = None if weight is None else weight.double()
    loss = F.cross_entropy(leaf, soft, weight=weight, reduction=reduction)
    return loss.detach(), torch.autograd.grad((loss * upstream(loss)).sum(), leaf)[0]


def upstream(loss):
    return torch.arange(1, loss.numel() + 1).reshape(loss.shape)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_loss_and_gradient_are_those_of_soft_labels(dtype, weighted, reduction):
    chance = torch.Generator().manual_seed(5)
    output = torch.randn(4, 6, generator=chance, dtype=torch.float32).to(dtype).requires_grad_()
    y = torch.tensor([0, 5, 5, 2])
    wide = torch.promote_types(dtype, torch.float32)
    weight = torch.tensor([0.1, 1.0, 3.0, 0.5, 9.0, 2.0], dtype=wide) if weighted else None
    loss = THREE_PARENTS.loss(nn.CrossEntropyLoss(weight, reduction=reduction), output, y)
    expected, gradient = soft_loss(THREE_PARENTS, output, y, weight, reduction)
    assert loss.dtype == wide
    torch.testing.assert_close(loss.detach().double(), expected, rtol=2e-6, atol=1e-6)
    actual = torch.autograd.grad((loss * upstream(loss)).sum(), output)[0]
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, gradient.to(dtype))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_derivatives_up_to_the_third_are_those_of_finite_differences(reduction):
    output = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output.requires_grad_()
    y = torch.tensor([0, 2, 2, 1])
    criterion = functools.partial(F.cross_entropy, reduction=reduction)

    def loss(output):
        return THREE_PARENTS.loss(criterion, output, y)

    def penalized(output):
        value = loss(output).sum()
        gradient = torch.autograd.grad(value, output, create_graph=True)[0]
        return value + gradient.square().sum()

    assert torch.autograd.gradcheck(loss, (output,), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(loss, (output,))
    assert torch.autograd.gradcheck(penalized, (output,))
    assert torch.autograd.gradgradcheck(penalized, (output,))


def test_transforms_and_the_compiler_give_what_plain_calls_give(batch):
    plan, output, y = batch
    criterion = functools.partial(F.cross_entropy, ignore_index=4)

    def loss(output, y=y):
        return plan.loss(criterion, output, y)

    leaf = output.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(torch.func.grad(loss)(output), gradient)
    doubled = torch.func.vmap(loss)(torch.stack([output, output + 1]), torch.stack([y, y]))
    torch.testing.assert_close(doubled, value.detach().expand(2))
    tangent = torch.ones_like(output).cumsum(1)
    _, slope = torch.func.jvp(loss, (output,), (tangent,))
    torch.testing.assert_close(slope, (gradient * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = loss(torch.autograd.forward_ad.make_dual(output, tangent))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, slope)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(leaf)
    torch.testing.assert_close(torch.autograd.grad(compiled, leaf)[0], gradient)


@pytest.mark.parametrize(
    "criterion",
    [
        F.binary_cross_entropy_with_logits,
        functools.partial(F.mse_loss, reduction="sum"),
        nn.BCEWithLogitsLoss(pos_weight=torch.arange(5.0, dtype=torch.float64)),
    ],
    ids=["function", "partial", "module"],
)
def test_any_criterion_compiles_without_a_graph_break(batch, criterion):
    if isinstance(criterion, nn.Module) and torch.__version__.startswith("2.8."):
        pytest.skip("PyTorch 2.8 breaks the graph where a module is copied")
    plan, output, y = batch
    labels = F.one_hot(y, 5).double()

    def loss(output):
        return plan.loss(criterion, output, labels)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaf = output.clone().requires_grad_()
    found, expected = (torch.autograd.grad(run(leaf), leaf)[0] for run in (compiled, loss))
    torch.testing.assert_close(found, expected)


def test_a_probability_that_is_nought_in_float32_has_a_finite_loss():
    output = torch.tensor([[0.0, 200.0], [0.0, 95.0]], requires_grad=True, dtype=torch.float32)
    plan = Plan(torch.tensor([1, 0]), torch.tensor([1.0, 1.0], dtype=torch.float32))
    loss = plan.loss(nn.CrossEntropyLoss(reduction="sum"), output, torch.tensor([0, 0]))
    assert loss.item() == 295
    gradient = torch.autograd.grad(loss, output)[0]
    assert gradient.tolist() == [[-1.0, 1.0], [-1.0, 1.0]]


@pytest.mark.parametrize("ignored", [-100, 4, 255])
@pytest.mark.parametrize("weight", [None, torch.ones(5, dtype=torch.float64)])
def test_ignored_classes_are_left_out_of_the_gradient_too(batch, weight, ignored):
    plan, output, y = batch
    y = torch.where(y == 4, ignored, y)
    y[0] = y[plan.partner[0]] = ignored
    leaf = output.clone().requires_grad_()
    criterion = nn.CrossEntropyLoss(weight, ignore_index=ignored)
    (actual,) = torch.autograd.grad(plan.loss(criterion, leaf, y), leaf)
    soft = torch.zeros(16, 5, dtype=torch.float64)
    for i in range(16):
        lam = plan.lam[i].double()
        for share, k in ((lam, y[i]), (1 - lam, y[plan.partner[i]])):
            if k != ignored:
                soft[i, k] += share
    expected = (output.softmax(1) * soft.sum(1, keepdim=True) - soft) / soft.sum()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)


def test_a_graph_is_there_where_it_is_asked_for_and_as_often(batch):
    plan, output, y = batch
    leaf = output.clone().requires_grad_()
    loss = plan.loss(F.cross_entropy, leaf, y)
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, leaf)[0])
    assert not plan.loss(F.cross_entropy, output, y).requires_grad
    with torch.no_grad():
        assert torch.equal(plan.loss(F.cross_entropy, leaf, y), loss)
        assert not plan.loss(F.cross_entropy, leaf, y).requires_grad


def test_scores_may_be_written_over_between_the_loss_and_its_gradient(batch):
    plan, output, y = batch
    leaf = output.clone().requires_grad_()
    expected = torch.autograd.grad(plan.loss(F.cross_entropy, leaf, y), leaf)[0]
    scores = leaf * 1
    loss = plan.loss(F.cross_entropy, scores, y)
    scores.detach().zero_()
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], expected)


def test_shares_and_class_weights_get_the_gradient_that_they_ask_for(batch):
    plan, output, y = batch
    lam = plan.lam.double().requires_grad_()
    weight = torch.tensor([0.1, 1.0, 3.0, 0.5, 9.0], dtype=torch.float64, requires_grad=True)
    loss = Plan(plan.partner, lam).loss(
        functools.partial(F.cross_entropy, weight=weight, reduction="sum"), output, y
    )
    by_lam, by_weight = torch.autograd.grad(loss, (lam, weight))
    own, met = (
        F.cross_entropy(output, one, weight=weight.detach(), reduction="none")
        for one in (y, y[plan.partner])
    )
    torch.testing.assert_close(by_lam, own - met)
    torch.testing.assert_close((by_weight * weight).sum(), loss)


def test_no_value_is_read_on_another_device():
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5], dtype=torch.float32)).to("meta")
    output = torch.empty(2, 5, device="meta", requires_grad=True, dtype=torch.float32)
    for criterion in (F.cross_entropy, nn.CrossEntropyLoss(ignore_index=3)):
        loss = plan.loss(criterion, output, torch.empty(2, dtype=torch.int64, device="meta"))
        assert torch.autograd.grad(loss, output)[0].shape == output.shape


def region_plan(*sizes, policy=None):
    policy = policy or CutMix(1.0, per="example")
    return policy.draw(3, generator=torch.Generator().manual_seed(2), image_size=sizes)


@pytest.mark.parametrize(
    "y",
    [
        torch.zeros(3, 4, 6, dtype=torch.int64),
        torch.zeros(3, 8, 4, dtype=torch.int64),
        torch.zeros(3, 1, 4, 6, dtype=torch.float32),
        torch.zeros(3, 16, 6, dtype=torch.float32),
    ],
)
def test_masks_of_another_size_than_the_region_raise_an_error(y):
    plan = region_plan(8, 6)
    classes = None if y.dtype.is_floating_point else 2
    with pytest.raises(ValueError, match=r"image_size of the plan, \(8, 6\)"):
        plan.targets(y, classes)


def test_masks_of_volumes_need_as_many_dimensions_as_the_region():
    with pytest.raises(ValueError, match=r"image_size of the plan, \(5, 8, 6\).*got \(3, 8, 6\)"):
        region_plan(5, 8, 6).targets(torch.zeros(3, 8, 6, dtype=torch.int64), 2)


@pytest.mark.parametrize("sizes", [(9,), (5, 6), (3, 4, 5)])
def test_masks_take_their_class_from_where_the_value_is_in_any_number_of_dimensions(sizes):
    plan = region_plan(*sizes)
    chance = torch.Generator().manual_seed(3)
    y = torch.randint(4, (3, *sizes), generator=chance)
    mixed = torch.where(plan.region, y[plan.partner], y)
    expected = F.one_hot(mixed, 4).movedim(-1, 1).float()
    assert torch.equal(plan.targets(y, num_classes=4), expected)
    output = torch.randn(3, 4, *sizes, generator=chance, dtype=torch.float32)
    loss = plan.loss(F.cross_entropy, output, y)
    torch.testing.assert_close(loss, F.cross_entropy(output, mixed))


def test_soft_labels_of_a_signal_are_blended_also_where_there_are_as_many_classes_as_steps():
    plan = region_plan(5)
    soft = torch.rand(3, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float32)
    lam = plan.lam[:, None]
    torch.testing.assert_close(plan.targets(soft), lam * soft + (1 - lam) * soft[plan.partner])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_integer_one_hot_labels_raise_an_error(dtype):
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5], dtype=torch.float32))
    with pytest.raises(
        ValueError, match=r"shape \(2, 3\), .*one-hot labels or 3 classes.*y\.float"
    ):
        plan.targets(torch.tensor([[0, 1, 0], [1, 0, 0]], dtype=dtype), num_classes=3)
    several = torch.tensor([[0, 1, 2], [1, 1, 0]], dtype=dtype)
    assert plan.targets(several[:, :, None], num_classes=3).shape == (2, 3, 3, 1)


@pytest.mark.parametrize("scale", [0.1, 8.0, 100.0])
@pytest.mark.parametrize("shift", [-60.0, 0.0, 60.0])
def test_extreme_logits_have_the_loss_and_gradient_of_double_precision(scale, shift):
    chance = torch.Generator().manual_seed(4)
    logits = torch.randn(6, 9, generator=chance, dtype=torch.float32) * scale + shift
    y = torch.arange(6)
    plan = Plan(torch.tensor([1, 0, 3, 2, 5, 5]), torch.linspace(0, 1, 6, dtype=torch.float32))
    ours, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = plan.loss(F.cross_entropy, ours, y)
    lam = plan.lam.double()
    own, met = (F.cross_entropy(wide, t, reduction="none") for t in (y, y[plan.partner]))
    expected = (lam * own + (1 - lam) * met).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(loss, ours)[0].double()
    torch.testing.assert_close(found, torch.autograd.grad(expected, wide)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_loss_holds_for_other_logits_and_ignored_classes():
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5], dtype=torch.float32))

    def loss(logits, y):
        return plan.loss(F.cross_entropy, logits, y)

    traced = torch.jit.trace(loss, (torch.zeros(2, 3, dtype=torch.float32), torch.tensor([0, 1])))
    logits = torch.tensor([[0.0, 0.0, 90.0], [0.0, 50.0, 0.0]], dtype=torch.float32)
    for y in (torch.tensor([2, 1]), torch.tensor([-100, 1])):
        torch.testing.assert_close(traced(logits, y), loss(logits, y))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_impossible_class_of_ignored_positions_leaves_the_loss_finite(smoothing):
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5)
    logits[:, 0, 3:] = -math.inf
    logits.requires_grad_()
    y = torch.randint(1, 3, (4, 5))
    y[:, 3:] = 0  # padding, which is ignored
    plan = MixUp(1.0).draw(4)
    criterion = functools.partial(F.cross_entropy, ignore_index=0, label_smoothing=smoothing)
    loss = plan.loss(criterion, logits, y)
    lam = plan.lam[:, None]
    own, other = (
        F.cross_entropy(logits[..., :3], one[:, :3], label_smoothing=smoothing, reduction="none")
        for one in (y, y[plan.partner])
    )
    assert torch.allclose(loss, (lam * own + (1 - lam) * other).mean(), atol=1e-6)
    loss.backward()
    assert bool(logits.grad.isfinite().all())


def test_a_loss_in_float64_is_as_precise_as_its_criterion():
    torch.manual_seed(0)
    logits, y = torch.randn(10, 5, dtype=torch.float64), torch.arange(10) % 5
    for policy in (MixUp(0.0), MixUp(1.0, per="example")):
        plan = policy.draw(10)
        lam = plan.lam.double()
        own, other = (F.cross_entropy(logits, z, reduction="none") for z in (y, y[plan.partner]))
        expected = float((lam * own + (1 - lam) * other).mean())
        found = float(plan.loss(F.cross_entropy, logits, y))
        assert found == pytest.approx(expected, rel=1e-7 if policy.alpha else 1e-14)


def test_a_loss_of_ignored_targets_alone_is_nan_as_in_pytorch():
    logits, y = torch.randn(3, 4), torch.full((3,), -100)
    assert F.cross_entropy(logits, y).isnan()
    assert MixUp(1.0).draw(3).loss(F.cross_entropy, logits, y).isnan()


@pytest.mark.parametrize("criterion", [F.cross_entropy, F.nll_loss])
def test_a_partner_without_a_share_may_have_an_impossible_class(criterion):
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[0, 2] = -math.inf  # impossible for the first example, and the class of its partner
    if criterion is F.nll_loss:
        logits = logits.log_softmax(1)
    logits.requires_grad_()
    y, plan = torch.tensor([0, 2, 3]), Plan(torch.tensor([1, 2, 0]), torch.tensor([1.0, 0.5, 0.25]))
    loss = plan.loss(functools.partial(criterion, reduction="none"), logits, y)
    expected = criterion(logits[:1], y[:1])
    assert loss[0].item() == pytest.approx(expected.item(), rel=1e-12)
    loss.sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_a_reduction_that_cross_entropy_does_not_have_is_refused():
    plan, y = MixUp(1.0).draw(4), torch.tensor([0, 1, 2, 0])
    for criterion in (nn.CrossEntropyLoss(reduction="batchmean"), nn.MSELoss(reduction="average")):
        with pytest.raises(ValueError, match='expected reduction="mean", "sum" or "none"'):
            plan.loss(criterion, torch.randn(4, 3), y)


def test_missing_targets_of_a_parent_without_a_share_leave_no_trace():
    nan = math.nan
    plan = Plan(torch.tensor([1, 0]), torch.tensor([1.0, 0.5]))
    y = torch.tensor([[2.0], [nan]])
    assert plan.targets(y)[0].item() == 2
    output = torch.tensor([[5.0], [1.0]], requires_grad=True)
    loss = plan.loss(functools.partial(F.mse_loss, reduction="none"), output, y)
    loss[0].sum().backward()
    assert (loss[0].item(), output.grad[0].item()) == (9, 6)
    region = torch.tensor([[[False, True]]])
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), region=region)
    y = torch.tensor([[[1.0, nan]], [[5.0, 4.0]]])
    assert plan.targets(y)[0].tolist() == [[1, 4]]
    output = torch.zeros(2, 1, 2, requires_grad=True)
    loss = plan.loss(functools.partial(F.mse_loss, reduction="none"), output, y)
    loss[0].sum().backward()
    assert loss[0].tolist() == [[1, 16]]
    assert output.grad[0].tolist() == [[-2, -8]]


@pytest.mark.parametrize("start", [0.0, 0.25, 1.0])
def test_the_derivative_of_targets_by_lam_is_there_at_its_ends_too(start):
    lam = torch.tensor([start, 0.5], dtype=torch.float64, requires_grad=True)
    plan = Plan(torch.tensor([1, 0]), lam)
    soft = plan.targets(torch.tensor([[3.0, 0.0], [0.0, 5.0]], dtype=torch.float64))
    assert torch.autograd.grad(soft[0].sum(), lam)[0][0].item() == -2
    hard = plan.targets(torch.tensor([0, 1]), num_classes=2)
    assert torch.autograd.grad(hard[0, 1], lam)[0][0].item() == -1


def test_a_missing_target_of_a_row_that_keeps_nothing_leaves_no_trace():
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.0, 1.0]))
    y = torch.tensor([[math.nan, 0.0], [0.0, 5.0]])
    output = torch.zeros(2, 2, requires_grad=True)
    plan.loss(F.mse_loss, output, y).backward()
    assert output.grad.tolist() == [[0, -2.5], [0, -2.5]]


@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize(
    ("criterion", "y"),
    [
        (F.cross_entropy, torch.tensor([0, 2, 1])),
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.tensor([0, 2, 1])),
        (F.binary_cross_entropy_with_logits, torch.eye(3, dtype=torch.float64)),
        (F.nll_loss, torch.tensor([0, 2, 1])),
    ],
)
def test_the_derivative_of_the_loss_by_lam_is_there_at_its_ends_too(criterion, y, lam):
    output = torch.tensor([[2.0, 0, -1], [0, 1, 3], [1, 1, -2]], dtype=torch.float64)
    partner = torch.tensor([1, 2, 0])
    lams = torch.full((3,), lam, dtype=torch.float64, requires_grad=True)
    Plan(partner, lams).loss(criterion, output, y).backward()
    expected = []
    for row in range(3):  # the loss is linear in lam
        ends = torch.full((2, 3), lam, dtype=torch.float64)
        ends[:, row] = torch.tensor([0.0, 1.0])
        low, high = (Plan(partner, end).loss(criterion, output, y) for end in ends)
        expected.append(high - low)
    torch.testing.assert_close(lams.grad, torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_targets_of_a_narrow_type_are_rounded_once(dtype):
    chance = torch.Generator().manual_seed(0)
    y = torch.randn(64, dtype=torch.float64, generator=chance).to(dtype)
    plan = MixUp(1.0, per="example").draw(64, generator=chance)
    expected = plan.lam.double() * y.double() + (1 - plan.lam.double()) * y.double()[plan.partner]
    found = plan.targets(y)
    assert found.dtype == dtype
    # Half of the distance of two neighbors, and a little for the sum in float32.
    limit = torch.finfo(dtype).eps * 0.51 * expected.abs() + 1e-6
    assert bool(((found.double() - expected).abs() <= limit).all())


@pytest.mark.parametrize("function", [F.mse_loss, F.l1_loss, F.huber_loss])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_losses_of_real_values_are_those_of_pytorch(function, reduction):
    output = torch.tensor([[1.0, 5.0], [2.0, -3.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 1.0], [4.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 3.0], [1.0, 3.0]], dtype=torch.float64)
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.25, 0.75], dtype=torch.float64))
    criterion = functools.partial(function, weight=weight, reduction=reduction)
    expected = function(output, plan.targets(y), weight=weight, reduction=reduction)
    torch.testing.assert_close(plan.loss(criterion, output, y), expected)


@pytest.mark.parametrize("shapes", [((8, 8), (8,)), ((8, 3), (8, 1)), ((8, 1), (8,))])
def test_real_values_of_another_shape_than_the_output_raise_an_error(shapes):
    output, y = (torch.zeros(shape, dtype=torch.float32) for shape in shapes)
    with pytest.raises(ValueError, match=r"output: expected the shape of y"):
        MixUp(1.0).draw(8).loss(F.mse_loss, output, y)


def test_a_module_in_a_partial_function_raises_an_error():
    criterion = functools.partial(nn.CrossEntropyLoss())
    with pytest.raises(TypeError, match="has no argument reduction"):
        MixUp(1.0).draw(2).loss(criterion, torch.zeros(2, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("mode", ["own", "union"])
def test_the_loss_of_a_plan_of_narrow_shares_is_float32(mode):
    lam = torch.full((300,), 0.5, dtype=torch.bfloat16)
    plan = Plan(torch.arange(300).flip(0), lam, target_mode=mode)
    output = torch.randn(300, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    y = (output > 0.3).bfloat16()
    loss = plan.loss(F.binary_cross_entropy_with_logits, output.bfloat16(), y)
    assert loss.dtype == torch.float32


def test_an_impossible_class_without_a_share_leaves_the_gradient_finite():
    def focal(output, y, reduction="mean"):
        p = output.softmax(1).gather(1, y[:, None])[:, 0]
        return -((1 - p) ** 2) * p.log()

    output = torch.tensor([[200.0, 0], [0, 200]], dtype=torch.float32, requires_grad=True)
    plan = Plan(torch.tensor([1, 0]), torch.ones(2, dtype=torch.float32))
    loss = plan.loss(focal, output, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 0
    assert output.grad.tolist() == [[0, 0], [0, 0]]
