import copy
import dataclasses
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map_only

from vicinal import CutMix, DirichletMixUp, MixUp, Plan, RegMixUp, ResizeMix, Reverse


def plan_of_three():
    return Plan(torch.tensor([2, 0, 1]), torch.tensor([0.75, 0.5, 1.0], dtype=torch.float32))


def test_mix_in_place_writes_what_mix_returns():
    x = torch.rand(3, 4, 4, dtype=torch.float32)
    expected = plan_of_three().mix(x)
    assert not torch.equal(expected, x)
    assert plan_of_three().mix_(x) is x
    assert torch.equal(x, expected)


def test_mix_in_place_reads_every_partner_before_it_is_overwritten():
    x = torch.tensor([0.0, 8.0], dtype=torch.float32)
    Plan(torch.tensor([1, 0]), torch.tensor([0.0, 0.0], dtype=torch.float32)).mix_(x)
    assert x.tolist() == [8.0, 0.0]


def test_partners_can_come_from_a_second_batch():
    x, other = (
        torch.zeros(3, 1, dtype=torch.float32),
        torch.tensor([[4.0], [8.0], [12.0], [16.0]], dtype=torch.float32),
    )
    assert plan_of_three().mix(x, other).tolist() == [[3.0], [2.0], [0.0]]


def test_integer_targets_become_shares_of_classes():
    y = torch.tensor([0, 1, 3])
    expected = [[0.75, 0, 0, 0.25], [0.5, 0.5, 0, 0], [0, 0, 0, 1]]
    assert plan_of_three().targets(y, num_classes=4).tolist() == expected


def test_masks_become_shares_along_dimension_one():
    y = torch.tensor([[[0, 1]], [[1, 1]], [[0, 0]]])
    soft = plan_of_three().targets(y, num_classes=2)
    assert soft.shape == (3, 2, 1, 2)
    assert soft[1, :, 0, 0].tolist() == [0.5, 0.5]
    assert torch.equal(soft.sum(1), torch.ones(3, 1, 2, dtype=torch.float32))


