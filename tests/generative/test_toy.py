import math

import numpy as np
import pytest
import torch
from scipy import stats

from vicinal.generative.measures import coverage, divergence, energy_distance
from vicinal.generative.toy import draw_real, mode_centers, train

STD = 0.01


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("data", "modes"), [("grid", 25), ("ring", 8)])
def test_real_samples_find_all_modes_and_nearly_all_are_good(data, modes):
    centers = mode_centers(data)
    found = coverage(draw_real(centers, STD, 5000, rng()), centers, STD)
    assert found.modes == modes
    # A Gaussian in the plane is farther than 4 std from its center with probability exp(-8).
    assert found.good == pytest.approx(1 - math.exp(-8), abs=0.002)


@pytest.mark.parametrize("data", ["grid", "ring"])
def test_samples_of_a_small_std_are_good_too(data):
    centers = mode_centers(data)
    found = coverage(draw_real(centers, 1e-5, 5000, rng()), centers, 1e-5)
    assert found.good == pytest.approx(1 - math.exp(-8), abs=0.005)


def test_samples_of_one_mode_find_one_mode():
    centers = mode_centers("grid")
    found = coverage(draw_real(centers[3:4], STD, 1000, rng()), centers, STD)
    assert found.modes == 1
    assert found.good > 0.99


def test_samples_strewn_everywhere_find_no_mode():
    samples = torch.rand(1000, 2, generator=rng()) * 2.5 - 1.25
    found = coverage(samples, mode_centers("grid"), STD)
    assert found.modes == 0
    # 25 discs of radius 4 std in a square of side 2.5
    assert found.good == pytest.approx(25 * math.pi * 0.04**2 / 2.5**2, abs=0.02)


def test_a_sample_on_either_side_of_the_limit_is_good_or_not():
    samples = torch.tensor([[1.039, 0.0], [1.041, 0.0]])
    assert coverage(samples, mode_centers("ring"), STD).good == 0.5


def test_the_modes_are_where_they_should_be():
    ring = mode_centers("ring")
    torch.testing.assert_close(ring.norm(dim=1), torch.ones(8))
    assert torch.cdist(ring, ring).topk(2, largest=False).values[:, 1].std() < 1e-5
    grid = {tuple(one) for one in mode_centers("grid").tolist()}
    assert grid == {(x / 2, y / 2) for x in range(-2, 3) for y in range(-2, 3)}


def test_real_samples_have_equal_weights_and_their_std():
    centers = mode_centers("ring")
    samples = draw_real(centers, STD, 8000, rng())
    nearest = torch.cdist(samples, centers).argmin(1)
    assert torch.bincount(nearest).min() > 850
    assert (samples - centers[nearest]).std().item() == pytest.approx(STD, rel=0.05)


def test_the_energy_distance_is_that_of_a_slow_loop():
    x, y = torch.randn(2, 7, 2, generator=rng())
    y = y[:5] + 1

    def mean(a, b):
        return np.mean([math.dist(p, q) for p in a.tolist() for q in b.tolist()])

    expected = math.sqrt(2 * mean(x, y) - mean(x, x) - mean(y, y))
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_the_energy_distance_in_one_dimension_is_that_of_scipy():
    x, y = torch.randn(50, generator=rng()), torch.rand(40, generator=rng(1))
    expected = stats.energy_distance(x.numpy(), y.numpy())
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(expected, rel=1e-5)


def test_the_energy_distance_is_zero_for_equal_samples_and_nan_for_infinite_ones():
    x = torch.randn(9, 2, generator=rng())
    assert energy_distance(x, x) == 0
    assert math.isnan(energy_distance(torch.full((3, 2), math.inf), x))


def test_samples_that_are_one_point_or_far_away_or_not_finite_have_diverged():
    point = torch.ones(50, 2) + 0.001 * torch.randn(50, 2, generator=rng())
    assert divergence(point, STD) == "one point"
    away = torch.tensor([[0.0, 0.0], [0.0, 1.6], [-1.6, 0.0]])
    assert divergence(away, STD) == "67% of the samples far from the data"
    assert divergence(torch.tensor([[0.0, math.nan], [1.0, 0.0]]), STD) == "not finite"


def test_samples_of_one_mode_or_of_a_line_or_of_the_data_have_not_diverged():
    for samples in (
        draw_real(torch.zeros(1, 2), STD, 500, rng()),
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        draw_real(mode_centers("grid"), 0.1, 500, rng()),
    ):
        assert divergence(samples, STD) == ""


def last(**changes):
    settings = {"data": "ring", "arm": "plain", "seed": 0, "iterations": 2, "width": 8}
    settings |= {"batch_size": 16, "samples": 50} | changes
    return dict(train(**settings, yield_at=[settings["iterations"]]))[settings["iterations"]]


def test_training_is_repeatable_and_each_setting_changes_it():
    base = last()
    assert torch.equal(base, last())
    for changes in (
        {"arm": "paper"},
        {"arm": "author"},
        {"seed": 1},
        {"data": "grid"},
        {"loss": "non-saturating"},
        {"discriminator_steps": 1},
        {"std": 0.1},
        {"width": 9},
        {"batch_size": 17},
        {"latent": 3},
    ):
        assert not torch.equal(base, last(**changes)), changes
    assert not torch.equal(last(arm="paper"), last(arm="paper", alpha=1.0))
    assert not torch.equal(last(arm="author"), last(arm="author", share=0.5))


def test_the_arms_of_a_seed_start_from_the_same_weights():
    drawn = [last(arm=arm, iterations=1, discriminator_steps=1) for arm in ("plain", "author")]
    # One step of Adam moves each weight by at most 0.001.
    torch.testing.assert_close(*drawn, atol=0.02, rtol=0)


def test_training_brings_the_samples_closer_to_the_data():
    real = draw_real(mode_centers("ring"), STD, 500, rng())
    drawn = train(
        "ring",
        "author",
        0,
        iterations=150,
        yield_at=[1, 150],
        width=32,
        batch_size=64,
        loss="non-saturating",
        samples=500,
    )
    first, trained = (energy_distance(samples, real) for _, samples in drawn)
    assert trained < first / 1.5
