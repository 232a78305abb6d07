import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch._subclasses import FakeTensorMode

from vicinal import (
    ColumnCutMix,
    CutMix,
    DirichletMixUp,
    FMix,
    MixedInside,
    MixUp,
    MixUpLayer,
    Nearest,
    OneOf,
    OtherBatch,
    RegMixUp,
    ResizeMix,
    Reverse,
)
from vicinal.mixing.clean_and_mixed import CleanAndMixed
from vicinal.mixing.sampling import draw_beta


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 8.0, (2.0, 1.0), (0.5, 3.0)])
def test_beta_variables_are_quotients_of_the_gamma_variables_that_were_drawn(alpha):
    first, second = alpha if isinstance(alpha, tuple) else (alpha, alpha)
    generator = seeded(3)
    rows = (torch.tensor([first, second], dtype=torch.float64)[:, None] + 1).expand(2, 50)
    if isinstance(alpha, tuple):  # one after the other
        drawn = [
            (
                torch._standard_gamma(row.contiguous(), generator),
                torch.rand(50, dtype=torch.float64, generator=generator),
            )
            for row in rows
        ]
        gamma, uniform = (np.stack(both) for both in zip(*drawn, strict=True))
    else:
        gamma = torch._standard_gamma(rows.contiguous(), generator).numpy()
        uniform = torch.rand(2, 50, dtype=torch.float64, generator=generator).numpy()
    a, b = gamma * uniform ** (1 / np.array([[first], [second]]))
    beta = draw_beta(alpha, 50, seeded(3))
    assert beta.dtype == torch.float64
    np.testing.assert_allclose(beta.numpy(), a / (a + b), rtol=1e-12)


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


@pytest.mark.parametrize("alpha", [1e-310, 1e-200])
def test_alphas_too_small_to_divide_by_give_whole_shares_of_both_kinds(alpha):
    drawn = draw_beta(alpha, 400, seeded())
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert stats.binomtest(int(drawn.sum()), 400).pvalue > 0.01


def test_alpha_zero_leaves_the_batch_bit_identical():
    x = torch.randn(64, 3, generator=seeded(), dtype=torch.float32)
    x[0, 0], x[1, 1] = float("inf"), -0.0
    plan = MixUp(alpha=0).draw(64, generator=seeded())
    assert torch.equal(plan.mix(x).view(torch.int32), x.view(torch.int32))


def test_alpha_infinite_is_half_and_half():
    assert MixUp(math.inf).draw(3).lam.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("per", ["batch", "example"])
def test_a_plan_is_drawn_where_tensors_have_no_values(per):
    with FakeTensorMode():
        plan = MixUp(1.0, per=per).draw(8)
        assert plan.mix(torch.rand(8, 3, dtype=torch.float32)).shape == (8, 3)


def test_shares_are_drawn_where_tensors_have_no_memory():
    torch._enable_functionalization(reapply_views=True)
    try:
        plan = MixUp(1.0).draw(4)
    finally:
        torch._disable_functionalization()
    assert plan.lam.shape == (4,)


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
    x = torch.rand(size, 2, dtype=torch.float32)
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
def test_values_out_of_range_raise_an_error(arguments, words):
    with pytest.raises(ValueError, match=words):
        MixUp(**arguments)


@pytest.mark.parametrize("alpha", [(2.0, 1.0), (0.5, 3.0)])
def test_two_alphas_draw_from_the_asymmetric_beta_distribution(alpha):
    drawn = draw_beta(alpha, 3000, seeded(1)).numpy()
    assert stats.kstest(drawn, stats.beta(*alpha).cdf).pvalue > 0.01


def test_the_larger_share_is_kept_where_that_is_asked_for():
    plain = MixUp(1.0, per="example").draw(50, generator=seeded(2)).lam
    larger = MixUp(1.0, per="example", keep_larger=True).draw(50, generator=seeded(2)).lam
    assert torch.equal(larger, torch.maximum(plain, 1 - plain))
    assert bool((plain < 0.5).any())


def test_dirichlet_shares_follow_the_beta_distribution_of_their_margins():
    plan = DirichletMixUp(0.7, parents=4, per="example").draw(3000, generator=seeded(3))
    margin = stats.beta(0.7, 2.1).cdf
    for share in (plan.lam, *plan.shares):
        assert stats.kstest(share.double().numpy(), margin).pvalue > 0.01


