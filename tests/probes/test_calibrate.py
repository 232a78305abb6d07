"""Calibration against scikit-learn, a grid, and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torch import nn

from vicinal.errors import UserError
from vicinal.probes import calibration, calibration_of_logits


def logits_of(n=600, classes=5, sharpness=3.0, seed=0):
    """Return logits that are overconfident, and classes."""
    chance = np.random.default_rng(seed)
    y = chance.integers(0, classes, n)
    z = chance.normal(size=(n, classes)) + 1.2 * np.eye(classes)[y]
    return torch.tensor(sharpness * z), torch.tensor(y)


def test_a_case_worked_out_by_hand():
    # Three bins of one example each: confidences 0.6, 0.8, 0.9, of which the second is wrong.
    p = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    found = calibration_of_logits(p.log(), torch.tensor([0, 0, 1])).raw
    assert found.nll == pytest.approx(-(math.log(0.6) + math.log(0.2) + math.log(0.9)) / 3)
    assert found.brier == pytest.approx((2 * 0.16 + 2 * 0.64 + 2 * 0.01) / 3)
    assert found.ece == pytest.approx((0.4 + 0.8 + 0.1) / 3)
    assert found.nll_values.tolist() == pytest.approx([-math.log(q) for q in (0.6, 0.2, 0.9)])
    assert found.reliability.confidence.tolist() == pytest.approx([0.6, 0.8, 0.9])
    assert found.reliability.accuracy.tolist() == [1, 0, 1]
    assert found.reliability.examples.tolist() == [1, 1, 1]


def test_nll_and_brier_are_those_of_scikit_learn_and_ece_that_of_its_quantile_bins():
    z, y = logits_of()
    p = z.softmax(1).numpy()
    found = calibration_of_logits(z, y).raw
    assert found.nll == pytest.approx(sk.log_loss(y, p))
    brier = sum(sk.brier_score_loss(y.numpy() == k, p[:, k]) for k in range(5))
    assert found.brier == pytest.approx(brier)
    right, confidence = p.argmax(1) == y.numpy(), p.max(1)
    curve = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    assert found.ece == pytest.approx(np.abs(curve[0] - curve[1]).mean())
    assert found.reliability.accuracy.tolist() == pytest.approx(curve[0].tolist())
    assert found.reliability.confidence.tolist() == pytest.approx(curve[1].tolist())
    assert found.reliability.examples.tolist() == [40] * 15


def test_the_interval_of_a_bin_is_that_of_wilson():
    z, y = logits_of()
    diagram = calibration_of_logits(z, y).raw.reliability
    for share, low, high, n in zip(*diagram[1:], strict=True):
        successes = round(float(share * n))
        expected = binomtest(successes, int(n)).proportion_ci(method="wilson")
        assert (float(low), float(high)) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 3.0, 400.0])
def test_the_temperature_is_the_best_of_a_fine_grid(sharpness):
    z, y = logits_of(sharpness=sharpness)
    found = calibration_of_logits(z, y, held_out=(z, y))
    (temperature,) = found.temperatures
    grid = temperature * np.linspace(0.9, 1.1, 401)
    losses = [float(nn.functional.cross_entropy(z / one, y)) for one in grid]
    assert np.argmin(losses) == 200
    assert found.scaled.nll == pytest.approx(min(losses))
    wide = [float(nn.functional.cross_entropy(z / one, y)) for one in np.geomspace(1e-3, 1e3, 50)]
    assert found.scaled.nll <= min(wide)
    assert found.raw.nll >= found.scaled.nll


def test_each_half_is_judged_with_the_temperature_of_the_other():
    z, y = logits_of(n=101)
    found = calibration_of_logits(z, y, seed=3)
    first, second = found.temperatures
    assert first != second
    by_first = nn.functional.cross_entropy(z / first, y, reduction="none")
    by_second = nn.functional.cross_entropy(z / second, y, reduction="none")
    one = torch.isclose(found.scaled.nll_values, by_first)
    assert (one ^ torch.isclose(found.scaled.nll_values, by_second)).all()
    assert int(one.sum()) == 50
    fitted = calibration_of_logits(z[one], y[one], held_out=(z[~one], y[~one]))
    assert fitted.temperatures[0] == pytest.approx(first)
    assert fitted.scaled.nll == pytest.approx(float(by_first[one].mean()))


def test_a_seed_repeats_the_halves_and_another_seed_draws_others():
    z, y = logits_of(n=100)
    again, other = calibration_of_logits(z, y), calibration_of_logits(z, y, seed=1)
    assert calibration_of_logits(z, y).temperatures == again.temperatures
    assert again.temperatures != other.temperatures
    assert torch.equal(again.raw.nll_values, other.raw.nll_values)


def test_an_ensemble_predicts_the_mean_of_the_probabilities():
    members = torch.stack([logits_of(seed=0)[0], logits_of(seed=0)[0].flip(1), logits_of()[0] / 9])
    _, y = logits_of()
    found = calibration_of_logits(members, y)
    mean = members.softmax(2).mean(0).log()
    expected = calibration_of_logits(mean, y)
    assert found.raw.nll == pytest.approx(sk.log_loss(y, mean.exp().numpy()))
    assert found.scaled.ece == pytest.approx(expected.scaled.ece)
    assert found.temperatures == pytest.approx(expected.temperatures)


def test_a_network_gives_what_its_logits_give_whatever_the_batch_size():
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(50, 4), torch.randint(3, (50,))
    expected = calibration_of_logits(model(x), y)
    for size in (7, 50):
        found = calibration(model, list(zip(x.split(size), y.split(size), strict=True)))
        assert found.temperatures == pytest.approx(expected.temperatures, rel=1e-4)
        torch.testing.assert_close(
            found.scaled.nll_values, expected.scaled.nll_values, rtol=1e-4, atol=1e-6
        )
    held_out = calibration(model, [(x, y)], held_out=[(x[:9], y[:9])])
    assert len(held_out.temperatures) == 1


def test_the_error_of_a_perfectly_calibrated_network_is_the_one_expected_by_chance():
    chance, errors, expected = np.random.default_rng(0), [], []
    for _ in range(60):
        z = 2 * chance.normal(size=(900, 4))
        p = torch.tensor(z).softmax(1).numpy()
        y = (p.cumsum(1) > chance.random((900, 1))).argmax(1)
        found = calibration_of_logits(z, y)
        errors.append(found.raw.ece)
        expected.append(found.raw.ece_by_chance)
        assert min(found.temperatures) > 0.7
        assert max(found.temperatures) < 1.5
    error = np.std(errors) / 60**0.5
    assert np.mean(errors) == pytest.approx(np.mean(expected), abs=3 * error)
    assert error < 0.03 * np.mean(errors)


def test_the_order_of_the_examples_does_not_matter_even_with_equal_confidences():
    z, y = logits_of(n=90)
    z = z.round()
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    one, other = calibration_of_logits(z, y).raw, calibration_of_logits(z[rows], y[rows]).raw
    torch.testing.assert_close(one.ece_values[rows], other.ece_values)
    torch.testing.assert_close(one.reliability, other.reliability)


def test_a_constant_prediction_has_one_bin_and_the_gap_as_its_error():
    z, y = torch.tensor([[2.0, 0.0]]).repeat(40, 1), torch.arange(40) % 4 // 3
    found = calibration_of_logits(z, y).raw
    assert found.reliability.examples.tolist() == [40]
    assert found.ece == pytest.approx(float(z[0].softmax(0)[0]) - 0.75)


def test_without_errors_the_logits_stay_as_they_are_and_below_chance_they_become_equal():
    y = torch.arange(20) % 2
    perfect = calibration_of_logits(5 * torch.eye(2)[y], y)
    assert perfect.temperatures == (1, 1)
    assert torch.equal(perfect.raw.nll_values, perfect.scaled.nll_values)
    wrong = calibration_of_logits(-5 * torch.eye(2)[y], y)
    assert wrong.temperatures == (math.inf, math.inf)
    assert wrong.scaled.nll == pytest.approx(math.log(2))
    # Equal probabilities do not change which predictions are correct: none of them.
    assert wrong.scaled.ece == pytest.approx(0.5)
    assert wrong.scaled.reliability.accuracy.tolist() == [0]
    equal = calibration_of_logits(torch.zeros(20, 2), y)
    assert (equal.temperatures, equal.raw.ece) == ((1, 1), 0)


def test_impossible_classes_stay_impossible_and_a_true_one_makes_the_nll_infinite():
    z, y = logits_of(n=40)
    padded = torch.cat([z, torch.full((40, 1), -torch.inf)], 1)
    for sign in (1, -1):  # the second has an infinite temperature
        bare = calibration_of_logits(sign * z, y)
        found = calibration_of_logits(torch.cat([sign * z, padded[:, 5:]], 1), y)
        assert found.temperatures == pytest.approx(bare.temperatures)
        torch.testing.assert_close(found.scaled.nll_values, bare.scaled.nll_values)
        torch.testing.assert_close(found.scaled.brier_values, bare.scaled.brier_values)
    assert math.isinf(found.temperatures[0])
    held_out = calibration_of_logits(padded, torch.full((40,), 5), held_out=(padded, y))
    assert held_out.raw.nll == math.inf
    with pytest.raises(UserError, match=r"no temperature.*got minus infinity for 20 examples"):
        calibration_of_logits(padded, torch.full((40,), 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, y: (z.softmax(1), y), "^logits: expected logits, got probabilities"),
        (lambda z, y: (z[:1], y[:1]), "expected at least two examples.*pass held_out"),
        (lambda z, y: (z[:0], y[:0]), "at least one example"),
        (lambda z, y: (z[:, :1], y), "two classes"),
        (lambda z, y: (z[:, 0], y), r"\(n, classes\) or \(seeds, n, classes\)"),
        (lambda z, y: (z.long(), y), "floating-point"),
        (lambda z, y: (z, y[:5]), "expected one label for each of 20 examples, got 5"),
        (lambda z, y: (z, y + 1), "targets: expected labels from 0 to 4"),
        (lambda z, y: (z * torch.nan, y), "row 0: expected finite logits, got nan"),
        (lambda z, y: (z.exp() * torch.inf, y), "expected finite logits, got inf"),
    ],
)
def test_logits_or_targets_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        calibration_of_logits(*change(*logits_of(n=20)))


def test_the_network_of_an_ensemble_that_returns_probabilities_is_refused():
    z, y = logits_of(n=20)
    with pytest.raises(UserError, match="got probabilities"):
        calibration_of_logits(torch.stack([z, z]).softmax(2), y)