def test_soft_and_real_and_multi_label_targets_are_blended_as_they_are():
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float32)
    expected = [[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]
    assert plan_of_three().targets(y).tolist() == expected
    assert plan_of_three().targets(y.bool()).tolist() == expected
    assert plan_of_three().targets(torch.tensor([4.0, 8.0, 0.0], dtype=torch.float32)).tolist() == [
        3.0,
        6.0,
        0.0,
    ]


@pytest.mark.parametrize(
    ("y", "num_classes", "words"),
    [
        (torch.tensor([0, 1, 2]), None, "expected num_classes"),
        (torch.tensor([0, 1, 2]), 2, "from 0 to 1, got 0 to 2"),
        (torch.rand(3, 2, dtype=torch.float32), 2, "Omit num_classes"),
        (torch.tensor([0, 1]), 2, r"batch of 3.*got shape \(2,\)"),
    ],
)
def test_targets_that_do_not_fit_raise_an_error(y, num_classes, words):
    with pytest.raises(ValueError, match=words):
        plan_of_three().targets(y, num_classes)


def test_accuracy_counts_each_side_by_its_share():
    output = torch.eye(4, dtype=torch.float32)[[0, 0, 2]]
    y = torch.tensor([0, 1, 3])
    # Row 0 answers its own class: 0.75; row 1 its partner's: 0.5; row 2 neither.
    assert plan_of_three().accuracy(output, y).item() == pytest.approx((0.75 + 0.5) / 3)


def test_a_plan_is_frozen_and_knows_its_size():
    plan = MixUp(1.0).draw(5)
    assert len(plan) == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.lam = torch.ones(5, dtype=torch.float32)


def test_a_plan_for_another_batch_size_raises_an_error():
    plan, x = plan_of_three(), torch.rand(2, 4, dtype=torch.float32)
    before = x.clone()
    for use in (plan.mix, plan.mix_):
        with pytest.raises(
            ValueError, match=r"batch of 3.*shape \(2, 4\).*policy\.draw\(len\(x\)\)"
        ):
            use(x)
    assert torch.equal(x, before)


def test_a_plan_follows_the_device_of_what_it_is_given():
    mixed = plan_of_three().mix(torch.empty(3, 2, device="meta", dtype=torch.float32))
    assert mixed.device.type == "meta"
    assert plan_of_three().to("meta").partner.device.type == "meta"


def test_a_plan_that_does_not_fit_itself_raises_an_error():
    with pytest.raises(ValueError, match=r"one share per example, \(2,\), got \(3,\)"):
        Plan(torch.tensor([1, 0]), torch.ones(3, dtype=torch.float32))


def test_slices_of_a_plan_mix_parts_of_a_batch_for_gradient_accumulation():
    x, y = torch.rand(8, 3, dtype=torch.float32), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    for policy in (
        MixUp(1.0, per="example"),
        DirichletMixUp(1.0, per="example"),
    ):
        plan = policy.draw(8)
        pieces = [slice(0, 3), slice(3, 8)]
        mixed = torch.cat([plan[piece].mix(x[piece], other=x) for piece in pieces])
        torch.testing.assert_close(mixed, plan.mix(x))
        scores = torch.rand(8, 4, dtype=torch.float32)
        losses = [
            plan[piece].loss(nn.CrossEntropyLoss(reduction="sum"), scores[piece], y[piece], other=y)
            for piece in pieces
        ]
        torch.testing.assert_close(sum(losses) / 8, plan.loss(F.cross_entropy, scores, y))


def test_a_slice_of_a_region_plan_has_its_regions():
    x = torch.rand(6, 1, 4, 4, dtype=torch.float32)
    for per in ("batch", "example"):
        plan = CutMix(1.0, per=per).draw(6, image_size=(4, 4))
        torch.testing.assert_close(plan[2:5].mix(x[2:5], other=x), plan.mix(x)[2:5])


def test_a_slice_without_the_whole_batch_raises_an_error():
    plan = Plan(torch.tensor([2, 0, 1]), torch.full((3,), 0.5, dtype=torch.float32))[:2]
    with pytest.raises(ValueError, match=r"slice of a plan.*Pass the whole batch: other=x"):
        plan.mix(torch.rand(2, 3, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"slice of a plan.*Pass the whole batch: other=y"):
        plan.targets(torch.tensor([0, 1]), num_classes=2)


def test_more_than_two_parents_are_blended_by_their_shares():
    partner = torch.tensor([[1, 2, 0], [2, 2, 2]])
    shares = torch.tensor([[0.2, 0.0, 1.0], [0.3, 1.0, 0.0]], dtype=torch.float32)
    plan = Plan(partner, torch.tensor([0.5, 0.0, 0.0], dtype=torch.float32), shares)
    x = torch.tensor([[1.0], [10.0], [100.0]], dtype=torch.float32)
    torch.testing.assert_close(
        plan.mix(x), torch.tensor([[32.5], [100.0], [1.0]], dtype=torch.float32)
    )
    targets = plan.targets(torch.tensor([0, 1, 2]), num_classes=3)
    torch.testing.assert_close(
        targets, torch.tensor([[0.5, 0.2, 0.3], [0, 0, 1.0], [1.0, 0, 0]], dtype=torch.float32)
    )
    scores = torch.rand(3, 3, dtype=torch.float32)
    torch.testing.assert_close(
        plan.loss(F.cross_entropy, scores, torch.tensor([0, 1, 2])),
        F.cross_entropy(scores, targets),
    )
    before = x.clone()
    assert torch.equal(plan.mix_(x), plan.mix(before))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"shares": torch.rand(2, 3, dtype=torch.float32)},
            r"\(parents - 1, batch\).*got \(3,\), \(2, 3\) and \(3,\)",
        ),
        (
            {"region": torch.ones(3, 4, 4, dtype=torch.float32)},
            r"bool \(batch, height, width\).*float32",
        ),
        ({"region": torch.ones(2, 4, 4, dtype=torch.bool)}, r"batch 1 or 3.*\(2, 4, 4\)"),
    ],
)
def test_shares_and_regions_that_do_not_fit_raise_an_error(fields, words):
    with pytest.raises(ValueError, match=words):
        Plan(torch.tensor([2, 0, 1]), torch.full((3,), 0.5, dtype=torch.float32), **fields)


