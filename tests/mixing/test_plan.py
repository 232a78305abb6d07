import dataclasses

import pytest
import torch

from vicinal import MixUp, Plan


def plan_of_three():
    return Plan(torch.tensor([2, 0, 1]), torch.tensor([0.75, 0.5, 1.0]))


def test_mix_in_place_writes_what_mix_returns():
    x = torch.rand(3, 4, 4)
    expected = plan_of_three().mix(x)
    assert not torch.equal(expected, x)
    assert plan_of_three().mix_(x) is x
    assert torch.equal(x, expected)


def test_mix_in_place_reads_every_partner_before_it_is_overwritten():
    x = torch.tensor([0.0, 8.0])
    Plan(torch.tensor([1, 0]), torch.tensor([0.0, 0.0])).mix_(x)
    assert x.tolist() == [8.0, 0.0]


def test_partners_can_come_from_a_second_batch():
    x, other = torch.zeros(3, 1), torch.tensor([[4.0], [8.0], [12.0], [16.0]])
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
    assert torch.equal(soft.sum(1), torch.ones(3, 1, 2))


def test_soft_and_real_and_multi_label_targets_are_blended_as_they_are():
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    expected = [[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]
    assert plan_of_three().targets(y).tolist() == expected
    assert plan_of_three().targets(y.bool()).tolist() == expected
    assert plan_of_three().targets(torch.tensor([4.0, 8.0, 0.0])).tolist() == [3.0, 6.0, 0.0]


@pytest.mark.parametrize(
    ("y", "num_classes", "words"),
    [
        (torch.tensor([0, 1, 2]), None, "needs num_classes"),
        (torch.tensor([0, 1, 2]), 2, "classes from 0 to 1, got 0 to 2"),
        (torch.rand(3, 2), 2, "leave num_classes out"),
        (torch.tensor([0, 1]), 2, r"batch of 3, y has shape \(2,\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, num_classes, words):
    with pytest.raises(ValueError, match=words):
        plan_of_three().targets(y, num_classes)


def test_accuracy_counts_each_side_by_its_share():
    output = torch.eye(4)[[0, 0, 2]]
    y = torch.tensor([0, 1, 3])
    # Row 0 answers its own class: 0.75; row 1 its partner's: 0.5; row 2 neither.
    assert plan_of_three().accuracy(output, y).item() == pytest.approx((0.75 + 0.5) / 3)


def test_a_plan_is_frozen_and_knows_its_size():
    plan = MixUp(1.0).draw(5)
    assert len(plan) == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.lam = torch.ones(5)


def test_a_plan_for_another_batch_size_is_refused():
    plan, x = plan_of_three(), torch.rand(2, 4)
    before = x.clone()
    for use in (plan.mix, plan.mix_):
        with pytest.raises(
            ValueError, match=r"batch of 3.*shape \(2, 4\).*policy\.draw\(len\(x\)\)"
        ):
            use(x)
    assert torch.equal(x, before)


def test_a_plan_follows_the_device_of_what_it_is_given():
    mixed = plan_of_three().mix(torch.empty(3, 2, device="meta"))
    assert mixed.device.type == "meta"
    assert plan_of_three().to("meta").partner.device.type == "meta"


def test_a_plan_that_does_not_fit_itself_is_refused():
    with pytest.raises(ValueError, match="partner holds 2, lam has shape"):
        Plan(torch.tensor([1, 0]), torch.ones(3))
