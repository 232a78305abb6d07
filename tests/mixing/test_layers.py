import pytest
import torch
from torch import nn

from vicinal import MixUp


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_mixing_inside_equals_mixing_between_the_two_halves_of_the_network():
    model, x = network(), torch.rand(6, 3)
    plan = MixUp(1.0, per="example").draw(6, generator=torch.Generator().manual_seed(1))
    with plan.inside(model[1]):
        output = model(x)
    assert torch.equal(output, model[2](plan.mix(model[1](model[0](x)))))
    assert not torch.equal(output, model(x))


def test_the_gradient_below_the_mixing_place_is_the_exact_one():
    model, x = network().double(), torch.rand(4, 3, dtype=torch.float64)
    plan = MixUp(1.0, per="example").draw(4, generator=torch.Generator().manual_seed(2))

    def run(x):
        with plan.inside(model[0]):
            return model(x)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(),))


def test_nothing_is_mixed_in_eval_mode():
    model, x = network().eval(), torch.rand(6, 3)
    with MixUp(1.0).draw(6).inside(model[0]):
        assert torch.equal(model(x), network().eval()(x))


def test_the_module_is_as_before_after_the_block_even_after_an_error():
    model, x = network(), torch.rand(6, 3)
    with pytest.raises(ZeroDivisionError), MixUp(1.0).draw(6).inside(model[0]):
        raise ZeroDivisionError
    assert torch.equal(model(x), network()(x))


def test_a_module_that_runs_twice_is_refused():
    model, x = network(), torch.rand(6, 3)
    with MixUp(1.0).draw(6).inside(model[0]):
        model(x)
        with pytest.raises(RuntimeError, match="Linear ran a second time"):
            model(x)


def test_a_module_that_does_not_run_is_refused():
    model, x = network(), torch.rand(6, 3)
    with (
        pytest.raises(RuntimeError, match="Dropout did not run"),
        MixUp(1.0).draw(6).inside(nn.Dropout()),
    ):
        model(x)


def test_a_module_that_puts_out_a_tuple_is_refused():
    model, x = nn.LSTM(3, 4), torch.rand(6, 3)
    with (
        pytest.raises(TypeError, match="LSTM puts out a tuple"),
        MixUp(1.0).draw(6).inside(model),
    ):
        model(x)
