import math

import numpy as np
import pytest
import torch
from scipy import stats

from vicinal import MixUp, Reverse
from vicinal.mixing.policies import draw_beta


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lam_follows_the_beta_distribution(alpha, seed):
    drawn = draw_beta(alpha, 3000, seeded(seed)).numpy()
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_lam_of_a_plan_follows_the_beta_distribution_where_float32_can_tell(alpha):
    # Above one half float32 rounds what Beta(0.1, 0.1) puts next to 1: ask the lower half.
    lam = MixUp(alpha, per="example").draw(6000, generator=seeded(5)).lam.double().numpy()
    lower = lam[lam < 0.5]
    assert stats.binomtest(len(lower), len(lam)).pvalue > 0.01
    assert stats.kstest(lower, lambda t: 2 * stats.beta(alpha, alpha).cdf(t)).pvalue > 0.01


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e6])
def test_extreme_alphas_give_finite_shares_of_the_right_spread(alpha):
    drawn = draw_beta(alpha, 4000, seeded()).numpy()
    assert np.isfinite(drawn).all()
    assert drawn.std() == pytest.approx(stats.beta(alpha, alpha).std(), rel=0.05)


def test_alpha_zero_leaves_the_batch_bit_identical():
    x = torch.randn(64, 3, generator=seeded())
    x[0, 0], x[1, 1] = float("inf"), -0.0
    plan = MixUp(alpha=0).draw(64, generator=seeded())
    assert torch.equal(plan.mix(x).view(torch.int32), x.view(torch.int32))


def test_alpha_infinite_is_half_and_half():
    assert MixUp(math.inf).draw(3).lam.tolist() == [0.5, 0.5, 0.5]


def test_one_lam_a_batch_or_one_an_example():
    assert len(MixUp(1.0).draw(16, generator=seeded()).lam.unique()) == 1
    assert len(MixUp(1.0, per="example").draw(16, generator=seeded()).lam.unique()) == 16


def test_pairs_share_a_lam_and_odd_ones_have_their_own():
    plan = MixUp(1.0, per="pair", pairing=Reverse()).draw(7, generator=seeded())
    assert torch.equal(plan.lam, plan.lam.flip(0))
    assert len(plan.lam.unique()) == 4


def test_a_permutation_decides_the_partners():
    partner = MixUp(1.0).draw(100, generator=seeded()).partner
    assert sorted(partner.tolist()) == list(range(100))
    assert not torch.equal(partner, torch.arange(100))


def test_mix_rate_leaves_the_rest_as_it_is():
    plan = MixUp(1.0, mix_rate=0.7, per="example").draw(10, generator=seeded())
    assert sorted(plan.partner[:7].tolist()) == list(range(7))
    assert plan.partner[7:].tolist() == [7, 8, 9]
    assert plan.lam[7:].tolist() == [1, 1, 1]
    assert bool((plan.lam[:7] < 1).all())


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_every_batch_size_works(size):
    x = torch.rand(size, 2)
    for policy in (MixUp(1.0), MixUp(1.0, per="pair"), MixUp(1.0, 0.5, pairing=Reverse())):
        assert policy.draw(size).mix(x).shape == x.shape


def test_a_seed_replays_the_draw():
    first, again, other = (
        MixUp(1.0, per="example").draw(9, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.lam, again.lam)
    assert torch.equal(first.partner, again.partner)
    assert not torch.equal(first.lam, other.lam)


def test_without_a_generator_torch_manual_seed_alone_replays_the_draw():
    lams = []
    for _ in range(2):
        torch.manual_seed(7)
        lams.append(MixUp(0.4).draw(4).lam)
    assert torch.equal(*lams)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": -1}, "alpha from 0 to infinity, got -1"),
        ({"alpha": math.nan}, "got nan"),
        ({"alpha": 1, "mix_rate": 1.5}, "from 0 to 1, got 1.5"),
        ({"alpha": 1, "per": "elem"}, "got 'elem'"),
    ],
)
def test_values_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MixUp(**arguments)
