import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vicinal import Plan
from vicinal.generative import (
    author_plan,
    discriminator_loss,
    generator_loss,
    minimax_generator_loss,
    paper_plan,
)

REAL, GENERATED = torch.tensor([[2.0], [4.0]]), torch.tensor([[-1.0], [1.0]])
PLAN = Plan(torch.tensor([3, 2]), torch.tensor([0.75, 0.25]))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def bce(logit, target):
    """Return the binary cross-entropy, from its definition."""
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 1, 1, 1)])
def test_the_mixed_loss_is_that_of_a_hand_calculation(shape):
    # 0.75 * 2 + 0.25 * 1 = 1.75 and 0.25 * 4 + 0.75 * -1 = 0.25
    loss = discriminator_loss(lambda x: (x - 1).reshape(shape), REAL, GENERATED, PLAN)
    assert loss.item() == pytest.approx((bce(0.75, 0.75) + bce(-0.75, 0.25)) / 2)


def test_the_loss_has_a_term_for_each_logit_of_a_row():
    loss = discriminator_loss(lambda x: torch.cat([x, -x], 1), REAL, GENERATED, PLAN)
    terms = [bce(1.75, 0.75), bce(-1.75, 0.75), bce(0.25, 0.25), bce(-0.25, 0.25)]
    assert loss.item() == pytest.approx(sum(terms) / 4)


def test_without_a_plan_it_is_the_plain_loss():
    loss = discriminator_loss(lambda x: x, REAL, GENERATED)
    terms = [bce(2, 1), bce(4, 1), bce(-1, 0), bce(1, 0)]
    assert loss.item() == pytest.approx(sum(terms) / 4)


def test_with_lam_one_it_is_the_plain_loss_of_the_real_rows():
    plan = Plan(torch.tensor([2, 3]), torch.ones(2))
    loss = discriminator_loss(lambda x: x, REAL, GENERATED, plan)
    torch.testing.assert_close(loss, F.softplus(-REAL).mean())


def test_with_lam_one_the_plan_of_the_author_changes_nothing():
    plan = author_plan(2, share=0, generator=rng())
    assert plan.lam.tolist() == [1, 1, 1, 1]
    mixed = discriminator_loss(lambda x: x, REAL, GENERATED, plan)
    torch.testing.assert_close(mixed, discriminator_loss(lambda x: x, REAL, GENERATED))


def test_the_plan_of_the_paper_blends_every_real_row_with_another_generated_one():
    plan = paper_plan(500, alpha=0.2, generator=rng())
    assert sorted(plan.partner.tolist()) == list(range(500, 1000))
    # Beta(0.2, 0.2) has mean 1 / 2 and variance 1 / (4 * 1.4), and each row has its own.
    assert plan.lam.mean().item() == pytest.approx(0.5, abs=0.06)
    assert plan.lam.var().item() == pytest.approx(1 / 5.6, abs=0.02)
    assert len(plan.lam.unique()) > 400


def test_with_alpha_zero_the_plan_of_the_paper_has_unmixed_rows_of_both_kinds():
    lam = paper_plan(200, alpha=0, generator=rng()).lam
    assert set(lam.tolist()) == {0.0, 1.0}
    assert 60 < lam.sum() < 140


def test_the_plan_of_the_author_blends_rows_of_the_pool_by_small_shares():
    plan = author_plan(500, share=0.2, generator=rng())
    assert sorted(plan.partner.tolist()) == list(range(1000))
    assert plan.lam.min() >= 0.8
    assert plan.lam.mean().item() == pytest.approx(0.9, abs=0.01)
    both_real = (plan.partner[:500] < 500).sum()
    assert 200 < both_real < 300


def test_one_seed_gives_one_plan():
    for draw in (paper_plan, author_plan):
        first, again, other = (draw(20, generator=rng(seed)) for seed in (1, 1, 2))
        assert torch.equal(first.lam, again.lam)
        assert torch.equal(first.partner, again.partner)
        assert not torch.equal(first.lam, other.lam)


@pytest.mark.parametrize("plan", [None, PLAN, author_plan(2)])
def test_the_loss_of_the_discriminator_reaches_no_generator(plan):
    generator, discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
    discriminator_loss(discriminator, REAL, generator(GENERATED), plan).backward()
    assert generator.weight.grad is None
    assert discriminator.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("plan", [None, PLAN, author_plan(2)])
def test_the_minimax_loss_is_minus_that_of_the_discriminator_and_reaches_the_generator(plan):
    generator, discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
    loss = minimax_generator_loss(discriminator, REAL, generator(GENERATED), plan)
    loss.backward()
    assert generator.weight.grad.abs().sum() > 0
    same = discriminator_loss(discriminator, REAL, generator(GENERATED), plan)
    torch.testing.assert_close(loss, -same)


