import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm

from vicinal.studies.estimates import estimated
from vicinal.studies.statistics import (
    Estimate,
    difference_between_studies,
    difference_with_interval,
    holm,
    mean_with_interval,
    over_splits,
    to_halve,
    verdict,
)
from vicinal.training.metrics import METRICS, least_difference, metric_values


def two_way_by_loops(table):
    """Return mean squares of seeds, examples and the rest, with a loop over all cells."""
    seeds, examples = len(table), len(table[0])
    mean = sum(map(sum, table)) / (seeds * examples)
    of_seed = [sum(row) / examples for row in table]
    of_example = [sum(row[i] for row in table) / seeds for i in range(examples)]
    by_seed = examples * sum((m - mean) ** 2 for m in of_seed) / (seeds - 1)
    by_example = seeds * sum((m - mean) ** 2 for m in of_example) / (examples - 1)
    rest = 0.0
    for s in range(seeds):
        for i in range(examples):
            rest += (table[s][i] - of_seed[s] - of_example[i] + mean) ** 2
    return mean, by_seed, by_example, rest / ((seeds - 1) * (examples - 1))


def table_of(seeds, examples, *, by_seed, by_example, rest, mean=0.0, chance=0):
    draw = np.random.default_rng(chance).normal
    return (
        mean
        + draw(0, by_seed, (seeds, 1))
        + draw(0, by_example, (1, examples))
        + draw(0, rest, (seeds, examples))
    )


def test_the_interval_of_a_small_table_equals_a_hand_calculation():
    # Rows have means 2 and 4, columns 2, 3 and 4: mean squares are 6, 2 and 0. The variance of
    # the mean is (6 + 2 - 0) / 6, with 8**2 / (6**2 / 1 + 2**2 / 2) = 1.684 degrees of freedom.
    table = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    found = mean_with_interval(table)
    half = stats.t.ppf(0.975, 64 / 38) * math.sqrt(8 / 6)
    over_seeds = stats.t.ppf(0.975, 1) * math.sqrt(6 / 6)
    assert found.mean == 3
    assert over_seeds > half  # so it decides
    assert (found.low, found.high) == pytest.approx((3 - over_seeds, 3 + over_seeds))
    assert found.seeds == pytest.approx(over_seeds)
    assert found.examples == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(2 / 6))


@pytest.mark.parametrize("chance", range(4))
def test_the_interval_is_that_of_a_slow_analysis_of_variance(chance):
    table = table_of(4, 50, by_seed=0.1, by_example=1.0, rest=0.5, chance=chance)
    mean, by_seed, by_example, rest = two_way_by_loops(table.tolist())
    if by_seed > rest:
        total = by_seed + by_example - rest
        freedom = total**2 / (by_seed**2 / 3 + by_example**2 / 49 + rest**2 / (3 * 49))
    else:  # no sign of an effect of the seeds
        total, freedom = by_example, 49
    half = stats.t.ppf(0.975, max(freedom, 3)) * math.sqrt(total / 200)
    over_seeds = stats.t.ppf(0.975, 3) * math.sqrt(by_seed / 200)
    found = mean_with_interval(table)
    assert found.mean == pytest.approx(mean)
    assert found.high - found.mean == pytest.approx(max(half, over_seeds))
    assert found.seeds == pytest.approx(over_seeds)
    assert found.examples == pytest.approx(stats.t.ppf(0.975, 49) * math.sqrt(by_example / 200))


def test_without_a_difference_between_examples_the_interval_is_that_of_scipys_paired_t_test():
    chance = np.random.default_rng(1)
    a, b = chance.normal(90, 3, 4), chance.normal(80, 3, 4)
    found = difference_with_interval(*(np.repeat(one[:, None], 200, axis=1) for one in (a, b)))
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.examples == pytest.approx(0, abs=1e-9)


def test_without_a_difference_between_seeds_the_interval_is_that_of_a_t_test_over_examples():
    values = np.random.default_rng(2).normal(0.3, 1, 40)
    found = mean_with_interval(np.repeat(values[None], 3, axis=0))
    expected = stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.seeds == pytest.approx(0, abs=1e-9)