def test_shares_that_do_not_sum_to_one_raise_an_error():
    with pytest.raises(ValueError, match="expected a sum of one"):
        Plan(
            torch.zeros(2, 3, dtype=torch.int64),
            torch.full((3,), 0.5, dtype=torch.float32),
            torch.full((2, 3), 0.5, dtype=torch.float32),
        )


def test_a_region_plan_for_another_image_size_raises_an_error():
    plan = CutMix(1.0).draw(3, image_size=(8, 8))
    with pytest.raises(ValueError, match=r"image_size of the plan, \(8, 8\).*got \(3, 1, 4, 4\)"):
        plan.mix(torch.rand(3, 1, 4, 4, dtype=torch.float32))


def test_a_plan_keeps_its_copy_on_another_device():
    plan = plan_of_three()
    assert plan.to("meta") is plan.to("meta")
    assert plan.to("cpu") is plan


def test_a_region_plan_raises_an_error_for_a_partner_that_is_not_a_row():
    plan = Plan(
        torch.tensor([2, 0, 5]),
        torch.full((3,), 0.5, dtype=torch.float32),
        region=torch.ones(1, 2, 2, dtype=torch.float32) > 0,
    )
    with pytest.raises(ValueError, match=r"row numbers below 3, .* got 5"):
        plan.mix(torch.rand(3, 1, 2, 2, dtype=torch.float32))


def test_a_slice_needs_the_whole_batch_even_if_its_own_rows_would_do():
    plan = Plan(torch.tensor([3, 2, 1, 0]), torch.full((4,), 0.5, dtype=torch.float32))[2:]
    with pytest.raises(ValueError, match="slice of a plan"):
        plan.mix(torch.rand(2, 3, dtype=torch.float32))
    with pytest.raises(TypeError, match="expected a slice"):
        plan[0]


def test_several_parents_are_rounded_once():
    plan = DirichletMixUp(1.0, parents=5, per="example").draw(16)
    x = torch.randint(0, 256, (16, 50), dtype=torch.uint8)
    exact = plan.mix(x.double())
    wide = plan.mix(x, dtype=torch.float32)
    torch.testing.assert_close(wide.double(), exact, rtol=1e-5, atol=1e-3)
    assert float((plan.mix(x).double() - exact).abs().max()) <= 0.501
    half = plan.mix(x.to(torch.bfloat16)).double()
    assert bool(((half - exact).abs() <= 0.51 * 2**-7 * exact.abs() + 0.01).all())


def test_a_shrunk_partner_has_a_shrunk_mask():
    masks = torch.zeros(2, 8, 8, dtype=torch.int64)
    masks[1, :4], masks[1, 4:] = 1, 2
    plan = ResizeMix((0.5, 0.5), pairing=Reverse()).draw(2, image_size=(8, 8))
    box = plan.region[0]
    shown = plan.targets(masks, num_classes=3).argmax(1)[0][box].reshape(4, 4)
    assert shown[:, 0].tolist() == [1, 1, 2, 2]
    assert torch.equal(plan.mix(masks)[0], plan.targets(masks, num_classes=3).argmax(1)[0])


def test_targets_of_two_types_raise_an_error():
    plan = Plan(torch.tensor([1, 0]), torch.full((2,), 0.5, dtype=torch.float32))
    with pytest.raises(TypeError, match=r"int64.*float32"):
        plan.targets(torch.tensor([0, 1]), num_classes=2, other=torch.rand(2, dtype=torch.float32))


