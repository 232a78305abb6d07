"""What other libraries got wrong, each held against ours.

Some of it has a test elsewhere: the gradient and the rounding of the MXNet layer in test_pairings,
the loss that is one value per example in test_losses, settings that all arms share and the steps of
the schedule in training.
"""

import random
import typing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from vicinal import CutMix, MixedInside, MixUp, MixUpLayer, Plan, Shuffle
from vicinal.mixing.sampling import Per

LAM = torch.linspace(0.1, 0.8, 8, dtype=torch.float32)
PLAN = Plan(torch.tensor([1, 2, 3, 4, 5, 6, 7, 0]), LAM)
Y = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])


def test_mxnet_the_loss_is_cross_entropy_and_not_the_logarithm_of_a_mean_probability():
    scores = torch.randn(8, 10, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    targets = PLAN.targets(Y, num_classes=10)
    theirs = -(targets * scores.softmax(1)).sum(1).log().mean()
    ours = PLAN.loss(F.cross_entropy, scores, Y)
    torch.testing.assert_close(ours, -(targets * scores.log_softmax(1)).sum(1).mean())
    assert abs(float(ours - theirs)) > 0.1


def test_mxnet_and_fastai_nothing_is_mixed_at_validation():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.rand(8, 3)
    mixed = MixedInside(model, MixUp(1.0), at=["input", "0"]).eval()
    assert torch.equal(mixed(x), model(x))
    assert MixUpLayer(MixUp(1.0), 8).eval()(x, Y)[0] is x


@pytest.mark.parametrize("size", [0, 1, 7])
def test_mxnet_and_timm_odd_and_tiny_batches_work(size):
    for policy in (MixUp(1.0), MixUp(1.0, per="pair"), CutMix(1.0)):
        plan = policy.draw(size, image_size=(4, 4))
        assert plan.mix(torch.rand(size, 3, 4, 4)).shape == (size, 3, 4, 4)


def test_timm_switching_it_off_takes_effect_at_once():
    layer, x = MixUpLayer(MixUp(1.0), num_classes=8), torch.rand(8, 3)
    assert not torch.equal(layer(x, Y)[0], x)
    layer.eval()
    assert layer(x, Y)[0] is x


def test_timm_dense_soft_labels_stay_soft_labels():
    soft = torch.softmax(torch.randn(8, 10, dtype=torch.float32), 1)
    targets = PLAN.targets(soft)
    lam = PLAN.lam[:, None]
    torch.testing.assert_close(targets, lam * soft + (1 - lam) * soft[PLAN.partner])


def test_timm_and_yolox_inputs_and_labels_are_not_written_to():
    x, y = torch.rand(8, 3), Y.clone()
    before = x.clone()
    PLAN.mix(x)
    PLAN.targets(y, num_classes=8)
    PLAN.loss(F.cross_entropy, torch.rand(8, 8), y)
    assert torch.equal(x, before)
    assert torch.equal(y, Y)


@pytest.mark.parametrize("word", ["elem", "element", "Batch", ""])
def test_timm_a_mistyped_mode_raises_an_error(word):
    for policy in (MixUp, CutMix):
        with pytest.raises(ValueError, match=f"got {word!r}"):
            policy(1.0, per=typing.cast(Per, word))


def test_timm_and_facebookresearch_other_sources_of_chance_change_nothing():
    plans = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        plans.append(MixUp(1.0).draw(8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(plans[0].lam, plans[1].lam)
    assert torch.equal(plans[0].partner, plans[1].partner)


def test_facebookresearch_seed_zero_is_a_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        draws.append(MixUp(1.0).draw(8).lam)
    assert torch.equal(*draws)


def test_facebookresearch_the_loss_is_a_mean_over_the_rows_that_there_are():
    scores = torch.randn(8, 10)
    whole = PLAN.loss(nn.CrossEntropyLoss(reduction="none"), scores, Y)
    torch.testing.assert_close(PLAN.loss(F.cross_entropy, scores, Y), whole.sum() / 8)
    piece = PLAN[5:8].loss(F.cross_entropy, scores[5:8], Y[5:8], other=Y)
    torch.testing.assert_close(piece, whole[5:8].sum() / 3)


@pytest.mark.parametrize("shape", [(8,), (8, 5), (8, 3, 4, 4), (8, 3, 4, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_torchvision_bytes_and_inputs_of_any_rank_are_mixed(shape, dtype):
    x = (torch.rand(shape) * 200).to(dtype)
    assert PLAN.mix(x).shape == shape
    assert PLAN.mix(x).dtype == dtype
    assert not torch.equal(PLAN.mix(x), x)


def test_torchvision_and_kornia_masks_are_targets_too():
    masks = torch.randint(3, (8, 4, 4))
    targets = PLAN.targets(masks, num_classes=3)
    assert targets.shape == (8, 3, 4, 4)
    torch.testing.assert_close(targets.sum(1), torch.ones(8, 4, 4, dtype=torch.float32))


def test_torchvision_the_partner_is_not_always_the_next_row():
    partners = {tuple(Shuffle()(8).tolist()) for _ in range(10)}
    assert len(partners) > 5


def test_torchvision_cutmix_has_no_graph_break():
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(lambda x, plan: plan.mix(x) * 2, fullgraph=True, backend=counter)
    x = torch.rand(8, 3, 6, 6)
    for seed in range(3):
        plan = CutMix(1.0).draw(8, generator=torch.Generator().manual_seed(seed), image_size=(6, 6))
        torch.testing.assert_close(compiled(x, plan), plan.mix(x) * 2)
    assert counter.frame_count == 1


def test_kornia_alpha_decides_how_lam_is_spread():
    spreads = [float(MixUp(alpha, per="example").draw(500).lam.std()) for alpha in (0.1, 1.0, 10.0)]
    assert spreads == sorted(spreads, reverse=True)


@pytest.mark.parametrize("policy", [MixUp(1.0), CutMix(1.0)])
def test_kornia_lam_is_the_share_that_is_kept_in_mixup_and_in_cutmix(policy):
    for seed in range(5):
        plan = policy.draw(8, generator=torch.Generator().manual_seed(seed), image_size=(6, 6))
        own = torch.eye(8, dtype=torch.float32)[:, :, None, None].repeat(1, 1, 6, 6)
        kept = plan.mix(own)[torch.arange(8), torch.arange(8)].mean((1, 2))
        away = plan.partner != torch.arange(8)
        torch.testing.assert_close(kept[away], plan.lam[away])


def test_kornia_an_image_meets_another_one():
    plan = MixUp(1.0, pairing=Shuffle(meet_self=False)).draw(8)
    assert not bool((plan.partner == torch.arange(8)).any())


def test_keras_masks_with_a_channel_keep_their_shape():
    masks = torch.rand(8, 4, 4, 1)
    assert PLAN.targets(masks).shape == (8, 4, 4, 1)


def test_monai_a_label_does_not_become_the_partners_alone():
    plan = CutMix(1.0).draw(8, generator=torch.Generator().manual_seed(3), image_size=(6, 6))
    targets = plan.targets(Y, num_classes=8)
    torch.testing.assert_close(
        targets[torch.arange(8), Y], plan.lam + (1 - plan.lam) * (plan.partner == Y)
    )


def test_pypi_mixup_labels_have_one_row_for_each_example():
    assert PLAN.targets(Y, num_classes=10).shape == (8, 10)


def test_manifold_mixup_each_layer_changes_the_output_and_the_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 8))
    mixed, x = MixedInside(model, MixUp(1.0), at=["input", "0", "1", "2", "3"]), torch.rand(8, 3)
    found = set()
    for at in [*mixed.layers, None]:
        output = mixed(x) if at is None else mixed(x, PLAN, at=at)
        loss = PLAN.loss(F.cross_entropy, output, Y)
        (gradient,) = torch.autograd.grad(loss, model[0].weight)
        found.add((loss.item(), float(gradient.sum())))
    assert len(found) == len(mixed.layers) + 1


def test_manifold_mixup_labels_of_a_part_of_the_batch_raise_an_error():
    with pytest.raises(ValueError, match=r"output: expected a batch of 8.*got shape \(4, 8\)"):
        PLAN.loss(F.cross_entropy, torch.rand(4, 8), Y)


def test_pytorch_class_weights_mean_the_same_for_integer_and_for_soft_labels():
    scores = torch.randn(8, 10, dtype=torch.float64)
    weight = torch.linspace(0.1, 5, 10, dtype=torch.float64)
    criterion = nn.CrossEntropyLoss(weight=weight)
    integer = PLAN.loss(criterion, scores, Y)
    soft = PLAN.loss(criterion, scores, F.one_hot(Y, 10).double())
    torch.testing.assert_close(integer, soft, rtol=1e-6, atol=1e-6)


def test_pytorch_an_ignored_class_is_ignored_under_mixing():
    scores, y = torch.randn(8, 10, dtype=torch.float32), Y.clone()
    y[2] = -100
    loss = PLAN.loss(F.cross_entropy, scores, y)
    own, met = PLAN.lam.clone(), 1 - PLAN.lam
    own[2] = met[PLAN.partner == 2] = 0  # row 2 is ignored, also where another row meets it
    losses = own * F.cross_entropy(scores, y, reduction="none")
    losses += met * F.cross_entropy(scores, y[PLAN.partner], reduction="none")
    torch.testing.assert_close(loss, losses.sum() / (own + met).sum())
