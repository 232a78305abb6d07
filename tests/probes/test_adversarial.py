"""Attacks agree with closed forms, a slow loop and foolbox, and stay within epsilon and bounds."""

import sys

import pytest
import torch
from torch import nn

from vicinal.errors import UserError
from vicinal.mixing import generator_at
from vicinal.probes import attacked_inputs, attacks

GRADIENT = ("fgsm", "i-fgsm-10", "pgd-20", "pgd-margin-20")
ALL = ("noise", *GRADIENT)


@pytest.fixture
def small(digits):
    return [(digits[0][:60], digits[1][:60])]


def linear(seed=0, features=8):
    """Return a linear network of two classes with inputs in [0, 1], some of them at the bounds."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(features, 2)
    model.weight.data = torch.randn(2, features, generator=generator)
    model.bias.data = -model.weight.data.sum(1) / 2
    x = (1.2 * torch.rand(200, features, generator=generator) - 0.1).clamp(0, 1)
    return model, x, torch.randint(2, (200,), generator=generator)


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_attacks_reach_the_optimum_of_a_linear_network_within_the_bounds(name, epsilon):
    model, x, y = linear()
    toward_own = (model.weight[y] - model.weight[1 - y]).detach()
    optimum = (x - epsilon * toward_own.sign()).clamp(0, 1)
    found = attacked_inputs(model, x, y, epsilon=epsilon, name=name)
    torch.testing.assert_close(found, optimum)
    margin = (toward_own * optimum).sum(1) + (model.bias[y] - model.bias[1 - y]).detach()
    correct = attacks(model, [(x, y)], epsilons=[epsilon], names=[name]).correct(name)[0]
    assert torch.equal(correct, margin > 0)
    assert 0 < correct.sum() < len(x)


def slow_ranks(model, judge, x, y, *, epsilon, name, seed, restarts):
    """Attack one example after the other, as the papers define it, without leaving early."""
    kind, _, steps = name.rpartition("-")
    steps = int(steps) if kind else {"fgsm": 1, "noise": 0}[name]
    size = epsilon / max(steps, 1) * (2.5 if "pgd" in name else 1)
    random = [
        2 * torch.rand(x.shape, generator=generator_at(seed, restart)) - 1
        for restart in range(restarts)
    ]
    result = []
    for i in range(len(x)):
        own, worst = y[i : i + 1], 0

        def rank(network, point, i=i):
            logits = network(point[None])[0].tolist()
            return sum(other >= logits[y[i]] for k, other in enumerate(logits) if k != y[i])

        worst = rank(judge, x[i])
        for unit in random:
            point = x[i].clone()
            if "pgd" in name:
                point += epsilon * unit[i]
            if name == "noise":
                point += epsilon * unit[i].sign()
            point = point.clamp(0, 1)
            for _ in range(steps):
                if judge is model:
                    worst = max(worst, rank(judge, point))
                leaf = point[None].clone().requires_grad_()
                logits = model(leaf)
                if "margin" in name:
                    others = logits[0, torch.arange(10) != own]
                    loss = others.max() - logits[0, own[0]]
                else:
                    loss = -logits.log_softmax(1)[0, own[0]]
                loss.backward()
                point = point + size * leaf.grad[0].sign()
                point = torch.minimum(torch.maximum(point, x[i] - epsilon), x[i] + epsilon)
                point = point.clamp(0, 1)
            worst = max(worst, rank(judge, point))
        result.append(worst)
    return torch.tensor(result)


@pytest.mark.parametrize("black", [False, True])
@pytest.mark.parametrize("name", ["noise", "fgsm", "i-fgsm-3", "pgd-4", "pgd-margin-4"])
def test_ranks_are_the_worst_of_a_slow_loop_that_never_leaves_early(digits, trained, name, black):
    model = trained(0)
    x, y = digits[0][:40], digits[1][:40]
    settings = {"epsilons": [0.08], "names": [name], "restarts": 2, "seed": 3}
    judge = trained(1) if black else model
    slow = slow_ranks(model, judge, x, y, epsilon=0.08, name=name, seed=3, restarts=2)
    for top in (1, 4):
        found = attacks(judge, [(x, y)], source=model if black else None, top=top, **settings)
        assert torch.equal(found.ranks[name][0], slow.clamp(max=top).int())
        assert torch.equal(found.correct(name, top=top)[0], slow < top)
    assert black or name == "noise" or slow.max() >= 2


def test_the_steps_agree_with_foolbox(digits, trained):
    foolbox = pytest.importorskip("foolbox")
    model, x, y = trained(0).eval(), digits[0][:100], digits[1][:100]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    unit = 2 * torch.rand(x.shape, generator=generator_at(0, 0)) - 1

    class FromOurStart(foolbox.attacks.LinfProjectedGradientDescentAttack):
        def get_random_start(self, x0, epsilon):
            return x0 + epsilon * foolbox.attacks.base.ep.astensor(unit)

    theirs = {
        "fgsm": foolbox.attacks.LinfFastGradientAttack(),
        "i-fgsm-10": foolbox.attacks.LinfBasicIterativeAttack(
            rel_stepsize=0.1, steps=10, random_start=False
        ),
        "pgd-20": FromOurStart(rel_stepsize=2.5 / 20, steps=20),
    }
    for name, attack in theirs.items():
        expected = attack(wrapped, x, y, epsilons=0.1)[0]
        ours = attacked_inputs(model, x, y, epsilon=0.1, name=name)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_epsilon_zero_changes_no_bit(digits, trained, name):
    x, y = digits[0][:50], digits[1][:50]
    assert torch.equal(attacked_inputs(trained(0), x, y, epsilon=0, name=name), x)
    found = attacks(trained(0), [(x, y)], epsilons=[0.0], names=[name])
    right = trained(0)(x).argmax(1) == y
    assert torch.equal(found.correct(name)[0], right)
    assert torch.equal(found.clean < 1, right)


def test_one_number_as_epsilons_is_refused(digits, trained):
    data = [(digits[0][:5], digits[1][:5])]
    with pytest.raises(UserError, match=r"epsilons: expected a sequence of numbers.*\[0\.1\]"):
        attacks(trained(0), data, epsilons=0.1, names=["fgsm"])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.5, 1.25), (-torch.inf, torch.inf)])
def test_attacked_inputs_stay_within_epsilon_and_bounds_and_use_them(
    digits, trained, name, low, high
):
    x, y = digits[0][:50].double(), digits[1][:50]
    found = attacked_inputs(trained(0), x.float(), y, epsilon=0.3, name=name, bounds=(low, high))
    assert found.min() >= low
    assert found.max() <= high
    change = (found.double() - x.float().double()).abs()
    assert change.max() <= 0.3 + 1e-6
    assert change.amax(1).min() > 0.29


def test_accuracy_falls_with_epsilon_and_iterated_attacks_are_the_stronger(digits, trained):
    epsilons = [0.0, 0.02, 0.05, 0.1, 0.2, 1.0]
    data = [(digits[0][:300], digits[1][:300])]
    found = attacks(trained(0), data, epsilons=epsilons, restarts=2)
    for name in ("noise", "i-fgsm-10", "pgd-20", "pgd-margin-20"):
        assert (found.accuracy(name).diff() <= 0.01).all(), name
    assert found.accuracy("noise")[0] > 0.85
    assert found.accuracy("pgd-20")[-1] == 0
    for name in GRADIENT[1:]:
        assert (found.accuracy(name) <= found.accuracy("fgsm") + 0.01).all()
        assert (found.accuracy(name) <= found.accuracy("noise") + 0.01).all()
    each = torch.stack([found.correct(name) for name in GRADIENT])
    assert torch.equal(found.correct(*GRADIENT), each.all(0))


def test_results_do_not_depend_on_the_batch_size_and_follow_the_seed(small, trained):
    settings = {"epsilons": [0.03, 0.08], "restarts": 2, "top": 3}
    whole = attacks(trained(0), small, **settings)
    pieces = list(zip(*(one.split(25) for one in small[0]), strict=True))
    split = attacks(trained(0), pieces, **settings)
    for name in ALL:
        assert torch.equal(whole.ranks[name], split.ranks[name]), name
    assert torch.equal(whole.targets, split.targets)
    x, y = small[0]
    first, again, other = (
        attacked_inputs(trained(0), x, y, epsilon=0.1, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_network_without_gradients_can_be_attacked_through_another_one(digits, trained):
    class Decides(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(trained(0)(x).argmax(1), 10).float() * 2

    data = [(digits[0][:100], digits[1][:100])]
    with pytest.raises(UserError, match="expected a network with gradients"):
        attacks(Decides(), data, epsilons=[0.1])
    found = attacks(Decides(), data, epsilons=[0.1], source=trained(1))
    same = attacks(trained(0), data, epsilons=[0.1], source=trained(1))
    for name in ALL:
        assert torch.equal(found.correct(name), same.correct(name))


def test_a_tie_counts_against_the_network():
    class Undecided(nn.Module):
        def forward(self, x):
            return 0 * x[:, :1].expand(-1, 4)

    found = attacks(Undecided(), [(torch.rand(5, 2), torch.arange(5) % 4)], epsilons=[0.1], top=4)
    assert found.clean.tolist() == [3] * 5
    assert found.accuracy("fgsm").item() == 0
    assert found.accuracy("fgsm", top=4).item() == 1


def test_attacks_leave_no_trace_in_networks_and_inputs_and_work_under_no_grad(small):
    model = nn.Sequential(nn.Linear(64, 9), nn.BatchNorm1d(9), nn.Dropout(), nn.Linear(9, 10))
    model[0].weight.requires_grad_(False)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    x = small[0][0].clone()
    with torch.no_grad():
        attacks(model, [(x, small[0][1])], epsilons=[0.1], source=nn.Linear(64, 10))
        attacks(model, [(x, small[0][1])], epsilons=[0.1])
    assert torch.equal(x, small[0][0])
    assert all(module.training for module in model.modules())
    assert [one.requires_grad for one in model.parameters()] == [False] + [True] * 5
    assert all(one.grad is None for one in model.parameters())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_networks_in_double_precision_start_at_the_same_inputs(small, trained):
    x, y = small[0]
    double = nn.Sequential(nn.Linear(64, 10)).double()
    single = nn.Sequential(nn.Linear(64, 10))
    single.load_state_dict(double.state_dict())
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = attacked_inputs(double, x, y, epsilon=0.1)
        result = attacks(double, small, epsilons=[0.1])
    finally:
        torch.set_default_dtype(default)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), attacked_inputs(single, x, y, epsilon=0.1))
    assert torch.equal(result.clean, attacks(single, small, epsilons=[0.1]).clean)


class Rooted(nn.Linear):
    def forward(self, x):
        return super().forward(x.abs().sqrt())


class NaNWhenAttacked(nn.Linear):
    def forward(self, x):
        return super().forward(x) + (torch.nan if x.max() > 0.5 else 0)


class NaNAtZero(nn.Linear):
    def forward(self, x):
        return super().forward(x) + x.sum(1, keepdim=True) / x.sum(1, keepdim=True)


X, Y = torch.full((4, 3), 0.5), torch.tensor([0, 1, 1, 0])
MODEL = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilons": [0.1, -0.1]}, r"^epsilons: .* from 0 to 1, .* got -0\.1.* write 8 / 255"),
        ({"epsilons": [8]}, "^epsilons: .* got 8"),
        ({"epsilons": [float("nan")]}, "^epsilons: .* got nan"),
        ({"epsilons": []}, "at least one name, one epsilon.* got 5 names, 0 epsilons"),
        ({"names": []}, "at least one name.* got 0 names"),
        ({"restarts": 0}, "restarts=0"),
        ({"top": 0}, "top=0"),
        ({"names": "pgd-20"}, r"^names: expected a sequence.* Pass \['pgd-20'\]"),
        ({"names": ["autoattack"], "top": 2}, "expected top=1 for autoattack.* got top=2"),
        ({"source": nn.Linear(3, 2).double()}, "^source: expected a network in torch.float32"),
        ({"names": ["pgd"]}, "^names: expected .*such as pgd-20, got 'pgd'"),
        ({"names": ["pgd-0"]}, "got 'pgd-0'"),
        ({"bounds": (1.0, 0.0)}, r"^bounds: .* got \(1.0, 0.0\)"),
        ({"data": [(3 * X, Y)]}, r"^inputs: .* from 0 to 1.* got 1.5 to 1.5.*nn.Sequential"),
        ({"data": [(X * torch.nan, Y)]}, "^inputs: .* got nan"),
        ({"data": [(X.byte(), Y)]}, r"^inputs: expected floating.*inputs.float\(\) / 255"),
        ({"data": []}, "at least one example"),
        ({"data": [X]}, "expected batches"),
        ({"data": [(X, Y + 5)]}, "expected labels from 0 to 1.* got 5"),
        ({"data": [(X, Y + 0.5)]}, "expected integer labels"),
        ({"model": nn.Sequential(MODEL, nn.Softmax(1))}, "got probabilities"),
        ({"model": nn.Linear(3, 1)}, "at least two classes"),
        ({"model": Rooted(3, 2), "data": [(0 * X, Y)]}, "finite gradients .* got NaN"),
        ({"model": NaNWhenAttacked(3, 2)}, "got NaN"),
        (
            {"data": [(X, Y), (X[:1] * 0, Y[:1])], "model": NaNAtZero(3, 2)},
            "a batch, row 0: .* got nan",
        ),
        ({"source": nn.Sequential(MODEL, nn.Softmax(1))}, "got probabilities"),
    ],
)
def test_bad_input_is_named_in_one_sentence(changes, sentence):
    arguments = {"model": MODEL, "data": [(X, Y)], "epsilons": [0.1]} | changes
    with pytest.raises(UserError, match=sentence):
        attacks(**arguments)


def test_results_of_attacks_that_were_not_run_are_an_error():
    found = attacks(MODEL, [(X, Y)], epsilons=[0.1], names=["fgsm"])
    for names, top in [(("pgd-20",), 1), ((), 1), (("fgsm",), 2), (("fgsm",), 0)]:
        with pytest.raises(ValueError, match="expected some of fgsm, and top from 1 to 1"):
            found.correct(*names, top=top)


def test_attacked_inputs_need_labels_and_logits():
    with pytest.raises(UserError, match=r"expected labels from 0 to 1.* got 2"):
        attacked_inputs(MODEL, X, Y + 2, epsilon=0.1)
    with pytest.raises(UserError, match="got probabilities"):
        attacked_inputs(nn.Sequential(MODEL, nn.Softmax(1)), X, Y, epsilon=0.1)


def test_small_batches_of_logits_that_sum_to_one_by_chance_are_no_probabilities():
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[1.0], [3.0]])
    x, y = torch.tensor([[0.25], [1.0], [0.5]]), torch.ones(3, dtype=torch.long)
    found = attacks(model, [(x[:1], y[:1]), (x[1:], y[1:])], epsilons=[0.1])
    assert found.accuracy("pgd-20").item() == 1


def test_autoattack_leaves_what_pgd_leaves_and_the_generator_as_it_was(digits, trained):
    pytest.importorskip("pyautoattack")
    model = nn.Sequential(nn.Flatten(), trained(0))
    data = [(digits[0][:20].view(-1, 1, 8, 8), digits[1][:20])]
    state = torch.get_rng_state()
    names = ("pgd-20", "pgd-margin-20", "autoattack")
    found = attacks(model, data, epsilons=[0.12], names=names)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < found.correct("autoattack").sum() < 20
    assert (found.correct("autoattack") <= found.correct("pgd-20", "pgd-margin-20")).all()
    with pytest.raises(UserError, match=r"^autoattack: expected images .* got inputs \(\d+, 64\)"):
        attacks(trained(0), [(digits[0][:20], digits[1][:20])], epsilons=[0.1], names=names)


def test_autoattack_without_its_package_is_an_error_with_the_command(monkeypatch, small, trained):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match="pip install pyautoattack"):
        attacks(trained(0), small, epsilons=[0.1], names=["autoattack"])


def test_inputs_that_were_made_in_inference_mode_are_attacked_like_others():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with torch.inference_mode():
        x = torch.rand(9, 3, 2, 2)
    y = torch.arange(9) % 3
    found = attacks(model, [(x, y)], epsilons=[0.1])
    again = attacks(model, [(x.clone(), y)], epsilons=[0.1])
    assert torch.equal(found.correct("fgsm"), again.correct("fgsm"))