def test_narrow_labels_count_up_to_their_classes():
    plan = Plan(torch.tensor([1, 0]), torch.full((2,), 0.75, dtype=torch.float32))
    targets = plan.targets(torch.tensor([3, 255], dtype=torch.uint8), num_classes=256)
    assert targets[:, [3, 255]].tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_accuracy_leaves_ignored_classes_out():
    plan = Plan(torch.tensor([1, 0, 3, 2]), torch.full((4,), 0.75, dtype=torch.float32))
    scores = torch.eye(4, dtype=torch.float32)
    y = torch.tensor([0, -100, -100, -100])
    # Row 0 counts 0.75 and is right; row 1 counts 0.25, that of its partner, and is wrong.
    assert plan.accuracy(scores, y).item() == 0.75


@pytest.mark.parametrize("name", ["partner", "shares", "region"])
def test_tensors_on_two_devices_raise_an_error(name):
    lam = torch.full((2,), 0.5, dtype=torch.float32)
    several = name == "shares"
    partner = torch.tensor([[1, 0]] if several else [1, 0])
    tensors = {"partner": partner, "lam": lam}
    if several:
        tensors["shares"] = 1 - lam[None]
    if name == "region":
        tensors["region"] = torch.zeros(2, 4, 4, dtype=torch.bool)
    Plan(**tensors)
    tensors[name] = tensors[name].to("meta")
    with pytest.raises(ValueError, match=f"{name}: expected cpu, the device of lam, got meta"):
        Plan(**tensors)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copied_plan_has_no_copy_on_another_device(copied):
    plan = MixUp(1.0).draw(3)
    plan.to("meta")
    assert plan._moved is not None
    again = copied(plan)
    assert again._moved is None
    assert torch.equal(again.lam, plan.lam)


def test_shares_of_another_type_than_lam_are_added_to_it():
    partner, lam = torch.tensor([[1, 0]]), torch.tensor([0.75, 0.5], dtype=torch.float32)
    shares = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
    x = torch.tensor([0.0, 8.0], dtype=torch.float32)
    assert Plan(partner, lam, shares).mix(x).tolist() == [2, 4]
    with pytest.raises(ValueError, match="sum of one with lam"):
        Plan(partner, lam, shares / 2)


def test_the_gradient_of_shares_of_several_parents_is_finite():
    lam = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    shares = torch.tensor([[0.0, 0.25], [1.0, 0.25]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0], [5.0]], dtype=torch.float64)
    plan = Plan(torch.tensor([[1, 0], [1, 0]]), lam, shares)
    plan.mix(x).sum().backward()
    assert bool(lam.grad.isfinite().all())
    assert bool(shares.grad.isfinite().all())