def test_more_seeds_do_not_narrow_an_interval_below_what_the_examples_allow():
    few, many = (
        mean_with_interval(table_of(s, 60, by_seed=0.1, by_example=1, rest=0.5)) for s in (3, 300)
    )
    alone = stats.t.ppf(0.975, 59) * 1 / math.sqrt(60)
    assert few.high - few.low > many.high - many.low
    assert many.high - many.low > 2 * 0.8 * alone


def test_differences_are_paired_by_example():
    arm = table_of(3, 500, by_seed=0.01, by_example=5, rest=0.1)
    found = difference_with_interval(arm, arm - 0.5 + 1e-3 * np.random.default_rng(3).random(500))
    assert found.mean == pytest.approx(0.5, abs=1e-3)
    assert found.high - found.low < 0.01


def test_the_interval_of_an_accuracy_is_that_of_agresti_and_coull():
    # 90 of 100 in every seed, so this is an interval of one proportion: (90 + 2) of (100 + 4).
    values = np.tile(np.arange(100) < 90, (5, 1)).astype(float)
    found = mean_with_interval(values, counted=True)
    share = 92 / 104
    half = stats.t.ppf(0.975, 103) * math.sqrt(share * (1 - share) / 103)
    assert found.mean == 0.9
    assert (found.low, found.high) == pytest.approx((share - half, share + half))


def test_the_interval_of_an_accuracy_stays_between_0_and_1():
    for share in (0, 1):
        found = mean_with_interval(np.full((3, 30), float(share)), counted=True)
        assert found.mean == share
        assert 0 <= found.low < found.high <= 1


def test_arms_that_agree_on_every_example_differ_by_at_most_3_in_n():
    agreeing = np.ones((3, 150))
    found = difference_with_interval(agreeing, agreeing, least=3 / 150)
    assert (found.mean, found.low, found.high) == pytest.approx((0, -3 / 150, 3 / 150))
    assert found.p == 1
    better = agreeing.copy()
    better[:, 0] = 0  # one example of 150 more, in every seed
    found = difference_with_interval(agreeing, better, least=3 / 150)
    assert found.low < 0 < found.high
    assert found.p > 0.05


def test_an_interval_excludes_zero_exactly_if_the_p_value_is_below_5_percent():
    for chance in range(40):
        counted = bool(chance % 2)
        table = table_of(3, 30, by_seed=0.1, by_example=1, rest=1, mean=0.5, chance=chance)
        table = np.sign(table.round()) if counted else table
        least = 0.1 if counted else 0.0
        found = difference_with_interval(table, np.zeros_like(table), least=least)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_the_detectable_difference_is_found_in_80_percent_of_studies():
    spread = {"by_seed": 0.2, "by_example": 1.0, "rest": 0.5}
    tables = [table_of(5, 40, **spread, chance=k) for k in range(2000)]
    typical = float(np.median([mean_with_interval(table).detectable for table in tables[:200]]))
    found = np.mean([mean_with_interval(table + typical).low > 0 for table in tables])
    assert 0.7 < found < 0.9


@pytest.mark.parametrize("comparisons", [1, 10])
def test_the_detectable_difference_is_found_in_spite_of_the_number_of_comparisons(comparisons):
    spread = {"by_seed": 0.2, "by_example": 1.0, "rest": 0.5}
    tables = [table_of(5, 40, **spread, chance=k) for k in range(1000)]
    still = np.zeros((5, 40))

    def compared(table):
        return difference_with_interval(table, still, comparisons=comparisons)

    typical = float(np.median([compared(table).detectable for table in tables[:200]]))
    found = np.mean([compared(table + typical).p * comparisons < 0.05 for table in tables])
    assert 0.7 < found < 0.9


@pytest.mark.parametrize("comparisons", [1, 10])
def test_the_detectable_difference_is_found_where_the_floor_decides(comparisons):
    chance, still, least = np.random.default_rng(0), np.zeros((3, 1000)), 3 / 1000
    stated = difference_with_interval(still, still, least=least, comparisons=comparisons)
    found = []
    for _ in range(400):
        differ = np.repeat(chance.random((1, 1000)) < stated.detectable, 3, axis=0) * 1.0
        found.append(difference_with_interval(differ, still, least=least).p * comparisons < 0.05)
    assert 0.72 < np.mean(found) < 0.88


