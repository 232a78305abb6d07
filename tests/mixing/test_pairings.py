import pytest
import torch
from scipy import stats
from torch._subclasses import FakeTensorMode

from vicinal import (
    DifferentClass,
    Halves,
    MixUp,
    Nearest,
    OtherBatch,
    SameClass,
    Shuffle,
    SimilarTargets,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [2, 3, 4, 9])
def test_nobody_meets_itself_where_that_is_asked_for(size):
    for seed in range(30):
        partner = Shuffle(meet_self=False)(size, seeded(seed))
        assert sorted(partner.tolist()) == list(range(size))
        assert not bool((partner == torch.arange(size)).any())


def test_all_permutations_without_a_fixed_point_have_the_same_chance():
    generator = seeded(1)
    counts = {}
    for _ in range(1800):
        partner = tuple(Shuffle(meet_self=False)(4, generator).tolist())
        counts[partner] = counts.get(partner, 0) + 1
    assert len(counts) == 9
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_halves_and_mix_rate_mix_as_the_mxnet_layer_defines_it():
    # 10 rows at a rate of 0.7: 7 rows, rounded up to 8; row i < 4 and row 4 + i are a pair with two
    # lam of their own: first = lam1 * a + (1 - lam1) * b, second = lam2 * a + (1 - lam2) * b there,
    # where lam2 is the share of the *first* row; here lam is always the share that a row keeps.
    plan = MixUp(0.2, mix_rate=0.7, per="example", pairing=Halves()).draw(10, generator=seeded())
    x = torch.arange(10.0, dtype=torch.float32)[:, None] ** 2
    mixed = plan.mix(x)
    assert plan.partner.tolist() == [4, 5, 6, 7, 0, 1, 2, 3, 8, 9]
    assert len(plan.lam[:8].unique()) == 8
    for i in range(4):
        a, b = float(x[i]), float(x[4 + i])
        lam1, lam2 = float(plan.lam[i]), 1 - float(plan.lam[4 + i])
        assert float(mixed[i]) == pytest.approx(lam1 * a + (1 - lam1) * b, rel=1e-5)
        assert float(mixed[4 + i]) == pytest.approx(lam2 * a + (1 - lam2) * b, rel=1e-5)
    assert torch.equal(mixed[8:], x[8:])


@pytest.mark.parametrize(
    ("size", "rate", "mixed"),
    [
        (10, 0.7, 8),
        (128, 0.7, 90),
        (100, 0.29, 28),  # 0.29 * 100 is 28.999999999999996
        (10, 0.61, 6),
        (10, 1.0, 10),
        (9, 1.0, 9),
        (5, 0.2, 2),
        (8, 0.0, 0),
        (1, 0.5, 0),
    ],
)
def test_halves_mix_as_many_rows_as_the_mxnet_layer(size, rate, mixed):
    # The layer takes int(rate * size), and one more where that is odd.
    assert Halves().rows(size, rate) == mixed
    plan = MixUp(1.0, mix_rate=rate, per="example", pairing=Halves()).draw(size)
    assert int((plan.lam < 1).sum()) == mixed