@pytest.mark.parametrize(
    ("output", "y"),
    [
        (torch.rand(3, 1, dtype=torch.float32), torch.zeros(3, dtype=torch.int64)),
        (torch.rand(3, 4, dtype=torch.float32), torch.rand(3, dtype=torch.float32)),
        (torch.rand(3, dtype=torch.float32), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_accuracy_without_classes_raises_an_error(output, y):
    with pytest.raises(ValueError, match="two classes or more, and integer classes"):
        plan_of_three().accuracy(output, y)


@pytest.mark.parametrize("policy", [MixUp(1.0), RegMixUp(MixUp(1.0))])
def test_tools_that_cast_nested_arguments_do_not_change_a_plan(policy):
    plan = policy.draw(5)
    lam = plan.lam.clone()

    def cast(value):
        return value.to(torch.bfloat16)

    arguments = ((torch.rand(5, dtype=torch.float32), plan), {"at": "layer1"})
    fabric = pytest.importorskip("lightning_utilities").core.apply_func.apply_to_collection
    for (x, kept), named in (
        tree_map_only(torch.Tensor, cast, arguments),
        fabric(arguments, torch.Tensor, cast),
    ):
        assert x.dtype == torch.bfloat16
        assert kept is plan
        assert torch.equal(plan.lam, lam)
        assert named == {"at": "layer1"}
    assert not dataclasses.is_dataclass(plan)  # FSDP rebuilds dataclasses field by field


def test_a_plan_survives_copying_and_pickling():
    for plan in (MixUp(1.0).draw(5), RegMixUp(MixUp(1.0)).draw(5)):
        for copied in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
            assert torch.equal(copied.lam, plan.lam)
            assert torch.equal(
                copied.mix(torch.arange(5.0, dtype=torch.float32)),
                plan.mix(torch.arange(5.0, dtype=torch.float32)),
            )
    lam = torch.tensor([1.0], dtype=torch.float32)
    assert repr(Plan(torch.tensor([0]), lam)) == (
        f"Plan(partner=tensor([0]), lam={lam!r}, shares=None, region=None, shrunk=False, "
        "columns=False, target_mode='weighted')"
    )


def test_equal_targets_are_blended_exactly():
    times = torch.full((64,), 1.7e9, dtype=torch.float64)
    for policy in (MixUp(1.0, per="example"), DirichletMixUp(1.0)):
        assert torch.equal(policy.draw(64).targets(times), times)
    lam = torch.tensor([0.0021, 0.003, 0.997], dtype=torch.bfloat16)
    sums = Plan(torch.tensor([1, 0, 2]), lam).targets(torch.arange(3), 3).sum(1)
    assert torch.allclose(sums.float(), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_mixing_in_place_has_the_gradients_of_shares_and_of_a_copy(several):
    lam = torch.full((3,), 0.3, requires_grad=True)
    shares = torch.full((2, 3), 0.35, requires_grad=True) if several else None
    partner = torch.tensor([[1, 0, 2], [2, 1, 0]]) if several else torch.tensor([1, 0, 2])
    plan, gradients = Plan(partner, lam, shares), []
    for name in ("mix", "mix_"):
        x = torch.arange(12.0).reshape(3, 4)
        mixed = getattr(plan, name)(x)
        leaves = (lam, shares) if several else (lam,)
        gradients.append(torch.autograd.grad((mixed**2).sum(), leaves))
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def test_a_view_with_the_negative_bit_is_mixed_in_place():
    x = torch.complex(torch.randn(4, 3), torch.randn(4, 3)).conj().imag
    plan = MixUp(1.0).draw(4)
    expected = plan.mix(x.clone())
    assert torch.allclose(plan.mix_(x), expected)


@pytest.mark.parametrize("batch", [{"image": torch.rand(2, 3)}, (torch.rand(2, 3),), [0.0, 1.0]])
def test_a_batch_that_is_no_tensor_is_an_error_that_says_what_to_pass(batch):
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
    for call in (plan.mix, plan.mix_, plan.targets, lambda x: plan.loss(F.cross_entropy, x, x)):
        with pytest.raises(TypeError, match=r"expected a tensor, got (dict|tuple|list)\."):
            call(batch)
    with pytest.raises(TypeError, match="other: expected a tensor, got"):
        plan.mix(torch.rand(2, 3), other=batch)


def test_partners_and_shares_that_are_no_tensors_are_named():
    with pytest.raises(TypeError, match=r"lam: expected a tensor, got float\. For one number"):
        Plan(torch.tensor([1, 0]), 0.3)
    with pytest.raises(TypeError, match=r"lam: expected a tensor, got float"):
        Plan(torch.tensor([1, 0]), 0.3, region=torch.zeros(2, 4, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"partner: expected a tensor, got list"):
        Plan([1, 0], torch.tensor([0.5, 0.5]))


def test_a_slice_of_a_plan_is_refused_inside_a_module():
    plan, linear = MixUp(1.0).draw(8), nn.Linear(3, 2)
    with pytest.raises(ValueError, match="inside: expected the plan of a whole batch, got a slice"):
        plan[:4].inside(linear)
