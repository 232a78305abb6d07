"""Detection of other data against scikit-learn, and its intervals against simulation."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from vicinal.errors import UserError
from vicinal.probes import ood


def logits_of(scores):
    """Return logits of two classes whose largest probability rises with the score."""
    z = torch.as_tensor(np.logaddexp(0, scores))
    return torch.stack([z, torch.zeros_like(z)], 1)


def found_for(own, others):
    return ood(nn.Identity(), [(logits_of(own),)], [(logits_of(others),)])


def scores_of(n, m, seed=0, shift=1.5):
    chance = np.random.default_rng(seed)
    return chance.normal(shift, 1, n), chance.normal(0, 1, m)


@pytest.mark.parametrize(("n", "m", "digits"), [(200, 300, 9), (40, 1000, 9), (300, 200, 1)])
def test_auroc_and_fpr95_are_those_of_scikit_learn_also_with_ties(n, m, digits):
    own, others = (np.round(one, digits) for one in scores_of(n, m))
    found = found_for(own, others)
    both = torch.cat([logits_of(own), logits_of(others)]).softmax(1).amax(1).numpy()
    true = np.arange(n + m) < n
    assert found.auroc == pytest.approx(roc_auc_score(true, both))
    fpr, tpr, _ = roc_curve(true, both, drop_intermediate=False)
    assert found.fpr95 == pytest.approx(fpr[tpr >= 0.95].min())
    assert found.accepted.sum() == round(found.fpr95 * m)
    assert torch.cat([found.scores, found.other_scores]).exp().numpy() == pytest.approx(both)
    assert found.auroc_values.shape == (n + m,)
    assert found.auroc_low < found.auroc < found.auroc_high
    assert found.fpr95_low < found.fpr95 < found.fpr95_high


def test_a_case_worked_out_by_hand():
    # Of the 2 x 2 pairs, one is a tie and one is in the wrong order.
    found = found_for(np.array([3.0, 1.0]), np.array([1.0, 2.0]))
    assert found.auroc == (1 + 1 + 0.5 + 0) / 4
    assert found.accepted.tolist() == [True, True]  # the threshold is the lower own score


def test_confidences_that_round_to_one_are_still_told_apart():
    found = found_for(np.array([60.0, 70.0]), np.array([40.0, 50.0]))
    assert found.auroc == 1
    assert (found.scores < 0).all()


def test_confidences_that_are_all_the_same_separate_nothing():
    found = found_for(np.ones(30), np.ones(20))
    assert (found.auroc, found.fpr95) == (0.5, 1)
    assert found.fpr95_high == 1


def test_a_perfect_separation_leaves_what_three_examples_could_change():
    found = found_for(np.linspace(5, 6, 100), np.linspace(1, 2, 60))
    assert (found.auroc, found.auroc_low, found.auroc_high) == (1, 0.95, 1)
    assert found.fpr95 == found.fpr95_low == 0
    assert 0.03 < found.fpr95_high < 0.1


def test_the_interval_of_the_auroc_is_that_of_delong():
    own, others = scores_of(200, 300)
    above = own[:, None] > others
    variance = above.mean(1).var(ddof=1) / 200 + above.mean(0).var(ddof=1) / 300
    found = found_for(own, others)
    assert found.auroc_high - found.auroc == pytest.approx(1.959964 * variance**0.5, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(150, 150), (600, 200)])
def test_the_intervals_cover_the_truth_in_about_95_percent_of_simulations(n, m):
    auroc, fpr = norm.cdf(1.5 / 2**0.5), norm.sf(norm.ppf(0.05, 1.5))
    covered = np.zeros(2)
    for seed in range(300):
        found = found_for(*scores_of(n, m, seed))
        covered += [
            found.auroc_low <= auroc <= found.auroc_high,
            found.fpr95_low <= fpr <= found.fpr95_high,
        ]
    assert (covered / 300 > 0.92).all(), covered / 300
    assert (covered / 300 < 0.99).all(), covered / 300


def test_the_batch_size_does_not_matter_and_labels_are_not_needed():
    torch.manual_seed(0)
    model, x, other = nn.Linear(4, 3), torch.randn(30, 4), torch.rand(20, 4)
    one = ood(model, [(x, torch.zeros(30))], [(other,)])
    parts = ood(model, [(part,) for part in x.split(7)], [(part,) for part in other.split(3)])
    torch.testing.assert_close(one, parts)


@pytest.mark.parametrize(
    ("data", "other", "message"),
    [
        ([], [(torch.randn(2, 3),)], "^data: expected at least one example"),
        ([(torch.randn(2, 3),)], [], "^other: expected at least one example"),
        ([(torch.randn(2, 3),)], torch.randn(2, 3), r"^other: expected batches \(inputs\)"),
        ([(torch.rand(9, 3).softmax(1),)], [(torch.randn(2, 3),)], "data: expected logits, got pr"),
        ([(torch.randn(9, 3),)], [(torch.randn(2, 3) * torch.nan,)], "for other, row 0.*got nan"),
    ],
)
def test_data_or_outputs_that_do_not_fit_are_refused(data, other, message):
    with pytest.raises(UserError, match=message):
        ood(nn.Identity(), data, other)
