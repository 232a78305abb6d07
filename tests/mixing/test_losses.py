import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import MixUp


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
def test_the_ignored_side_gives_its_share_to_the_other(batch, criterion):
    plan, output, y = batch
    y = y.clone()
    y[0] = y[plan.partner[0]] = 4
    total, counted = 0.0, 0
    for i in range(16):
        sides = [(plan.lam[i].double(), y[i]), (1 - plan.lam[i].double(), y[plan.partner[i]])]
        sides = [(share, k) for share, k in sides if k != 4]
        if sides:
            counted += 1
            whole = sum(share for share, _ in sides)
            total -= sum(share / whole * output[i].log_softmax(0)[k] for share, k in sides)
    assert 0 < counted < 16
    torch.testing.assert_close(plan.loss(criterion, output, y), total / counted)


def test_any_criterion_works_by_reduction_none(batch):
    plan, output, _ = batch
    real = torch.randn(16, 5, dtype=torch.float64)
    lam = plan.lam.double()[:, None]
    expected = (lam * (output - real) ** 2 + (1 - lam) * (output - real[plan.partner]) ** 2).mean()
    torch.testing.assert_close(plan.loss(F.mse_loss, output, real), expected)
    torch.testing.assert_close(plan.loss(nn.MSELoss(), output, real), expected)
    assert plan.loss(nn.MSELoss(reduction="none"), output, real).shape == (16, 5)
    summed = plan.loss(nn.MSELoss(reduction="sum"), output, real)
    torch.testing.assert_close(summed, expected * 16 * 5)


def test_the_criterion_is_left_as_it_was(batch):
    plan, output, y = batch
    criterion = nn.CrossEntropyLoss()
    plan.loss(criterion, output, y)
    assert criterion.reduction == "mean"


def test_a_criterion_that_cannot_answer_per_example_is_refused(batch):
    plan, output, y = batch

    def plain(output, y):
        return F.cross_entropy(output, y)

    def deaf(output, y, reduction):
        return F.cross_entropy(output, y)

    with pytest.raises(TypeError, match=r'plain takes no reduction="none"'):
        plan.loss(plain, output, y)
    with pytest.raises(TypeError, match='Identity has no "reduction"'):
        plan.loss(nn.Identity(), output, y)
    with pytest.raises(ValueError, match=r"batch size 16.*answered with shape \(\)"):
        plan.loss(deaf, output, y)


def test_the_loss_has_the_gradient_of_the_soft_label_loss(batch):
    plan, output, y = batch
    output.requires_grad_()
    pair = torch.autograd.grad(plan.loss(F.cross_entropy, output, y), output)[0]
    soft_loss = F.cross_entropy(output, plan.targets(y, num_classes=5).double())
    torch.testing.assert_close(
        pair, torch.autograd.grad(soft_loss, output)[0], rtol=1e-6, atol=1e-8
    )
