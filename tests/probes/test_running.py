"""Probes check what they get, and leave no trace in the network."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vicinal.errors import UserError
from vicinal.probes.running import eval_mode, input_gradient, predictions_of

X, Y = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 2


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


def test_modes_flags_and_statistics_are_restored_even_after_an_error():
    model = network()
    model[0].weight.requires_grad_(False)
    model[2].eval()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    predictions_of(model, [(X, Y)])
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
        assert not any(one.requires_grad for one in model.parameters())
    with pytest.raises(UserError):
        predictions_of(model, [(X, Y + 1)])
    with pytest.raises(RuntimeError):
        predictions_of(model, [(X[:, :2], Y)])
    assert [one.training for one in model] == [True, True, False, True]
    assert [one.requires_grad for one in model.parameters()] == [False] + [True] * 5
    for name, one in model.state_dict().items():
        assert torch.equal(one, before[name])
    assert all(one.grad is None for one in model.parameters())


def test_predictions_are_those_of_eval_mode_in_the_order_and_dtype_of_data_and_network():
    model = network().double()
    loader = DataLoader(TensorDataset(X, Y.to(torch.uint8)), batch_size=3)
    logits, labels = predictions_of(model, loader)
    assert (logits.dtype, labels.dtype) == (torch.float64, torch.int64)
    torch.testing.assert_close(logits, model.eval()(X.double()).detach())
    assert labels.tolist() == Y.tolist()


def test_integer_inputs_stay_integers():
    ids = torch.tensor([[1, 2], [3, 0]])
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2))
    assert predictions_of(model, [(ids, Y[:2])])[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y), r"expected batches \(inputs, targets\).*got Tensor. Pass a DataLoader, or a list"),
        ([(X,)], r"expected batches \(inputs, targets\) of tensors, got \(Tensor\)"),
        ([{"x": X}], "got dict"),
        ([(X, "label")], r"got \(Tensor, str\)"),
        ([(X, Y[:3])], r"same length, got shapes \(7, 3\), \(3,\)"),
        ([(X, torch.tensor(1))], r"same length, got shapes \(7, 3\), \(\)"),
        ([], "expected at least one example, got none. An iterator can be read only once"),
        ([(X[:0], Y[:0])], "expected at least one example"),
        ([(X, Y + 1)], r"targets: expected labels from 0 to 1.*2 outputs, got 2"),
        ([(X, -Y)], "expected labels from 0 to 1.*got -1"),
        ([(X, Y.float())], "expected integer labels.*got torch.float32"),
        ([(X, Y > 0)], "expected integer labels.*got torch.bool"),
        ([(X, torch.eye(2)[Y].long())], r"shape \(7, 2\). For one-hot targets, pass"),
    ],
)
def test_data_that_are_not_batches_of_examples_are_refused_in_one_sentence(data, message):
    with pytest.raises(UserError, match=f"^data.*{message}"):
        predictions_of(network(), data)


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.softmax(1), "expected logits, got probabilities.*Remove the softmax"),
        (lambda x: x.softmax(1).bfloat16(), "expected logits, got probabilities"),
        (lambda x: x.log(), "row 1: expected finite logits, got nan.*diverged"),
        (lambda x: x.exp() / 0, "row 0: expected finite logits, got inf"),
        (lambda x: x - torch.inf, "row 0: expected finite logits, got -inf"),
        (lambda x: x[:, 0], r"expected logits \(7, classes\).*got shape \(7,\)"),
        (lambda x: x[:, :1], "at least two classes"),
        (lambda x: x[:3], r"got shape \(3, 3\)"),
        (lambda x: x.long(), "expected floating-point logits, got torch.int64"),
        (lambda x: {"logits": x}, "expected a tensor of logits, got dict. Wrap the network"),
    ],
)
def test_outputs_that_are_not_logits_are_refused(function, message):
    x = X.clone()
    x[0] = x[0].abs()
    with pytest.raises(UserError, match=f"^outputs.*{message}"):
        predictions_of(Returns(function), [(x, Y)])


def test_logarithms_of_probabilities_are_logits():
    assert predictions_of(Returns(lambda x: x.log_softmax(1)), [(X, Y)])[0].shape == (7, 3)


@pytest.mark.parametrize("function", [lambda x: x.detach(), lambda x: torch.ones(1)])
def test_a_network_without_gradients_by_its_inputs_is_refused(function):
    x = X.clone().requires_grad_()
    with pytest.raises(UserError, match="gradients with respect to its inputs"):
        input_gradient(Returns(function)(x).sum(), x)
    unused = torch.ones(2, requires_grad=True)
    with pytest.raises(UserError, match="gradients with respect to its inputs"):
        input_gradient(unused.sum(), x)


def test_gradients_are_available_where_the_caller_switched_them_off():
    model = network()
    for off in (torch.no_grad, torch.inference_mode):
        with off(), eval_mode(model):
            x = X.clone().requires_grad_()
            assert input_gradient(model(x).sum(), x).shape == X.shape


def test_a_function_is_not_a_network():
    with pytest.raises(UserError, match=r"model: expected an nn\.Module, got function\."):
        predictions_of(lambda x: x, [(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))])