def test_cutmix_shows_one_box_and_counts_what_the_edge_cuts_off():
    clipped = 0
    for seed in range(40):
        plan = CutMix(1.0).draw(4, generator=seeded(seed), image_size=(20, 30))
        (mask,) = plan.region
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        area = int(mask.sum())
        assert area == len(rows) * len(columns)
        if area:
            assert area == int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
        torch.testing.assert_close(plan.lam, torch.full((4,), 1 - area / 600, dtype=torch.float32))
        clipped += int(area > 0 and (int(rows[0]) == 0 or int(columns[0]) == 0))
    assert clipped > 3


def test_cutmix_boxes_that_are_not_cut_off_have_the_area_that_was_drawn():
    # The permutation is drawn first, then lam.
    generator = seeded(1)
    torch.randperm(2, generator=generator)
    lam = float(draw_beta(8.0, 1, generator))
    plan = CutMix(8.0).draw(2, generator=seeded(1), image_size=(1000, 1000))
    side = math.sqrt(1 - lam) * 1000
    rows = int(plan.region[0].any(1).sum())
    columns = int(plan.region[0].any(0).sum())
    assert max(rows, columns) <= round(side)
    assert rows == round(side) or rows < side  # cut off above or below


def test_cutmix_centers_fall_everywhere_with_the_same_chance():
    generator = seeded(7)
    hits = torch.zeros(6, 6, dtype=torch.float32)
    policy = CutMix(1000.0)  # lam close to one half: sides of about 0.7
    for _ in range(600):
        hits += policy.draw(1, generator=generator, image_size=(6, 6)).region[0]
    assert torch.allclose(hits, hits.flip(0), rtol=0.25)
    assert float(hits[0, 0]) < float(hits[3, 3])


@pytest.mark.parametrize("sizes", [(1000,), (1, 1000), (1000, 1)])
def test_cutmix_cuts_a_segment_out_of_a_signal(sizes):
    plan = CutMix(1.0, per="example").draw(400, generator=seeded(2), image_size=sizes)
    shown = plan.region.reshape(400, 1000)
    changes = (shown[:, 1:] != shown[:, :-1]).sum(1)
    assert int(changes.max()) <= 2  # one segment, or one that the end cuts off
    torch.testing.assert_close(plan.lam, 1 - shown.float().mean(1))
    assert float((plan.lam == 1).double().mean()) < 0.01
    assert float(((plan.lam > 0.75) & (plan.lam < 1)).double().mean()) > 0.2


def test_cutmix_cuts_a_box_out_of_a_volume_with_sides_that_fit_its_share():
    # Beta(8, 8) is near one half, so that the sides take about 0.8 of those of the volume.
    plan = CutMix(8.0, per="example").draw(200, generator=seeded(3), image_size=(20, 30, 40))
    for mask, lam in zip(plan.region, plan.lam, strict=True):
        inside = mask.nonzero()
        lengths = inside.max(0).values - inside.min(0).values + 1
        assert int(lengths.prod()) == int(mask.sum())
        assert float(lam) == pytest.approx(1 - int(mask.sum()) / 24_000)
    whole = plan.region[:, 1:-1, 1:-1, 1:-1]  # boxes that no side of the volume cuts off
    free = [k for k in range(200) if int(whole[k].sum()) == int(plan.region[k].sum())]
    for k in free:
        inside = plan.region[k].nonzero()
        lengths = (inside.max(0).values - inside.min(0).values + 1).double()
        torch.testing.assert_close(
            lengths / torch.tensor([20.0, 30.0, 40.0], dtype=torch.float64),
            (1 - plan.lam[k].double()).pow(1 / 3).expand(3),
            rtol=0,
            atol=0.04,
        )


@pytest.mark.parametrize("sizes", [(7,), (5, 6), (4, 5, 6), (2, 3, 4, 5)])
def test_a_cutmix_blend_has_lam_of_its_own_values_in_any_number_of_dimensions(sizes):
    plan = CutMix(1.0, per="example").draw(6, generator=seeded(4), image_size=sizes)
    x = torch.eye(6, dtype=torch.float32).reshape(6, 6, *[1] * len(sizes)).expand(6, 6, *sizes)
    shares = plan.mix(x).flatten(2).mean(2)
    expected = torch.diag(plan.lam)
    expected[torch.arange(6), plan.partner] += 1 - plan.lam
    torch.testing.assert_close(shares, expected)


