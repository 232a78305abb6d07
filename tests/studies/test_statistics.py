import math

import numpy as np
import pytest
from scipy import stats

from vicinal.studies.statistics import Estimate, estimate, paired_difference, verdict


def test_the_interval_is_that_of_scipys_one_sample_t_test():
    values = np.random.default_rng(0).normal(90, 3, 5)
    mean, low, high = estimate(values.tolist(), step=0)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_paired_interval_is_that_of_scipys_paired_t_test():
    chance = np.random.default_rng(1)
    a, b = chance.normal(90, 3, 4), chance.normal(80, 3, 4)
    mean, low, high = paired_difference(a.tolist(), b.tolist(), step=0)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert mean == pytest.approx(a.mean() - b.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    chance = np.random.default_rng(2)
    samples = chance.normal(0, 1, (4000, 3))
    hits = sum(low <= 0 <= high for _, low, high in (estimate(s, step=0) for s in samples.tolist()))
    assert stats.binomtest(hits, 4000, 0.95).pvalue > 0.01


def test_one_value_has_no_interval_and_gives_no_evidence():
    assert estimate([3.0], step=0.1) == Estimate(3.0, None, None)
    assert verdict(Estimate(3.0, None, None)) == "no evidence"


def test_three_seeds_on_the_same_step_are_not_certainty():
    # Three times one test example of 540 more: rounding alone could have made this.
    step = 100 / 540
    low, high = paired_difference([99.0 + step] * 3, [99.0] * 3, step=step)[1:]
    half = stats.t.ppf(0.975, 2) * step * math.sqrt(2 / 12) / math.sqrt(3)
    assert (low, high) == pytest.approx((step - half, step + half))
    assert verdict(Estimate(step, low, high)) == "no evidence"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 2, "better"), (-2, -0.1, "worse"), (-0.1, 2, "no evidence"), (0, 2, "no evidence")],
)
def test_a_verdict_needs_an_interval_that_excludes_zero(low, high, word):
    assert verdict(Estimate((low + high) / 2, low, high)) == word