def test_the_gradient_of_halves_is_the_exact_one_and_not_that_of_the_mxnet_layer():
    plan = MixUp(0.2, mix_rate=0.7, per="example", pairing=Halves()).draw(10, generator=seeded())
    x = torch.rand(10, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(plan.mix, (x,))
    g = torch.rand(10, 3, dtype=torch.float64)
    (exact,) = torch.autograd.grad(plan.mix(x), x, g)
    lam1, lam2 = plan.lam[:4, None], 1 - plan.lam[4:8, None]
    # The first row of a pair gave lam1 to itself and lam2 to the second one.
    torch.testing.assert_close(exact[:4], lam1 * g[:4] + lam2 * g[4:8])
    assert not torch.allclose(exact[:4], (lam1 + lam2) * g[:4], rtol=0.05)


def test_same_class_pairs_within_classes_by_a_permutation():
    y = torch.randint(5, (60,), generator=seeded())
    partner = SameClass()(60, seeded(1), y=y)
    assert torch.equal(y[partner], y)
    assert sorted(partner.tolist()) == list(range(60))
    assert not torch.equal(partner, SameClass()(60, seeded(2), y=y))


def test_same_class_gives_every_member_of_a_class_the_same_chance():
    y = torch.tensor([0, 1, 0, 1, 0])
    generator = seeded(4)
    met = torch.stack([SameClass()(5, generator, y=y)[0] for _ in range(900)])
    assert stats.chisquare([int((met == k).sum()) for k in (0, 2, 4)]).pvalue > 0.01


def test_different_class_pairs_across_classes_each_with_the_same_chance():
    y = torch.tensor([3, 1, 7, 1, 3, 3])
    generator = seeded(5)
    met = torch.stack([DifferentClass()(6, generator, y=y) for _ in range(900)])
    assert bool((y[met] != y).all())
    for row in range(6):
        others = [k for k in range(6) if y[k] != y[row]]
        assert stats.chisquare([int((met[:, row] == k).sum()) for k in others]).pvalue > 0.001


def test_nearest_meets_only_the_nearest_by_a_sorted_list():
    points = torch.rand(30, 2, 3, generator=seeded(6), dtype=torch.float32)
    flat = points.reshape(30, -1)
    for seed in range(5):
        partner = Nearest(k=3)(30, seeded(seed), features=points)
        for i, j in enumerate(partner.tolist()):
            order = sorted(range(30), key=lambda k: float(((flat[i] - flat[k]) ** 2).sum()))
            assert j in order[1:4]


def test_similar_targets_meet_in_proportion_to_the_kernel():
    y = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float32)
    generator = seeded(8)
    met = torch.stack([SimilarTargets(1.5)(4, generator, y=y)[0] for _ in range(1500)])
    odds = [float(torch.exp(-((y[k] - y[0]) ** 2) / (2 * 1.5**2))) for k in (1, 2, 3)]
    counts = [int((met == k).sum()) for k in (1, 2, 3)]
    expected = [1500 * one / sum(odds) for one in odds]
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_targets_far_from_all_others_still_meet_their_nearest():
    assert SimilarTargets(1e-3)(
        3, y=torch.tensor([0.0, 50.0, 90.0], dtype=torch.float32)
    ).tolist() == [1, 2, 1]


def test_a_second_batch_is_met_evenly():
    partner = OtherBatch(batch=3)(7, seeded())
    counts = partner.bincount(minlength=3).tolist()
    assert sorted(counts) == [2, 2, 3]
    plan = MixUp(1.0, mix_rate=0.5, pairing=OtherBatch(batch=3)).draw(7, generator=seeded())
    x, other = torch.rand(7, 2, dtype=torch.float32), torch.rand(3, 2, dtype=torch.float32)
    y, other_y = torch.arange(7), torch.tensor([7, 8, 9])
    mixed = plan.mix(x, other)
    for i in range(7):
        lam = plan.lam[i]
        torch.testing.assert_close(mixed[i], lam * x[i] + (1 - lam) * other[plan.partner[i]])
        targets = plan.targets(y, num_classes=10, other=other_y)[i]
        assert float(targets[i]) == pytest.approx(float(lam))