def test_the_minimax_gradient_under_a_plan_is_that_of_a_hand_calculation():
    generated = GENERATED.clone().requires_grad_()
    minimax_generator_loss(lambda x: x, REAL, generated, PLAN).backward()
    # The derivative of bce(s, y) is sigmoid(s) - y; a partner has the share 1 - lam.
    expected = [[-0.75 / 2 * (0.5621765 - 0.25)], [-0.25 / 2 * (0.8519528 - 0.75)]]
    torch.testing.assert_close(generated.grad, torch.tensor(expected))


def test_the_non_saturating_loss_takes_all_rows_as_real_and_does_not_vanish():
    generated = torch.tensor([[-20.0], [1.0]], requires_grad=True)
    loss = generator_loss(lambda x: x, generated)
    assert loss.item() == pytest.approx((bce(-20, 1) + bce(1, 1)) / 2)
    loss.backward()
    assert generated.grad[0].item() == pytest.approx(-0.5)
    saturated = generated.detach().requires_grad_()
    minimax_generator_loss(lambda x: x, torch.zeros(2, 1), saturated).backward()
    assert abs(saturated.grad[0].item()) < 1e-8


def test_the_losses_of_images_in_half_precision_are_finite():
    real, generated = torch.rand(2, 4, 3, 8, 8).bfloat16()
    network = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten()).bfloat16()
    loss = discriminator_loss(network, real, generated, paper_plan(4))
    assert loss.isfinite()


def test_what_does_not_fit_is_an_error_that_says_so():
    with pytest.raises(ValueError, match=r"generated: expected rows like the real ones, \(2, 1\)"):
        discriminator_loss(lambda x: x, REAL, GENERATED[:1])
    with pytest.raises(ValueError, match=r"paper_plan\(2\), got one with 3 rows"):
        discriminator_loss(lambda x: x, REAL, GENERATED, paper_plan(3))
    for plan in (paper_plan(4), author_plan(1)):
        with pytest.raises(ValueError, match=r"plan: expected one for 2 real rows whose partners"):
            discriminator_loss(lambda x: x, REAL, GENERATED, plan)
    with pytest.raises(ValueError, match=r"expected logits of 2 rows, got shape \(\)"):
        generator_loss(lambda x: x.mean(), GENERATED)
    with pytest.raises(ValueError, match="expected share from 0 to 1, got 2"):
        author_plan(4, share=2)
    with pytest.raises(ValueError, match="expected alpha from 0 to infinity, got -1"):
        paper_plan(4, alpha=-1)


def test_generated_rows_of_autocast_are_mixed_in_the_type_of_the_real_ones():
    torch.manual_seed(0)
    real, network = torch.randn(8, 2, dtype=torch.float32), nn.Linear(2, 1, dtype=torch.float32)
    generated, plan = torch.randn(8, 2).bfloat16(), paper_plan(8)
    expected = discriminator_loss(network, real, generated.float(), plan)
    assert torch.equal(discriminator_loss(network, real, generated, plan), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = discriminator_loss(network, real, generated, plan)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match=r"got \(8, 2\) torch.float64\. Convert"):
        discriminator_loss(network, real, generated.double(), plan)


def test_a_discriminator_that_ends_in_a_sigmoid_is_an_error():
    network = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid())
    with pytest.raises(ValueError, match="expected logits, got the result of a sigmoid"):
        discriminator_loss(network, REAL, GENERATED, PLAN)


@pytest.mark.parametrize(
    "shape",
    [
        lambda p: p.view(-1),
        lambda p: p.squeeze(1).unsqueeze(1),
        lambda p: p.flatten(),
        lambda p: p[:, 0],
        lambda p: p[..., -1],
        lambda p: p.mean(1),
        lambda p: p.clamp(1e-6, 1 - 1e-6),
        lambda p: p.clone(),
        lambda p: p.T.T,
        lambda p: torch.cat([p]),
    ],
)
def test_a_sigmoid_is_noticed_behind_a_change_of_shape(shape):
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    with pytest.raises(ValueError, match="expected logits, got the result of a sigmoid"):
        discriminator_loss(lambda x: shape(model(x)), torch.ones(4, 2), torch.zeros(4, 2))


def test_targets_are_not_rounded_to_the_type_of_the_logits():
    plan = Plan(torch.tensor([2, 3]), torch.tensor([0.998, 0.998]))
    real, generated = torch.ones(2, 1), torch.zeros(2, 1)
    logit = 3.0
    exact = 0.998 * math.log1p(math.exp(-logit)) + 0.002 * math.log1p(math.exp(logit))
    loss = discriminator_loss(lambda x: (0 * x + logit).bfloat16(), real, generated, plan)
    assert loss.item() == pytest.approx(exact, rel=1e-5)