def test_one_seed_or_one_example_has_no_interval():
    for shape in ((1, 5), (5, 1)):
        assert mean_with_interval(np.full(shape, 3.0)) == Estimate(3.0)
        assert mean_with_interval(np.ones(shape), counted=True).mean == 1
    assert mean_with_interval(np.ones((1, 5)), counted=True).low is None


def tables_of(means):
    """Tables of two seeds and nine examples, all of whose values are the mean of their split."""
    return [np.full((2, 9), mean) for mean in means]


def test_splits_that_agree_by_chance_are_as_uncertain_as_their_test_examples():
    # One more of 30 is right in each of three splits: nothing differs between the splits.
    table = np.zeros((1, 30))
    table[0, 0] = 1
    found = over_splits([table] * 3, ratio=0.5)
    every = np.tile(table[0], 3)
    half = stats.t.ppf(0.975, 87) * math.sqrt(3 * table.var(ddof=1) / 30) / 3
    assert found.mean == pytest.approx(every.mean())
    assert (found.seeds, found.examples) == pytest.approx((0, half))
    assert found.low < 0 < found.high
    assert found.p > 0.05
    agreeing = over_splits([np.zeros((1, 30))] * 3, ratio=0.5, least=3 / 90)
    assert (agreeing.low, agreeing.high, agreeing.p) == pytest.approx((-3 / 90, 3 / 90, 1))


def test_over_splits_without_overlap_the_interval_is_that_of_scipys_t_test():
    means = [0.1, 0.25, 0.3, 0.2]
    found, expected = over_splits(tables_of(means), ratio=0), stats.ttest_1samp(means, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)


def test_overlapping_training_sets_widen_the_interval_as_nadeau_and_bengio_say():
    means = [0.1, 0.25, 0.3, 0.2, 0.15]  # each tested on a fifth, so the ratio is 1 / 4
    plain, found = (over_splits(tables_of(means), ratio=ratio) for ratio in (0, 0.25))
    wider = math.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    assert found.high - found.mean == pytest.approx(wider * (plain.high - plain.mean))
    assert over_splits(tables_of([0.5]), ratio=0.25) == Estimate(0.5)


def test_holm_multiplies_the_smallest_by_the_number_of_comparisons_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("ends", "p", "margin", "higher", "expected"),
    [
        ((0.1, 2), 0.04, None, True, "better"),
        ((0.1, 2), 0.04, None, False, "worse"),
        ((-2, -0.1), 0.04, None, True, "worse"),
        ((-2, -0.1), 0.04, None, False, "better"),
        ((0.1, 2), 0.06, None, True, "no evidence"),  # after Holm
        ((-0.1, 2), 0.3, None, True, "no evidence"),
        ((-0.4, 0.3), 0.3, 0.5, True, "the same"),
        ((0.1, 0.3), 0.001, 0.5, True, "the same"),
        ((-0.5, 0.3), 0.3, 0.5, True, "no evidence"),
        ((0.6, 0.9), 0.001, 0.5, True, "better"),
    ],
)
def test_a_verdict_needs_a_small_p_value_or_an_interval_within_the_margin(
    ends, p, margin, higher, expected
):
    difference = Estimate(sum(ends) / 2, *ends)
    assert verdict(difference, p=p, margin=margin, higher=higher) == expected


def test_without_an_interval_there_is_no_evidence():
    assert verdict(Estimate(3.0), p=None, margin=1.0, higher=True) == "no evidence"


def test_what_halves_the_detectable_difference_is_what_varies():
    by_example = table_of(3, 100, by_seed=0.0, by_example=1.0, rest=0.01)
    seeds, examples = to_halve(by_example)
    assert seeds is None
    assert examples == pytest.approx(4 * 100, rel=0.05)
    by_seed = table_of(4, 1000, by_seed=1.0, by_example=0.0, rest=0.01)
    seeds, examples = to_halve(by_seed)
    assert examples is None
    assert 8 <= seeds <= 12  # less than 4 times as many, since t has more degrees of freedom