@pytest.mark.parametrize(
    ("pairing", "about", "words"),
    [
        (SameClass(), {}, r"SameClass: expected y\. Call policy\.draw\(len\(x\), y=y\)"),
        (
            SameClass(),
            {"y": torch.rand(4, 3, dtype=torch.float32)},
            r"integer classes.*float32.*\(4, 3\).*argmax",
        ),
        (DifferentClass(), {"y": torch.arange(3)}, r"y: expected 4 rows, .*got shape \(3,\)"),
        (Nearest(), {}, "Nearest: expected features"),
        (SimilarTargets(1.0), {}, "SimilarTargets: expected y"),
    ],
)
def test_pairings_say_what_they_need(pairing, about, words):
    with pytest.raises(ValueError, match=words):
        MixUp(1.0, pairing=pairing).draw(4, **about)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Nearest(k=0), "from 1, got 0"),
        (lambda: SimilarTargets(bandwidth=0.0), "above 0, got 0.0"),
        (lambda: OtherBatch(batch=0), "1 row or more, got 0"),
        (lambda: Nearest(k=2.5), "from 1, got 2.5"),
        (lambda: OtherBatch(batch=2.5), "1 row or more, got 2.5"),
    ],
)
def test_settings_out_of_range_raise_an_error(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_pairing_that_returns_too_few_rows_raises_an_error():
    def odd(size, generator=None, *, y=None, features=None):
        return torch.arange(size - 1)

    with pytest.raises(
        TypeError,
        match=r"row numbers of shape \(4,\) and dtype torch.int64, got \(3,\) and torch.int64",
    ):
        MixUp(1.0, pairing=odd).draw(4)


@pytest.mark.parametrize("options", [{}, {"mix_rate": 0.5}, {"per": "pair"}])
def test_what_a_users_pairing_puts_on_the_default_device_comes_to_the_cpu(options):
    def next_row(size, generator=None, *, y=None, features=None):
        return torch.arange(size).roll(1)

    with FakeTensorMode(), torch.device("cuda"):
        plan = MixUp(1.0, pairing=next_row, **options).draw(4)
        assert plan.partner.device.type == plan.lam.device.type == "cpu"


def nearest_by_a_loop(rows):
    """Return for each row the row at the least distance, in exact integer arithmetic."""
    return [
        min(
            (j for j in range(len(rows)) if j != i),
            key=lambda j: sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)),
        )
        for i in range(len(rows))
    ]


@pytest.mark.parametrize("size", [2, 25, 26, 60])
@pytest.mark.parametrize("offset", [0, 1_000, 1_764_000_000])
def test_the_nearest_row_is_the_nearest_however_far_from_zero_all_are(size, offset):
    # Whole numbers without ties: distances are exact, in the loop and in float64.
    places = torch.randperm(4 * size, generator=seeded(size))[:size].tolist()
    rows = [(offset + place**2, offset) for place in places]
    features = torch.tensor(rows, dtype=torch.float64)
    assert Nearest(k=1)(size, features=features).tolist() == nearest_by_a_loop(rows)


def test_the_nearest_row_is_found_in_its_own_cluster():
    # Centering does not help here: the clusters lie on both sides of the mean.
    rows = [(side * 10**9 + place**2,) for side in (-1, 1) for place in range(40)]
    features = torch.tensor(rows, dtype=torch.float64)
    assert Nearest(k=1)(80, features=features).tolist() == nearest_by_a_loop(rows)


@pytest.mark.parametrize("size", [25, 26])
def test_similar_targets_are_similar_however_far_from_zero_all_are(size):
    y = 1_764_000_000 + torch.arange(size, dtype=torch.float64)
    partner = SimilarTargets(bandwidth=0.1)(size, seeded(), y=y)
    assert (partner - torch.arange(size)).abs().max() == 1


def test_rows_that_are_alike_are_at_distance_zero():
    features = torch.cat(
        [
            torch.full((30, 3), 1e6, dtype=torch.float32),
            torch.full((30, 3), 1e6 + 1, dtype=torch.float32),
        ]
    )
    partner = Nearest(k=29)(60, seeded(), features=features)
    assert torch.equal(partner < 30, torch.arange(60) < 30)


@pytest.mark.parametrize("missing", [float("nan"), float("inf")])
def test_values_without_a_distance_are_refused_by_name(missing):
    values = torch.tensor([0.0, 1.0, missing, 3.0])
    with pytest.raises(ValueError, match=r"Nearest: expected finite features.*in 1 of 4 rows"):
        MixUp(1.0, pairing=Nearest(1)).draw(4, features=values)
    with pytest.raises(ValueError, match=r"SimilarTargets: expected finite y.*in 1 of 4 rows"):
        MixUp(1.0, pairing=SimilarTargets(1.0)).draw(4, y=values[:, None])
