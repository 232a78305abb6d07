import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal import mix


def slow_mix(x, partner, lam, other=None):
    other = x if other is None else other
    rows = [lam[i] * x[i] + (1 - lam[i]) * other[partner[i]] for i in range(len(x))]
    return torch.stack(rows) if rows else x.clone()


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(0, 7),
    rest=st.lists(st.integers(1, 4), max_size=3),
    rows=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_mix_agrees_with_a_loop_written_from_the_paper(size, rest, rows, seed):
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(size, *rest, dtype=torch.float64, generator=chance)
    other = torch.randn(rows, *rest, dtype=torch.float64, generator=chance)
    partner = torch.randint(rows, (size,), generator=chance)
    lam = torch.rand(size, dtype=torch.float64, generator=chance)
    mixed = mix(x, partner=partner, lam=lam, other=other)
    torch.testing.assert_close(mixed, slow_mix(x, partner, lam, other), rtol=1e-12, atol=1e-12)


def example(dtype=torch.float64):
    chance = torch.Generator().manual_seed(3)
    x = torch.randn(5, 2, 3, dtype=torch.float64, generator=chance).to(dtype)
    return x, torch.tensor([4, 0, 0, 3, 1]), torch.tensor([0.0, 0.3, 0.9, 1.0, 0.5])


def test_first_and_second_gradients_by_x_other_and_lam_are_exact():
    x, partner, lam = example()
    other = torch.randn(6, 2, 3, dtype=torch.float64)
    inputs = tuple(t.double().requires_grad_() for t in (x, other, lam[[1, 2, 4, 1, 2]]))

    def blend(x, other, lam):
        return mix(x, partner=partner, lam=lam, other=other)

    def blend_itself(x, lam):
        return mix(x, partner=partner, lam=lam)

    assert torch.autograd.gradcheck(blend, inputs)
    assert torch.autograd.gradgradcheck(blend, inputs)
    assert torch.autograd.gradcheck(blend_itself, (inputs[0], inputs[2]))
    assert torch.autograd.gradgradcheck(blend_itself, (inputs[0], inputs[2]))


def test_the_gradient_by_x_is_exact_where_lam_is_zero_and_one():
    x, partner, lam = example()
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mix(x, partner=partner, lam=lam), (x,))


def test_a_row_that_keeps_everything_is_untouched_bit_for_bit_beside_infinite_partners():
    x = torch.tensor([[-0.0, float("inf")], [float("nan"), float("-inf")], [1.0, 2.0]])
    mixed = mix(x, partner=torch.tensor([1, 0, 0]), lam=torch.ones(3))
    assert torch.equal(mixed.view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types_are_rounded_once_from_the_exact_blend(dtype):
    x, partner, lam = example(dtype)
    exact = slow_mix(x.double(), partner, lam.double())
    mixed = mix(x, partner=partner, lam=lam)
    assert mixed.dtype == dtype
    error = (mixed.double() - exact).abs()
    assert bool((error <= torch.finfo(dtype).eps * 0.51 * exact.abs() + 1e-7).all())


def test_uint8_is_rounded_to_the_nearest_value():
    x = torch.tensor([[0, 255, 3], [255, 255, 4]], dtype=torch.uint8)
    mixed = mix(x, partner=torch.tensor([1, 0]), lam=torch.tensor([0.9, 0.25]))
    assert mixed.dtype == torch.uint8
    assert mixed.tolist() == [[26, 255, 3], [64, 255, 3]]


def test_arguments_arrive_unharmed():
    x, partner, lam = example()
    before = [t.clone() for t in (x, partner, lam)]
    mix(x, partner=partner, lam=lam).add_(1)
    assert all(map(torch.equal, before, (x, partner, lam)))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lam": torch.tensor(0.5)}, ValueError, r"one lam per example.*lam\.expand\(5\)"),
        ({"lam": torch.full((5,), 1.5)}, ValueError, r"from 0 to 1; got 1\.5"),
        ({"lam": torch.full((5,), float("nan"))}, ValueError, "from 0 to 1; got nan"),
        ({"lam": torch.ones(5, dtype=torch.int64)}, TypeError, r"lam\.float\(\)"),
        ({"partner": torch.tensor([0, 1, 2, 3, 5])}, ValueError, "has 5 rows.*up to 5"),
        ({"partner": torch.tensor([0, 1, 2, 3, -1])}, ValueError, "from 0 on, got -1"),
        ({"partner": torch.arange(5.0)}, TypeError, r"partner\.long\(\)"),
        ({"x": torch.rand(4, 2, 3)}, ValueError, "batch size 4.*hold 5"),
        ({"x": torch.tensor(1.0)}, ValueError, "without dimensions"),
        ({"x": torch.arange(5)}, TypeError, r"torch\.int64; call x\.float\(\)"),
        ({"other": torch.rand(5, 2, 4)}, ValueError, r"\(5, 2, 3\) and \(5, 2, 4\)"),
        ({"other": torch.rand(5, 2, 3).half()}, TypeError, "float32 and torch.float16"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(change, error, words):
    x, partner, lam = example(torch.float32)
    arguments = {"x": x, "partner": partner, "lam": lam} | change
    with pytest.raises(error, match=words):
        mix(arguments.pop("x"), **arguments)