@pytest.mark.parametrize("policy", [FMix(), ResizeMix()], ids=str)
@pytest.mark.parametrize("sizes", [(9,), (4, 5, 6)])
def test_policies_for_images_refuse_signals_and_volumes(policy, sizes):
    with pytest.raises(ValueError, match=r"\(height, width\), got .*CutMix"):
        policy.draw(3, image_size=sizes)


def test_resizemix_refuses_complex_values():
    plan = ResizeMix().draw(2, image_size=(6, 6))
    with pytest.raises(TypeError, match="real values, which ResizeMix can interpolate"):
        plan.mix(torch.zeros(2, 1, 6, 6, dtype=torch.complex64))


def test_resizemix_boxes_lie_inside_with_sides_in_the_range():
    for seed in range(40):
        plan = ResizeMix((0.2, 0.6)).draw(3, generator=seeded(seed), image_size=(20, 50))
        rows, columns = plan.region[0].any(1).sum(), plan.region[0].any(0).sum()
        assert 4 <= int(rows) <= 12
        assert 10 <= int(columns) <= 30
        torch.testing.assert_close(
            plan.lam, torch.full((3,), 1 - float(rows * columns) / 1000, dtype=torch.float32)
        )


def test_resizemix_shows_the_whole_partner_made_smaller():
    ramp = torch.linspace(0, 1, 16, dtype=torch.float32)
    picture = (ramp[:, None] + 2 * ramp[None]).expand(1, 1, -1, -1)
    other = picture + 0.0
    plan = ResizeMix((0.5, 0.5)).draw(1, generator=seeded(), image_size=(16, 16))
    mixed = plan.mix(torch.full_like(picture, -1), other=other)
    shown = mixed[plan.region[:, None]].reshape(8, 8)
    expected = torch.nn.functional.interpolate(other, (8, 8), mode="bilinear")[0, 0]
    torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-4)
    assert bool((mixed[~plan.region[:, None]] == -1).all())


def test_fmix_shows_the_exact_share_in_connected_clouds():
    plan = FMix(1.0, per="example").draw(30, generator=seeded(4), image_size=(32, 32))
    shares = 1 - plan.region.flatten(1).double().mean(1)
    torch.testing.assert_close(plan.lam.double(), shares, rtol=1e-6, atol=1e-7)
    rough = FMix(1.0, decay=0.0, per="example").draw(30, generator=seeded(4), image_size=(32, 32))

    def edges(region):
        return float((region[:, 1:] != region[:, :-1]).double().mean())

    assert edges(plan.region) < edges(rough.region) / 3


@pytest.mark.parametrize("side", [16, 17])
def test_turning_a_square_changes_no_statistic_of_fmix(side):
    plan = FMix(0.7, per="example").draw(3000, generator=seeded(6), image_size=(side, side))
    masks = plan.region[(plan.lam > 0.2) & (plan.lam < 0.8)]

    def lines_of_one_color(masks):
        return ((masks.all(2) | ~masks.any(2)).double().mean(1)).mean()

    def edges(masks):
        return (masks[:, 1:] != masks[:, :-1]).double().mean()

    turned = masks.rot90(dims=(1, 2))
    assert float(lines_of_one_color(masks)) > 0.02
    torch.testing.assert_close(
        lines_of_one_color(masks), lines_of_one_color(turned), rtol=0.12, atol=0
    )
    torch.testing.assert_close(edges(masks), edges(turned), rtol=0.05, atol=0)


def test_fmix_noise_has_the_spectrum_of_the_paper():
    # The paper filters complex noise of the whole plane and takes the real part.
    side, decay = 12, 3.0
    frequency = torch.hypot(*torch.meshgrid([torch.fft.fftfreq(side)] * 2, indexing="ij"))
    scale = frequency.clamp_min(1 / side) ** -decay
    noise = torch.complex(
        *torch.randn(2, 20_000, side, side, generator=seeded(1), dtype=torch.float32)
    )
    gray = torch.fft.ifft2(noise * scale).real
    theirs = gray > gray.flatten(1).median(1).values[:, None, None]
    plan = FMix(math.inf, decay=decay, per="example").draw(
        20_000, generator=seeded(2), image_size=(side, side)
    )

    def agreement(masks, down, across):
        return float((masks == masks.roll((down, across), (1, 2))).double().mean())

    for shift in [(0, 1), (1, 0), (1, 1), (0, 3), (3, 0), (6, 6), (2, 5)]:
        assert agreement(plan.region, *shift) == pytest.approx(agreement(theirs, *shift), abs=0.005)


