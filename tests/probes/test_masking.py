"""Each check for masked gradients fires on a network that masks them, and on no other."""

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from vicinal.errors import UserError
from vicinal.probes import attacks, masking_checks
from vicinal.probes.masking import _sign_test

NAMES = ("noise", "fgsm", "i-fgsm-10", "i-fgsm-20", "pgd-20")
EPSILONS = [0.1, 0.2, 0.3, 1.0]


class Saturated(nn.Module):
    def forward(self, logits):
        return 1e5 * logits


class Steps(nn.Module):
    """A step function, whose gradient is zero."""

    def forward(self, x):
        return (4 * x).round() / 4


class Random(nn.Module):
    def forward(self, x):
        return x + 0.3 * torch.randn_like(x)


class GradientOfMultiples(torch.autograd.Function):
    """The identity, whose gradient has the wrong sign except at multiples of 0.02."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return torch.where((50 * x - (50 * x).round()).abs() < 1e-3, gradient, -gradient)


class Misleading(nn.Module):
    def forward(self, x):
        return GradientOfMultiples.apply(x)


@pytest.fixture
def checks_of(digits, trained):
    """Return a function: the checks of a network, by name, with one trained apart as black box."""

    def checks(model, names=NAMES, epsilons=EPSILONS, n=150):
        data = [(digits[0][:n], digits[1][:n])]
        white = attacks(model, data, epsilons=epsilons, names=names)
        black = attacks(model, data, epsilons=epsilons, names=names, source=trained(1))
        return {check.name: check for check in masking_checks(white, black)}

    return checks


def failed(checks):
    return {name for name, check in checks.items() if check.ok is False}


def test_a_network_that_does_not_mask_its_gradients_passes_all_checks(checks_of, trained):
    checks = checks_of(trained(0))
    assert all(check.ok for check in checks.values()), failed(checks)
    assert checks["unbounded epsilon"].numbers["correct"] == 0
    assert checks["noise"].sentence.endswith("(the least favorable of 12 comparisons, p = 1).")


def test_saturated_logits_are_found(checks_of, trained):
    checks = checks_of(nn.Sequential(trained(0), Saturated()))
    found = failed(checks)
    assert found >= {"nonzero gradients", "unbounded epsilon", "black box", "noise"}
    zero = checks["nonzero gradients"]
    assert zero.numbers["zero"] > 0.9 * zero.numbers["examples"]
    assert "cannot change these" in zero.sentence


def test_the_margin_loss_is_not_fooled_by_saturated_logits(checks_of, trained):
    checks = checks_of(nn.Sequential(trained(0), Saturated()), names=("noise", "pgd-margin-20"))
    assert failed(checks) == {"nonzero gradients"}


def test_a_step_function_is_found(checks_of, trained):
    found = failed(checks_of(nn.Sequential(Steps(), trained(0))))
    assert found >= {"nonzero gradients", "unbounded epsilon", "black box", "noise"}


def test_a_network_that_is_random_in_eval_mode_is_found(checks_of, trained):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checks = checks_of(nn.Sequential(Random(), trained(0)), names=("pgd-20",))
    assert "same outputs twice" in failed(checks)
    assert "random in eval mode" in checks["same outputs twice"].sentence


def test_epsilon_zero_is_not_compared(checks_of, trained):
    checks = checks_of(trained(0), epsilons=[0.0, *EPSILONS])
    assert checks["noise"].numbers == checks_of(trained(0))["noise"].numbers


def test_a_network_whose_outputs_depend_on_the_other_examples_is_found():
    torch.manual_seed(0)
    x = torch.rand(40, 3, dtype=torch.float32)
    norm = nn.BatchNorm1d(3, track_running_stats=False)
    found = attacks(nn.Sequential(norm, nn.Linear(3, 2)), [(x, torch.arange(40) % 2)], epsilons=[0])
    attacks(norm, [(x[:3], torch.arange(3))], epsilons=[0])  # too few to be divided
    check = masking_checks(found)[0]
    assert not check.ok
    assert "depends on the other examples of a batch" in check.sentence


class Sharp(nn.Module):
    def forward(self, logits):
        return 1000 * logits


def test_large_logits_do_not_hide_random_outputs(checks_of, trained):
    assert checks_of(nn.Sequential(trained(0), Sharp()), names=("noise",))["same outputs twice"].ok
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(Random(), trained(0), Sharp())
        check = checks_of(network, names=("noise",))["same outputs twice"]
    assert not check.ok
    assert "other logits for 150 of 150 examples" in check.sentence


class Masked(nn.Module):
    """Makes the last class impossible, or so unlikely that its logit hides all others."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, logits):
        last = torch.full_like(logits[:, :1], self.value)
        return torch.cat([logits[:, :-1], last], 1)