def test_intervals_of_auroc_cover_the_truth_with_few_positives():
    chance, classes = np.random.default_rng(0), np.r_[np.ones(20, int), np.zeros(380, int)]
    means, found = (4.0, 4.3), []
    true = [norm.cdf(mean / np.sqrt(2.5)) for mean in means]  # margins have the variance 1.25
    for _ in range(150):
        example = chance.standard_normal((2, 400))
        example[1] = 0.9 * example[0] + np.sqrt(0.19) * example[1]
        values = [{("b", 0.0): {}, ("a", 0.0): {}}]
        for arm, mean, one in zip("ba", means, example, strict=True):
            for seed in range(3):
                margins = mean * classes + one + 0.5 * chance.standard_normal(400)
                logits = np.stack([-margins, margins], 1) / 2
                values[0][arm, 0.0][seed] = metric_values(
                    "auroc", logits, classes, "classification"
                )
        row = estimated(
            values, ("a", 0.0), ("b", 0.0), METRICS["auroc"], ratio=0.25, leasts=[3 / 20]
        )
        difference = 100 * (true[1] - true[0])
        found.append(
            [
                row["low"] <= 100 * true[1] <= row["high"],
                row["difference"]["low"] <= difference <= row["difference"]["high"],
                row["difference"]["high"] - row["difference"]["low"] < 15,
            ]
        )
    assert np.mean(found, axis=0).min() > 0.88


@pytest.mark.parametrize("by_seed", [0.0, 0.1])
def test_intervals_between_two_studies_cover_the_truth_with_other_numbers_of_seeds(by_seed):
    chance, found = np.random.default_rng(1), []
    for _ in range(600):
        example = chance.standard_normal((2, 150))
        example[1] = 0.9 * example[0] + np.sqrt(0.19) * example[1]
        one, two = (
            mean
            + by_seed * chance.standard_normal((seeds, 1))
            + example[k]
            + 0.5 * chance.standard_normal((seeds, 150))
            for k, (seeds, mean) in enumerate(((3, 0.0), (5, 0.2)))
        )
        row = difference_between_studies(two, one)
        found.append(row.low <= 0.2 <= row.high)
    assert 0.925 < np.mean(found) < 0.99


def test_between_two_studies_one_seed_gives_no_interval():
    row = difference_between_studies(np.ones((1, 9)), np.zeros((3, 9)))
    assert (row.mean, row.low, row.high) == (1.0, None, None)


def test_one_positive_of_low_rank_does_not_stretch_the_interval_of_auroc_to_chance():
    classes = np.r_[np.ones(15, int), np.zeros(285, int)]
    margins = np.r_[np.full(14, 2.0), 0.0, np.linspace(-2, 1, 285)]  # the last positive is low
    margins = margins + 0.01 * np.random.default_rng(0).standard_normal((3, 300))
    arms = {arm: np.stack([-margins, margins], 2) / 2 for arm in "ab"}
    least = least_difference("auroc", classes, "classification")
    values = pair_of(arms, classes, "auroc")
    row = estimated(values, ("b", 0.0), ("a", 0.0), METRICS["auroc"], ratio=0.25, leasts=[least])
    assert 97 < row["value"] < 98.5
    # Four more such positives would lower it by about 4 / 15 of a third.
    assert row["value"] - 2.1 * 100 * 4 / 15 / 3 < row["low"] < 92
    perfect = np.where(classes, 2.0, -2.0) + 0 * margins
    arms = {arm: np.stack([-perfect, perfect], 2) / 2 for arm in "ab"}
    values = pair_of(arms, classes, "auroc")
    row = estimated(values, ("b", 0.0), ("a", 0.0), METRICS["auroc"], ratio=0.25, leasts=[least])
    assert (row["value"], row["low"], row["high"]) == (100, pytest.approx(80), 100)


def test_two_seeds_that_differ_little_do_not_stretch_the_interval_of_auroc_to_chance():
    spread = 1e-4 * np.linspace(-1, 1, 99)
    values = [{(arm, 0.0): {0: 0.99867 + spread, 1: 0.99987 + spread} for arm in "ab"}]
    auroc = METRICS["auroc"]
    row = estimated(values, ("b", 0.0), ("a", 0.0), auroc, ratio=0.25, leasts=[0.01])
    half = stats.t.ppf(0.975, 1) * 100 * np.std([0.99867, 0.99987], ddof=1) / np.sqrt(2)
    assert row["low"] == pytest.approx(row["value"] - 3 * half, rel=1e-3)


