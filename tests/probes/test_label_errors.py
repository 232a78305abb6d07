"""Errors on real and on corrupted labels against counting by hand."""

import math

import pytest
import torch
from torch import nn

from vicinal.data import corrupt_labels
from vicinal.errors import UserError
from vicinal.probes import memorization, memorized_fraction


def test_errors_are_counted_apart_for_real_and_corrupted_labels():
    predicted = torch.tensor([0, 1, 2, 0, 1, 2])
    labels = torch.tensor([0, 1, 0, 0, 2, 1])
    corrupted = torch.tensor([0, 0, 0, 1, 1, 1]) > 0
    found = memorization(nn.Identity(), [(9 * torch.eye(3)[predicted], labels, corrupted)])
    assert found.errors.tolist() == [False, False, True, False, True, True]
    assert (found.real_error, found.corrupted_error) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_a_network_that_knows_the_true_labels_errs_on_all_but_those_that_are_right_by_chance():
    true = torch.arange(4000) % 10
    labels, replaced = corrupt_labels(true, rate=0.5, num_classes=10, seed=0)
    logits = 9 * torch.eye(10)[true]
    found = memorization(nn.Identity(), [(logits, labels, replaced)])
    assert found.real_error == 0
    assert found.corrupted_error == pytest.approx(0.9, abs=0.02)
    wrong = memorization(nn.Identity(), [(logits, labels, labels != true)])
    assert wrong.corrupted_error == 1
    memorized = memorization(nn.Identity(), [(9 * torch.eye(10)[labels], labels, labels != true)])
    assert (memorized.real_error, memorized.corrupted_error) == (0, 0)


def test_the_error_on_wrong_labels_is_what_is_not_memorized():
    chance = torch.Generator().manual_seed(0)
    true, labels = torch.randint(3, (2, 90), generator=chance)
    logits = torch.randn(90, 3, generator=chance)
    data = [
        (a, b, b != c)
        for a, b, c in zip(logits.split(7), labels.split(7), true.split(7), strict=True)
    ]
    found = memorization(nn.Identity(), data)
    memorized = memorized_fraction(logits.argmax(1), given=labels, true=true)
    assert 1 - found.corrupted_error == pytest.approx(memorized)
    assert torch.equal(found.corrupted, labels != true)


def test_without_real_labels_their_error_is_not_a_number():
    found = memorization(
        nn.Identity(), [(9 * torch.eye(2), torch.tensor([0, 1]), torch.ones(2) > 0)]
    )
    assert math.isnan(found.real_error)


X, Y, MASK = torch.randn(4, 3), torch.arange(4) % 3, torch.arange(4) > 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(X, Y)], r"expected batches \(inputs, labels, corrupted\) of tensors, got \(Tensor, Ten"),
        ([(X, Y, Y)], "data, corrupted: expected a bool mask.*labels != true_labels"),
        ([(X, Y, MASK[:, None])], r"bool mask of shape \(n,\).*got torch.bool of shape \(4, 1\)"),
        ([(X, Y, MASK[:2])], "same length"),
        ([(X, Y, ~MASK & MASK)], "expected at least one corrupted label, got none"),
        ([(X, Y + 1, MASK)], "data, labels: expected labels from 0 to 2"),
        ([(X * torch.nan, Y, MASK)], "outputs, row 0: expected finite logits, got nan"),
    ],
)
def test_data_without_a_mask_or_labels_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        memorization(nn.Identity(), data)
