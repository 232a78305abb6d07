import itertools
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch._subclasses import FakeTensorMode

from vicinal import (
    ColumnCutMix,
    MixedInside,
    MixUpLayer,
    OtherBatch,
    Plan,
    Reverse,
)

SIZE, FEATURES = 8, 12
GROUPS = [7, 7, 7, -1, 0, 0, 5, 5, 5, 5, 5, 2]  # six columns before one-hot encoding


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(size=SIZE, features=FEATURES, dtype=torch.float64):
    return torch.randn(size, features, generator=seeded(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("policy", [ColumnCutMix(), ColumnCutMix(groups=GROUPS)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_each_cell_is_that_of_the_example_or_of_its_partner_as_a_loop_counts(policy, seed):
    plan, x = policy.draw(SIZE, generator=seeded(seed), image_size=(FEATURES,)), rows()
    mixed = plan.mix(x)
    groups = policy.groups or range(FEATURES)
    for i in range(SIZE):
        j, kept, taken = int(plan.partner[i]), set(), set()
        for column, group in enumerate(groups):
            from_partner = bool(plan.region[i, column])
            assert mixed[i, column] == x[j if from_partner else i, column]
            (taken if from_partner else kept).add(group)
        assert not kept & taken  # a group stays together
        assert plan.lam[i].item() == np.float32(len(kept) / len(set(groups)))


def test_all_choices_of_as_many_columns_are_equally_likely():
    policy = ColumnCutMix(math.inf)
    regions = policy.draw(6000, generator=seeded(2), image_size=(4,)).region
    pairs = list(itertools.combinations(range(4), 2))
    counts = [0] * len(pairs)
    for region in regions:
        counts[pairs.index(tuple(region.nonzero().flatten().tolist()))] += 1
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.5, 1.0, (2.0, 1.0)])
def test_the_number_of_columns_is_that_of_a_beta_variable_rounded(alpha):
    first, second = alpha if isinstance(alpha, tuple) else (alpha, alpha)
    plan = ColumnCutMix(alpha).draw(4000, generator=seeded(3), image_size=(5,))
    kept = (plan.lam * 5).round().long().bincount(minlength=6)
    edges = stats.beta(first, second).cdf([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1])
    assert stats.chisquare(kept.numpy(), 4000 * np.diff(edges)).pvalue > 0.01


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.complex64]
)
def test_cells_of_any_type_arrive_bit_by_bit(dtype):
    plan = ColumnCutMix().draw(SIZE, generator=seeded(4), image_size=(FEATURES,))
    x = torch.randint(0, 2, (SIZE, FEATURES), generator=seeded(5)).to(dtype)
    expected = [
        [x[int(plan.partner[i]) if plan.region[i, k] else i, k].item() for k in range(FEATURES)]
        for i in range(SIZE)
    ]
    assert plan.mix(x).tolist() == expected
    assert plan.mix(x).dtype == dtype


def test_the_gradient_goes_to_where_each_cell_comes_from():
    plan = ColumnCutMix().draw(SIZE, generator=seeded(6), image_size=(FEATURES,))
    x, weight = rows().requires_grad_(), torch.arange(SIZE * FEATURES, dtype=torch.float64)
    weight = weight.reshape(SIZE, FEATURES)
    expected = torch.zeros(SIZE, FEATURES, dtype=torch.float64)
    for i, k in itertools.product(range(SIZE), range(FEATURES)):
        expected[int(plan.partner[i]) if plan.region[i, k] else i, k] += weight[i, k]

    def total(x):
        return (plan.mix(x) * weight).sum()

    assert torch.equal(torch.autograd.grad(total(x), x)[0], expected)
    assert torch.equal(torch.func.grad(total)(x.detach()), expected)
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(torch.autograd.grad(compiled, x)[0], expected)
    assert torch.autograd.gradgradcheck(lambda x: plan.mix(x).sin(), (x,))


def test_targets_and_loss_are_weighted_by_the_share_of_columns():
    plan = ColumnCutMix(groups=GROUPS).draw(SIZE, generator=seeded(7), image_size=(FEATURES,))
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    output = torch.randn(SIZE, 3, generator=seeded(8), dtype=torch.float64)
    expected = torch.zeros(SIZE, 3, dtype=torch.float64)
    for i in range(SIZE):
        expected[i, y[i]] += plan.lam[i]
        expected[i, y[plan.partner[i]]] += 1 - plan.lam[i]
    torch.testing.assert_close(plan.targets(y, 3).double(), expected)
    loss = plan.loss(F.cross_entropy, output, y)
    torch.testing.assert_close(loss, F.cross_entropy(output, expected), rtol=1e-6, atol=1e-6)


def test_integer_targets_with_as_many_values_as_columns_are_not_taken_for_a_mask():
    plan = ColumnCutMix().draw(SIZE, generator=seeded(9), image_size=(3,))
    tasks = torch.randint(2, (SIZE, 3), generator=seeded(10))
    lam = plan.lam[:, None, None]
    soft = F.one_hot(tasks, 2).movedim(-1, 1).float()
    torch.testing.assert_close(plan.targets(tasks, 2), lam * soft + (1 - lam) * soft[plan.partner])
    assert plan.targets(tasks[:, :2, None], 2).shape == (SIZE, 2, 2, 1)


def test_a_union_keeps_the_labels_of_both_rows():
    policy = ColumnCutMix(math.inf, pairing=Reverse(), targets="union")
    labels = torch.eye(4, dtype=torch.float32)
    union = policy.draw(4, image_size=(FEATURES,)).targets(labels)
    assert torch.equal(union, labels + labels.flip(0))