def test_examples_that_halve_a_difference_halve_the_one_that_is_stated():
    for chance in range(20):
        values = table_of(3, 200, by_seed=0.0, by_example=1.0, rest=2.0, chance=chance)
        values -= values.mean(1, keepdims=True)  # seeds agree
        stated = difference_with_interval(values, 0 * values).detectable
        examples = to_halve(values)[1]
        *_, rest = two_way_by_loops(values)
        by_seed = math.sqrt(rest / examples / 3) * (stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2))
        assert by_seed <= stated / 2 * (1 + 1e-9)


def test_differences_that_cancel_over_the_seeds_have_an_interval():
    chance = np.random.default_rng(0)
    for _ in range(1000):
        values = np.zeros((3, 200))
        for example in chance.choice(200, 3, replace=False):
            plus, minus = chance.choice(3, 2, replace=False)
            values[plus, example], values[minus, example] = 1.0, -1.0
        found = difference_with_interval(values, 0 * values)
        assert found.low <= found.mean <= found.high


def test_no_number_of_seeds_lowers_the_floor_of_a_proportion():
    equal = np.zeros((3, 100))
    assert to_halve(equal, least=3 / 100) == (None, 200)
    assert to_halve(equal) == (None, None)


def pair_of(arms, targets, metric, task="classification"):
    """Values of two arms from their outputs ``(seeds, examples, classes)``."""
    return [
        {
            (name, 0.0): {
                seed: metric_values(metric, one, targets, task) for seed, one in enumerate(outputs)
            }
            for name, outputs in arms.items()
        }
    ]


def test_a_class_without_errors_does_not_make_balanced_accuracy_certain():
    chance, found = np.random.default_rng(0), []
    classes = np.r_[np.zeros(30, int), np.ones(950, int)]
    least = [least_difference("balanced-accuracy", classes, "classification")]
    for _ in range(150):
        arms = {}
        for arm, recalls in (("a", [0.99, 0.93]), ("b", [0.96, 0.96])):
            right = norm.cdf(chance.normal(size=(1, 980)) + 0.3 * chance.normal(size=(5, 980)))
            right = right < norm.cdf(norm.ppf(recalls) * np.sqrt(1.09))[classes]
            arms[arm] = np.eye(2)[np.where(right, classes, 1 - classes)]
        row = estimated(
            pair_of(arms, classes, "balanced-accuracy"),
            ("b", 0.0),
            ("a", 0.0),
            METRICS["balanced-accuracy"],
            ratio=0.25,
            leasts=least,
        )
        found.append([row["low"] <= 96 <= row["high"], row["difference"]["p"] < 0.05])
    covered, false = np.mean(found, axis=0)
    assert covered > 0.92
    assert false < 0.05


def test_labels_that_are_partly_right_narrow_the_interval_of_their_accuracy():
    chance, labels = np.random.default_rng(0), np.zeros((100, 20))
    arms = {
        arm: 0.5 - (chance.random((5, 100, 20)) < share) for arm, share in (("a", 0.9), ("b", 0.93))
    }
    values = pair_of(arms, labels, "accuracy", "multi-label")
    row = estimated(
        values, ("b", 0.0), ("a", 0.0), METRICS["accuracy"], ratio=0.25, leasts=[3 / 100]
    )
    own = row["high"] - row["low"]
    assert 0.5 < own < 2  # the std of a mean of 10,000 labels is 0.26 points
    assert row["difference"]["p"] < 0.05 < row["difference"]["value"] / 3


def test_rounding_does_not_make_the_interval_of_a_perfect_metric_vanish():
    classes = np.repeat(np.arange(7), [3, 5, 7, 11, 13, 17, 19])
    perfect = np.eye(7)[classes]
    values = pair_of(
        {"a": np.stack([perfect] * 3), "b": np.stack([perfect] * 3)}, classes, "macro-f1"
    )
    for arm in "ab":  # as they differ on other processors
        for seed in range(3):
            values[0][arm, 0.0][seed] += 1e-16 * np.arange(len(classes)) * seed
    assert values[0]["a", 0.0][2].std() > 0
    least = least_difference("macro-f1", classes, "classification")
    row = estimated(values, ("b", 0.0), ("a", 0.0), METRICS["macro-f1"], ratio=0.25, leasts=[least])
    assert row["high"] - row["low"] > 100 * least / 2
    assert row["difference"]["high"] - row["difference"]["low"] > 100 * least