def test_fmix_lam_follows_the_beta_distribution_up_to_whole_pixels():
    plan = FMix(1.0, per="example").draw(500, generator=seeded(5), image_size=(40, 40))
    assert stats.kstest(plan.lam.double().numpy(), "uniform").pvalue > 0.01


def test_pairs_share_their_box():
    plan = CutMix(1.0, per="pair", pairing=Reverse()).draw(7, generator=seeded(), image_size=(9, 9))
    assert torch.equal(plan.region, plan.region.flip(0))
    assert len({tuple(one.flatten().tolist()) for one in plan.region}) == 4


def test_one_of_draws_each_policy_as_often_as_it_should():
    policy = OneOf([MixUp(1.0), None, CutMix(1.0)], [0.5, 0.3, 0.2])
    generator = seeded(6)
    counts = [0, 0, 0]
    for _ in range(500):
        plan = policy.draw(4, generator=generator, image_size=(4, 4))
        kind = 2 if plan.region is not None else 1 if bool((plan.lam == 1).all()) else 0
        counts[kind] += 1
    assert stats.chisquare(counts, [250, 150, 100]).pvalue > 0.01


def test_regmixup_adds_the_loss_of_the_blends_to_that_of_the_clean_batch():
    plan = RegMixUp(MixUp(1.0), weight=0.3).draw(5, generator=seeded())
    x, y = torch.rand(5, 3, dtype=torch.float32), torch.tensor([0, 1, 2, 1, 0])
    assert torch.equal(plan.mix(x), torch.cat([x, plan.plan.mix(x)]))
    scores = torch.randn(10, 3, generator=seeded(1), dtype=torch.float32)
    expected = F.cross_entropy(scores[:5], y)
    expected += 0.3 * F.cross_entropy(scores[5:], plan.plan.targets(y, num_classes=3))
    torch.testing.assert_close(plan.loss(F.cross_entropy, scores, y), expected)
    perfect = F.one_hot(y, 3).float()
    right = plan.accuracy(torch.cat([perfect, perfect]), y).item()
    expected = (1 + plan.plan.accuracy(perfect, y).item()) / 2
    assert right == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"expected 10 rows.*got shape \(5, 3\)"):
        plan.loss(F.cross_entropy, scores[:5], y)


def test_drawing_in_the_workers_of_a_loader_is_decided_by_the_seed_alone():
    def epoch():
        torch.manual_seed(5)
        loader = torch.utils.data.DataLoader(
            torch.arange(12.0, dtype=torch.float32), 4, num_workers=2, collate_fn=Collate()
        )
        return torch.cat(list(loader))

    first = epoch()
    assert torch.equal(first, epoch())
    assert len(first.unique()) == 3