@pytest.mark.parametrize("value", [-torch.inf, -1e4])
def test_impossible_classes_neither_hide_random_outputs_nor_look_like_them(
    checks_of, trained, value
):
    honest = checks_of(nn.Sequential(trained(0), Masked(value)), names=("pgd-20",))
    assert honest["same outputs twice"].ok
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(Random(), trained(0), Masked(value))
        checks = checks_of(network, names=("pgd-20",))
    assert "same outputs twice" in failed(checks)


def test_the_whole_range_may_be_rounded():
    x, y = torch.linspace(-2.4, 2.8, 20)[:, None], (torch.arange(20) >= 10).long()
    model = nn.Linear(1, 2)
    for bounds, whole in (((-2.4, 2.8), 5.2), ((-0.7, 0.1), 0.8), ((-1.8, 2.1), 3.9)):
        inside = x.clamp(*bounds)
        white = attacks(model, [(inside, y)], epsilons=[whole], bounds=bounds, names=("pgd-2",))
        check = next(one for one in masking_checks(white) if one.name == "unbounded epsilon")
        assert "it needs the epsilon" not in check.sentence


def test_a_network_in_half_precision_is_not_attacked():
    model = nn.Linear(4, 2).bfloat16()
    with pytest.raises(UserError, match=r"expected a network in float32 or float64, got torch\.bf"):
        attacks(model, [(torch.rand(3, 4), torch.tensor([0, 1, 0]))], epsilons=[0.1])


def test_gradients_that_mislead_iterated_attacks_are_found(checks_of, trained):
    checks = checks_of(nn.Sequential(Misleading(), trained(0)))
    found = failed(checks)
    assert found >= {"iterated attacks against FGSM", "more steps", "larger epsilon", "black box"}
    fgsm = checks["iterated attacks against FGSM"]
    assert fgsm.sentence.startswith("fgsm changes ")
    assert fgsm.numbers["p"] < 1e-6
    assert "i-fgsm-10 changes " in checks["more steps"].sentence
    assert "i-fgsm-20 at 0.2" in checks["more steps"].sentence


def test_checks_without_their_attacks_name_what_is_missing(digits, trained):
    data = [(digits[0][:9], digits[1][:9])]
    white = attacks(trained(0), data, epsilons=[0.1], names=["fgsm"])
    checks = {check.name: check for check in masking_checks(white)}
    missing = {name: check.sentence for name, check in checks.items() if check.ok is None}
    assert missing.keys() == checks.keys() - {"same outputs twice", "nonzero gradients"}
    assert "such as pgd-20 and pgd-100" in missing["more steps"]
    assert "the epsilon 1" in missing["unbounded epsilon"]
    one_class = [(digits[0][digits[1] == 3], digits[1][digits[1] == 3])]
    white = attacks(trained(0), one_class, epsilons=[1.0], names=["i-fgsm-3"])
    check = {check.name: check for check in masking_checks(white)}["unbounded epsilon"]
    assert check.ok is None
    assert "two classes" in check.sentence


def test_black_box_results_of_other_examples_or_epsilons_are_an_error(digits, trained):
    def found(first, epsilon):
        data = [(digits[0][first : first + 9], digits[1][first : first + 9])]
        return attacks(trained(0), data, epsilons=[epsilon], names=["i-fgsm-3"])

    masking_checks(found(0, 0.1), found(0, 0.1))
    for other in (found(1, 0.1), found(0, 0.2)):
        with pytest.raises(UserError, match="the same epsilons and examples"):
            masking_checks(found(0, 0.1), other)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (7, 2), (2, 7), (60, 40), (5200, 4800)])
def test_the_sign_test_agrees_with_scipy(lost, won):
    n = lost + won
    expected = binomtest(lost, n, alternative="greater").pvalue if n else 1.0
    assert _sign_test(lost, won) == pytest.approx(expected, rel=1e-8)