def test_rows_can_come_from_a_second_batch():
    plan = ColumnCutMix(pairing=OtherBatch(3)).draw(SIZE, image_size=(FEATURES,))
    x, other = rows(), rows(3) + 100
    assert torch.equal(plan.mix(x, other) > 50, plan.region)


def test_pairs_exchange_the_same_columns():
    policy = ColumnCutMix(per="pair", pairing=Reverse())
    plan, x = policy.draw(6, generator=seeded(11), image_size=(FEATURES,)), rows(6)
    torch.testing.assert_close(plan.mix(x) + plan.mix(x).flip(0), x + x.flip(0))
    assert len({tuple(row.tolist()) for row in plan.region}) == 3


def test_a_batch_can_share_its_columns():
    plan = ColumnCutMix(per="batch").draw(SIZE, generator=seeded(12), image_size=(FEATURES,))
    assert plan.region.shape == (1, FEATURES)
    assert len(plan.lam.unique()) == 1


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_columns_are_drawn_where_tensors_have_no_values(groups):
    with FakeTensorMode():
        plan = ColumnCutMix(groups=groups).draw(SIZE, image_size=(FEATURES,))
        assert plan.mix(torch.rand(SIZE, FEATURES, dtype=torch.float32)).shape == (SIZE, FEATURES)


def test_alpha_zero_and_lam_of_one_leave_rows_alone():
    x = rows()
    assert torch.equal(ColumnCutMix(0).draw(SIZE, image_size=(FEATURES,)).mix(x), x)
    plan = ColumnCutMix(0.01).draw(SIZE, generator=seeded(13), image_size=(FEATURES,))
    whole = plan.lam == 1
    assert bool(whole.any())
    assert torch.equal(plan.mix(x)[whole], x[whole])


def test_a_plan_knows_that_it_takes_columns_wherever_it_goes():
    plan = ColumnCutMix().draw(SIZE, image_size=(FEATURES,))
    assert pickle.loads(pickle.dumps(plan)).columns
    assert "columns=True" in repr(plan)
    assert plan[2:5].columns
    assert plan.to("meta").columns
    assert torch.equal(plan[2:5].mix(rows()[2:5], other=rows()), plan.mix(rows())[2:5])


def test_the_layer_mixes_columns_and_labels():
    x, y = rows(dtype=torch.float32), torch.arange(SIZE)
    torch.manual_seed(1)
    mixed, soft = MixUpLayer(ColumnCutMix(pairing=Reverse()), num_classes=SIZE)(x, y)
    taken = (mixed != x).float().mean(1)
    torch.testing.assert_close(soft, torch.diag(1 - taken) + torch.diag(taken).flip(1))
    assert bool((taken > 0).any())


def test_columns_are_mixed_at_hidden_layers_with_as_many_units():
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, 5)).float()
    mixed = MixedInside(model, ColumnCutMix(), at=["input", "0", "1"])
    _, plan = mixed.draw(SIZE, image_size=(FEATURES,))
    x = rows(dtype=torch.float32)
    assert torch.equal(mixed(x, plan, at="0"), model[1](plan.mix(model[0](x))))
    with pytest.raises(ValueError, match=r"image_size of the plan, \(12,\).*got \(8, 5\)"):
        mixed(x, plan, at="1")


@pytest.mark.parametrize("shape", [(SIZE, FEATURES + 1), (SIZE, 3, FEATURES), (SIZE,)])
def test_columns_of_one_size_are_not_applied_to_another(shape):
    plan = ColumnCutMix().draw(SIZE, image_size=(FEATURES,))
    with pytest.raises(ValueError, match=r"x: expected .*12.*got \(8"):
        plan.mix(torch.zeros(shape, dtype=torch.float32))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: ColumnCutMix().draw(4),
            ValueError,
            r"as \(features,\).*got None.*image_size=x\.shape\[1:\]",
        ),
        (lambda: ColumnCutMix().draw(4, image_size=(8, 8)), ValueError, r"\(8, 8\).*use CutMix"),
        (lambda: ColumnCutMix().draw(4, image_size=8), ValueError, r"\(features,\).*got 8"),
        (lambda: ColumnCutMix().draw(4, image_size=(0,)), ValueError, r"from 1.*got \(0,\)"),
        (
            lambda: ColumnCutMix(groups=[0, 1]).draw(4, image_size=(3,)),
            ValueError,
            "each of 3 columns, got 2.*one-hot",
        ),
        (lambda: ColumnCutMix(groups=["a"]), TypeError, r"one integer for each.*got \['a'\]"),
        (lambda: ColumnCutMix(groups=3), TypeError, "one integer for each.*got 3"),
        (lambda: ColumnCutMix(-1.0), ValueError, "ColumnCutMix: expected alpha"),
        (lambda: ColumnCutMix(targets="sum"), ValueError, "ColumnCutMix: expected targets"),
        (
            lambda: Plan(
                torch.tensor([1, 0]),
                torch.full((2,), 0.5, dtype=torch.float32),
                region=torch.zeros(2, 3, 3, dtype=torch.bool),
                columns=True,
            ),
            ValueError,
            r"\(batch, features\).*got \(2, 3, 3\)",
        ),
    ],
)
def test_what_does_not_fit_raises_an_error_that_names_it(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_groups_of_any_kind_of_integers_are_equal_and_hashable():
    policies = [ColumnCutMix(groups=kind([0, 1, 1])) for kind in (list, np.array, torch.tensor)]
    assert len(set(policies)) == 1
