"""How often 95% intervals cover the truth, by simulation; docs/statistics.md has the table.

Outputs of two arms come from a model with effects of seeds, of test examples, and of both together.
As a program, this module repeats the simulation and writes the table.
"""

import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from vicinal.studies.statistics import difference_with_interval, mean_with_interval
from vicinal.training.metrics import metric_values

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
LOW, HIGH = 93.5, 98.0
SEEDS, EXAMPLES = (3, 5, 10, 30), (100, 1_000, 10_000)


class Case(NamedTuple):
    """What is simulated: the margin of an output is ``mean + seed + example + noise``.

    Args:
        metric: accuracy, of which the noise is that of a coin; or a metric of the margins.
        means: of the margins of the arms; one arm has an interval of its own.
        seed: std of the effect of a seed.
        example: std of the effect of a test example.
        seeds_alike: correlation of the effects of a seed on the two arms.
        examples_alike: correlation of the effects of an example.
    """

    metric: str
    means: tuple[float, ...]
    seed: float
    example: float
    seeds_alike: float = 0.0
    examples_alike: float = 0.0


CASES = {
    "difference in accuracy, arms correlated": Case("accuracy", (3.5, 4.2), 0.3, 4, 0.5, 0.95),
    "difference in accuracy, arms independent": Case("accuracy", (3.5, 4.2), 0.3, 4),
    "difference in accuracy, about 97%": Case("accuracy", (8, 8.5), 0.5, 4, 0.5, 0.95),
    "accuracy of one arm, 79%": Case("accuracy", (3.5,), 0.3, 4),
    "accuracy of one arm, 97%": Case("accuracy", (8,), 0.5, 4),
    "difference in AUROC": Case("auroc", (1.0, 1.2), 0.1, 1, 0.5, 0.95),
    "difference in NLL": Case("nll", (1.5, 1.8), 0.1, 1, 0.5, 0.95),
}


@cache
def truth(case):
    """Return the expected metric, or the expected difference of the second arm."""
    x, w = np.polynomial.hermite_e.hermegauss(300)
    spread = np.hypot(case.seed, case.example)
    values = []
    for mean in case.means:
        if case.metric == "accuracy":  # the logistic function averaged over a normal distribution
            z = np.linspace(-10, 10, 200_001)
            values.append(np.trapezoid(expit(mean + spread * z) * norm.pdf(z), z))
        elif case.metric == "nll":
            values.append(w @ np.logaddexp(0, -mean - np.hypot(spread, 1) * x) / w.sum())
        else:  # a positive and a negative of the same seed, whose effect is shared
            both = np.sqrt(4 * case.seed**2 + 2 * (case.example**2 + 1))
            values.append(norm.cdf(2 * mean / both))
    return values[-1] - values[0] if len(values) > 1 else values[0]


def table_of(case, mean, seed, example, chance):
    """Return the values of one arm, ``(seeds, examples)``."""
    margins = mean + seed + example
    if case.metric == "accuracy":
        return chance.random(margins.shape, np.float32) < expit(margins)
    margins = margins + chance.standard_normal(margins.shape, np.float32)
    classes = np.arange(margins.shape[1]) % 2  # alternating, so half of them are positive
    half = np.where(classes, margins, -margins) / 2
    logits = np.stack([-half, half], axis=2)
    return np.stack([metric_values(case.metric, one, classes, "classification") for one in logits])


def covers(case, seeds, examples, chance):
    """Simulate one study; return whether its interval has the truth."""

    def effects(shape, std, alike):
        first = chance.standard_normal(shape, np.float32)
        other = chance.standard_normal(shape, np.float32)
        return std * first, std * (alike * first + np.sqrt(1 - alike**2) * other)

    by_seed = effects((seeds, 1), case.seed, case.seeds_alike)
    by_example = effects((1, examples), case.example, case.examples_alike)
    tables = [
        table_of(case, mean, *each, chance).astype(np.float64)
        for mean, *each in zip(case.means, by_seed, by_example, strict=False)
    ]
    counted = case.metric == "accuracy"
    if len(tables) == 1:
        found = mean_with_interval(tables[0], counted=counted)
    else:
        least = 3 / examples if counted else 0.0
        found = difference_with_interval(tables[1], tables[0], least=least)
    return found.low <= truth(case) <= found.high


def coverage(name, seeds, examples, repetitions):
    """Return in how many percent of the simulated studies the interval has the truth."""
    chance = np.random.default_rng([list(CASES).index(name), seeds, examples])
    return 100 * np.mean([covers(CASES[name], seeds, examples, chance) for _ in range(repetitions)])


def repetitions_of(name, seeds, examples, share=1.0):
    """Return how many studies to simulate: fewer of the largest, and fewer if there is sorting."""
    most = 4_000 if CASES[name].metric == "accuracy" else 1_500
    return int(share * min(most, max(3e8 / (seeds * examples), 1_000)))


def limits_of(name):
    """Return the limits of coverage in percent; arms with few errors have wider intervals."""
    return (LOW, HIGH) if name in list(CASES)[:2] else (LOW - 0.5, 100)


def sizes_of(name):
    """Return the numbers of seeds and examples that are simulated; sorting 10,000 is slow."""
    most = max(EXAMPLES) if CASES[name].metric == "accuracy" else 1_000
    return [(s, n) for s in SEEDS for n in EXAMPLES if n <= most]


def test_intervals_of_a_simulated_study_cover_the_truth():
    name = "difference in accuracy, arms correlated"
    assert 92 < coverage(name, 3, 100, 1000) < 99


@pytest.mark.skipif("VICINAL_SLOW" not in os.environ, reason="slow; set VICINAL_SLOW=1")
@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_the_truth_as_often_as_they_say(name):
    for seeds, examples in sizes_of(name):
        found = coverage(name, seeds, examples, repetitions_of(name, seeds, examples, 0.3))
        # Four standard errors of the simulation itself.
        low, high = limits_of(name)
        assert low - 1.6 < found < high + 1, (name, seeds, examples, found)


def test_the_documented_table_has_every_size_within_the_limits():
    simulated = PAGE.read_text("utf-8").partition("### On real tables")[0]
    rows = re.findall(r"^\| (\D[^|]*?)(?: \|) ([\d,]+) \| (.*) \|$", simulated, re.M)
    found = {
        (name, seeds, int(examples.replace(",", ""))): float(cell)
        for name, examples, cells in rows
        for seeds, cell in zip(SEEDS, cells.split(" | "), strict=True)
    }
    assert found.keys() == {(name, *size) for name in CASES for size in sizes_of(name)}
    for (name, *size), cell in found.items():
        low, high = limits_of(name)
        assert low <= cell <= high, (name, size, cell)


def main():
    """Simulate every case, and print the table."""
    print("| 95% interval of | test examples | " + " | ".join(f"{s} seeds" for s in SEEDS) + " |")
    print("| --- | --: |" + " --: |" * len(SEEDS))
    for name in CASES if len(sys.argv) < 2 else sys.argv[1:]:
        for n in sorted({n for _, n in sizes_of(name)}):
            cells = [f"{coverage(name, s, n, repetitions_of(name, s, n)):.1f}" for s in SEEDS]
            print(f"| {name} | {n:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
