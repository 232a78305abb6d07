"""Misses and gradients between examples against slow loops, finite differences and known cases."""

import pytest
import torch
from torch import nn

from vicinal.errors import UserError
from vicinal.probes import between


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 4)).double()


def examples(n=40):
    chance = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, generator=chance).double(), torch.randint(4, (n,), generator=chance)


class Recorded(nn.Module):
    """Keeps what a network is called with."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def test_misses_and_gradients_are_those_of_a_slow_loop_and_of_finite_differences():
    (x, y), model = examples(), Recorded(network())
    found = between(model, [(x, y)], pairs=13, lams=5, seed=1)
    blends = torch.cat(model.seen[1:]).reshape(5, 13, 3)
    model = model.model.eval()
    assert found.lam.tolist() == [0, 0.25, 0.5, 0.75, 1]
    for k in range(13):
        # At the ends, the blends are the examples themselves, bit for bit.
        i = int((x == blends[4, k]).all(1).nonzero())
        j = int((x == blends[0, k]).all(1).nonzero())
        assert found.classes[k].tolist() == [int(y[i]), int(y[j])]
        assert y[i] != y[j]
        for row, lam in enumerate(found.lam):
            blend = lam * x[i] + (1 - lam) * x[j]
            torch.testing.assert_close(blends[row, k], blend)
            p = model(blend[None]).softmax(1)[0]
            predicted = int(p.argmax())
            assert bool(found.missed[row, k]) == (predicted not in (int(y[i]), int(y[j])))
            steps = 1e-6 * torch.eye(3).double()
            with torch.no_grad():
                up, down = (model(blend + sign * steps).log_softmax(1) for sign in (1, -1))
            norm = float(((up - down)[:, predicted] / 2e-6).norm())
            assert float(found.gradient_norms[row, k]) == pytest.approx(norm, rel=1e-4)
    assert found.miss_rate.tolist() == found.missed.double().mean(1).tolist()
    assert found.gradient_norm.shape == (5,)


def test_the_gradient_of_a_linear_network_is_known():
    x, y = torch.eye(2) * 3, torch.tensor([0, 1])
    found = between(nn.Identity(), [(x, y)], pairs=6, lams=3)
    # The gradient of log p_k by the logits is e_k - p; at both ends p is (s, 1 - s).
    s = float(torch.tensor([3.0, 0.0]).softmax(0)[1])
    expected = torch.tensor([2**0.5 * s, 2**0.5 / 2, 2**0.5 * s])
    torch.testing.assert_close(found.gradient_norms, expected[:, None].expand(3, 6))
    assert not found.missed.any()


def test_a_network_that_always_predicts_one_class_misses_all_pairs_without_it():
    x, y = examples()
    model = nn.Linear(3, 4).double()
    nn.init.zeros_(model.weight)
    model.bias.data = torch.tensor([0.0, 9.0, 0.0, 0.0]).double()
    found = between(model, [(x, y)], pairs=50)
    assert torch.equal(found.missed[3], ~(found.classes == 1).any(1))
    assert (found.gradient_norms == 0).all()


def test_pairs_depend_on_the_seed_and_not_on_the_batch_size_or_the_network():
    x, y = examples()
    one = between(network(), [(x, y)], pairs=100)
    parts = between(network(), list(zip(x.split(7), y.split(7), strict=True)), pairs=100)
    torch.testing.assert_close(one, parts)
    assert torch.equal(between(nn.Linear(3, 4), [(x, y)], pairs=100).classes, one.classes)
    assert not torch.equal(between(network(), [(x, y)], pairs=100, seed=1).classes, one.classes)


def test_all_pairs_of_different_classes_are_equally_frequent_also_of_a_large_data_set():
    # 5,000 examples in the order of their classes, of which 1,000 are kept.
    x, y = torch.randn(5000, 3), torch.tensor([0] * 5 + [1] * 3 + [2] * 2).repeat_interleave(500)
    counts = torch.zeros(3, 3)
    for seed in range(20):
        data = list(zip(x.split(999), y.split(999), strict=True))
        found = between(nn.Identity(), data, pairs=100, lams=2, seed=seed)
        for i, j in found.classes:
            counts[i, j] += 1
    whole = between(nn.Identity(), [(x, y)], pairs=100, lams=2, seed=19)
    torch.testing.assert_close(whole, found)
    share = torch.tensor([0.5, 0.3, 0.2])
    expected = 2000 * (share[:, None] * share) * (1 - torch.eye(3)) / 0.62
    # About four standard deviations, with those of the samples.
    assert ((counts - expected).abs() < 4.5 * expected.sqrt().clamp(0.1)).all(), counts


def test_the_network_keeps_its_mode_and_has_no_gradients():
    model, (x, y) = network().train(), examples()
    with torch.no_grad():
        between(model, [(x, y)], pairs=3)
    assert model.training
    assert all(one.requires_grad and one.grad is None for one in model.parameters())


class Rounds(nn.Module):
    def forward(self, x):
        return x.detach() * 2


X, Y = torch.randn(6, 3), torch.arange(6) % 3


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (Rounds(), [(X, Y)], "model: expected a network with gradients with respect to its inputs"),
        (nn.Softmax(1), [(X, Y)], "outputs for blends: expected logits, got probabilities"),
        (nn.Identity(), [(X, Y * 0)], "data: expected at least two classes, got class 0 only"),
        (nn.Identity(), [(X, Y + 1)], "data, targets: expected labels from 0 to 2"),
        (nn.Identity(), [(X, Y.float())], "data, targets: expected integer labels"),
        (nn.Identity(), [(X.long(), Y)], "expected floating-point inputs.*got torch.int64"),
        (nn.Identity(), [(X, Y), (X[:, :2], Y)], r"inputs of one shape.*got \(3,\) and \(2,\)"),
        (nn.Identity(), [(X * torch.nan, Y)], "row 0: expected finite logits, got nan"),
        (nn.Identity(), [], "expected at least one example"),
    ],
)
def test_networks_and_data_that_do_not_fit_are_refused(model, data, message):
    with pytest.raises(UserError, match=message):
        between(model, data, pairs=5)


@pytest.mark.parametrize("numbers", [{"pairs": 0}, {"lams": 1}])
def test_a_line_needs_a_pair_and_two_ends(numbers):
    with pytest.raises(UserError, match="between: expected at least one pair and two values"):
        between(nn.Identity(), [(X, Y)], **numbers)