class Collate:
    """Answer with the lam that a worker drew for a batch."""

    def __call__(self, rows):
        return MixUp(1.0).draw(len(rows)).lam


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MixUp((1.0, 0.0)), r"two finite numbers above 0.*\(1\.0, 0\.0\)"),
        (lambda: CutMix(-1.0), "CutMix: expected alpha from 0 to infinity"),
        (lambda: CutMix(1.0, per="elem"), "CutMix: expected per=.*got 'elem'"),
        (lambda: ResizeMix(0.5), r"\(lowest, highest\) from 0 to 1, got 0\.5"),
        (lambda: DirichletMixUp((1.0, 2.0)), r"finite alpha above 0, got \(1\.0, 2\.0\)"),
        (lambda: ResizeMix((0.8, 0.1)), r"\(lowest, highest\) from 0 to 1, got \(0\.8, 0\.1\)"),
        (lambda: FMix(decay=-1.0), "a finite decay of 0 or more, got -1.0"),
        (lambda: DirichletMixUp(0.0), "finite alpha above 0, got 0.0"),
        (lambda: DirichletMixUp(1.0, parents=1), "2 parents or more, got 1"),
        (lambda: DirichletMixUp(1.0, per="pair"), "got 'pair'"),
        (lambda: RegMixUp(MixUp(1.0), weight=-1.0), "weight of 0 or more, got -1.0"),
        (lambda: OneOf([]), "at least one policy, got none"),
        (lambda: OneOf([None, None], [0.5, 0.6]), r"2 probabilities that sum to one, got \[0\.5"),
        (lambda: OneOf([None, None], [1.0]), "2 probabilities"),
        (lambda: CutMix(1.0).draw(4), r"CutMix: expected image_size.*image_size=x\.shape\[2:\]"),
        (
            lambda: FMix(1.0).draw(4, image_size=(3, 0)),
            r"as \(height, width\), .* from 1 .*got \(3, 0\)",
        ),
        (lambda: MixUp(1.0).draw(-1), "0 or more, got -1"),
    ],
)
def test_invalid_settings_raise_an_error_that_names_them(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_numbers_of_numpy_are_settings_and_sizes_as_good_as_others():
    policy = MixUp(np.int64(1), mix_rate=np.float32(0.5), pairing=Nearest(np.int64(2)))
    plan = policy.draw(np.int64(4), features=torch.arange(4.0))
    assert len(plan) == 4
    assert plan.lam[2:].tolist() == [1, 1]


@pytest.mark.parametrize("policy", [MixUp, 10.0, None])
def test_regmixup_of_something_else_than_a_policy_raises_an_error(policy):
    with pytest.raises(TypeError, match="RegMixUp: expected a policy such as MixUp"):
        RegMixUp(policy)


def test_a_batch_instead_of_its_size_raises_an_error():
    with pytest.raises(TypeError, match=r"number of examples, got Tensor\. Pass len\(x\)"):
        MixUp(1.0).draw(torch.rand(4, 3, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.complex64, torch.bfloat16])
def test_a_batch_without_a_policy_stays_as_it_is_whatever_its_type(dtype):
    plan = OneOf([None]).draw(3)
    x = torch.arange(6).reshape(3, 2).to(dtype)
    mixed = plan.mix(x)
    assert mixed.dtype == dtype
    assert torch.equal(mixed, x)
    assert mixed.data_ptr() != x.data_ptr()
    assert plan.mix_(x) is x
    assert torch.equal(plan[1:].mix(x[1:], other=x), x[1:])
    assert torch.equal(plan.mix(x, other=x[:1]), x)


def test_a_batch_without_a_policy_keeps_infinite_logits_and_missing_targets_in_their_rows():
    inf, nan = torch.inf, torch.nan
    plan = OneOf([None]).draw(3)
    output = torch.tensor([[2.0, 1.0, -inf], [-inf, 1.0, 3.0], [1.0, -inf, 0.0]])
    y = torch.tensor([1, 2, 0])
    torch.testing.assert_close(plan.loss(F.cross_entropy, output, y), F.cross_entropy(output, y))
    mse, known = functools.partial(F.mse_loss, reduction="none"), torch.tensor([nan, 1.0, 2.0])
    assert plan.loss(mse, torch.zeros(3), known)[1:].tolist() == [1, 4]
    assert plan.targets(known)[1:].tolist() == [1, 2]


def test_partners_in_a_second_batch_are_never_taken_from_the_first():
    policy, model = MixUp(1.0, pairing=OtherBatch(4)), nn.Linear(3, 2)
    x, y, plan = torch.rand(4, 3), torch.tensor([0, 1, 0, 1]), policy.draw(4)
    output, mixed = model(x), MixedInside(model, policy, at=["input"])
    for call in (
        lambda: plan.mix(x),
        lambda: plan.mix_(x),
        lambda: plan.targets(y, 2),
        lambda: plan.loss(F.cross_entropy, output, y),
        lambda: plan.accuracy(output, y),
        lambda: mixed(x, plan, at="input"),
        lambda: MixUpLayer(policy, 2)(x, y),
    ):
        with pytest.raises(ValueError, match="other: expected the second batch"):
            call()
    assert plan.loss(F.cross_entropy, output, y, other=y).dim() == 0


@pytest.mark.parametrize("odds", [np.array([0.0, 1.0]), torch.tensor([0.0, 1.0])])
def test_probabilities_of_policies_may_be_an_array(odds):
    assert (
        not OneOf([MixUp(1.0), None], probabilities=odds)
        .draw(4)
        .mix(torch.eye(4))
        .ne(torch.eye(4))
        .any()
    )


@pytest.mark.parametrize(("decay", "size"), [(16.0, 224), (100.0, 64)])
def test_regions_of_the_lowest_frequencies_are_still_random(decay, size):
    policy = FMix(math.inf, decay=decay)
    masks = {policy.draw(1, image_size=(size, size)).region.numpy().tobytes() for _ in range(6)}
    assert len(masks) > 4


def test_shares_of_many_parents_are_never_negative():
    generator = torch.Generator().manual_seed(0)
    for parents in (6, 9, 12):
        for _ in range(60):
            plan = DirichletMixUp(0.05, parents=parents).draw(128, generator=generator)
            assert plan.targets(torch.arange(128) % 10, 10).min() >= 0


def test_an_own_policy_within_regmixup_may_name_its_size_as_it_likes():
    class Own:
        def draw(self, count, *, generator=None, y=None, features=None, image_size=None):
            return MixUp(1.0).draw(count, generator=generator)

    assert len(RegMixUp(Own()).draw(6).plan) == 6


def test_a_shrunk_image_of_bytes_is_not_rounded_if_a_floating_point_type_is_asked_for():
    plan = ResizeMix((0.5, 0.5), pairing=Reverse()).draw(2, image_size=(2, 2))
    x = torch.tensor([[[[9, 9], [9, 9]]], [[[0, 1], [0, 1]]]], dtype=torch.uint8)
    assert sorted(plan.mix(x, dtype=torch.float32)[0].flatten().tolist()) == [0.5, 9, 9, 9]
    assert torch.equal(plan.mix(x, dtype=torch.float32), plan.mix(x.float()))


@pytest.mark.parametrize("policy", [CutMix(1.0), FMix(), ResizeMix(), MixUp(1.0)], ids=str)
def test_blends_keep_the_memory_format(policy):
    plan = policy.draw(4, image_size=(8, 8))
    for memory_format in (torch.channels_last, torch.contiguous_format):
        x = torch.rand(4, 3, 8, 8).to(memory_format=memory_format)
        assert plan.mix(x).is_contiguous(memory_format=memory_format)
        assert plan.mix(x, x.contiguous()).is_contiguous(memory_format=memory_format)


def test_one_of_refuses_at_once_what_would_fail_at_a_random_batch():
    for wrong in ("none", MixUp, 0.5):
        with pytest.raises(TypeError, match=r"OneOf: expected policies such as .*or None"):
            OneOf([MixUp(1.0), wrong])
    for policy in (
        OneOf([MixUp(1.0), CutMix(1.0)]),
        OneOf([MixUp(1.0), OneOf([None, FMix()])]),
        OneOf([MixUp(1.0), RegMixUp(CutMix())]),
        OneOf([MixUp(1.0), ColumnCutMix()], probabilities=[0.999, 0.001]),
    ):
        for _ in range(20):
            with pytest.raises(ValueError, match="expected image_size"):
                policy.draw(4)
    never = OneOf([MixUp(1.0), CutMix(1.0)], probabilities=[1, 0])
    assert never.draw(4).region is None


def test_regmixup_is_not_nested():
    with pytest.raises(TypeError, match="RegMixUp: expected a policy that draws blends alone"):
        RegMixUp(RegMixUp(MixUp(1.0)))
    with pytest.raises(TypeError, match="RegMixUp: expected a policy that draws blends alone"):
        RegMixUp(OneOf([MixUp(1.0), RegMixUp(MixUp(1.0))]))
    clean_and_mixed = RegMixUp(MixUp(1.0)).draw(4)
    with pytest.raises(TypeError, match="Do not put RegMixUp into RegMixUp"):
        CleanAndMixed(clean_and_mixed, 1.0)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_an_image_size_with_channels_is_refused_and_a_volume_is_not(channels):
    x = torch.rand(8, channels, 8, 8)
    plan = CutMix(per="example").draw(8, image_size=x.shape[1:])
    with pytest.raises(ValueError, match=r"without channels, got .*x\.shape\[2:\]; for volumes"):
        plan.mix(x)
    assert plan.mix(x[:, None]).shape == (8, 1, channels, 8, 8)
    gray = torch.rand(8, 1, 8, 8)
    assert CutMix().draw(8, image_size=gray.shape[1:]).mix(gray).shape == gray.shape
