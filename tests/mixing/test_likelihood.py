import pytest
import torch
import torch.nn.functional as F

from vicinal.mixing.kernels import native
from vicinal.mixing.likelihood import log_likelihood


@pytest.fixture(params=["loop in C", "operators"], autouse=True)
def way(request, monkeypatch):
    """Take the loop that was compiled, and PyTorch's operators."""
    if request.param == "operators":
        monkeypatch.setattr(native, "_compiled", lambda: None)
    elif not native.is_there():
        pytest.skip("the C loop is not built here: it needs Linux on x86-64, AVX2 and a compiler")


def _asked(scores, seed=0):
    draw = torch.Generator().manual_seed(seed)
    classes = torch.randint(scores.shape[1], (len(scores), 3), generator=draw)
    return classes, torch.rand(len(scores), 3, generator=draw, dtype=torch.float32)


@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_the_sum_and_its_gradient_are_as_good_as_those_of_log_softmax(shift, spread):
    scores = (
        torch.randn(64, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
        * spread
    )
    scores = (scores.clamp(-2 * spread, 2 * spread) / 2 + shift).requires_grad_()
    classes, factors = _asked(scores)
    value = log_likelihood(scores, classes, factors)
    (gradient,) = torch.autograd.grad(value, scores)
    exact = scores.detach().double().requires_grad_()
    wanted = (F.log_softmax(exact, 1).gather(1, classes) * factors).sum()
    (slope,) = torch.autograd.grad(wanted, exact)
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("shape", [(300, 1003), (1, 3), (2000, 33)])
def test_rows_divided_over_threads_have_the_sum_and_gradient_of_log_softmax(shape, each, dtype):
    draw = torch.Generator().manual_seed(6)
    scores = torch.randn(shape, generator=draw, dtype=torch.float32).to(dtype).requires_grad_()
    classes, factors = _asked(scores)
    classes[:, 2] = classes[:, 0]  # the same class twice
    factors = factors.double() if dtype == torch.float64 else factors
    value = log_likelihood(scores, classes, factors, each=each)
    g = torch.rand(value.shape, generator=draw, dtype=torch.float32).to(value.dtype)
    (gradient,) = torch.autograd.grad(value, scores, g)
    exact = scores.detach().double().requires_grad_()
    wanted = (F.log_softmax(exact, 1).gather(1, classes) * factors).sum(1)
    wanted = wanted if each else wanted.sum()
    (slope,) = torch.autograd.grad(wanted, exact, g.double())
    accuracy = 1e-2 if dtype == torch.bfloat16 else 1e-5
    assert gradient.dtype == dtype
    torch.testing.assert_close(value.double(), wanted, rtol=2e-6, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=accuracy, atol=1e-6)


@pytest.mark.parametrize("value", [44.0, 100.0, float("inf"), float("nan")])
def test_scores_whose_exponentials_may_not_fit_are_left_to_others(value):
    scores = torch.zeros(2, 3, dtype=torch.float32)
    scores[1, 2] = value
    assert (
        log_likelihood(scores, torch.tensor([[0], [1]]), torch.ones(2, 1, dtype=torch.float32))
        is None
    )


@pytest.mark.parametrize("value", [-44.0, -200.0, float("-inf"), float("nan")])
def test_a_class_whose_exponential_may_not_fit_is_left_to_others(value):
    scores = torch.zeros(2, 3, dtype=torch.float32)
    scores[1, 2] = value
    assert (
        log_likelihood(scores, torch.tensor([[0], [2]]), torch.ones(2, 1, dtype=torch.float32))
        is None
    )


def test_another_class_may_be_as_improbable_as_it_likes():
    scores = torch.tensor([[0.0, -200.0, -float("inf")]], requires_grad=True, dtype=torch.float32)
    value = log_likelihood(scores, torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.float32))
    assert value.item() == 0
    assert torch.autograd.grad(value, scores)[0].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("strange", [-1, 3])
def test_a_class_out_of_range_is_left_to_others(strange):
    classes = torch.tensor([[0], [strange]])
    assert (
        log_likelihood(
            torch.zeros(2, 3, dtype=torch.float32), classes, torch.ones(2, 1, dtype=torch.float32)
        )
        is None
    )


def test_a_class_that_is_changed_behind_autograds_back_writes_nowhere():
    scores, classes = (
        torch.zeros(2, 3, requires_grad=True, dtype=torch.float32),
        torch.tensor([[0], [1]]),
    )
    value = log_likelihood(scores, classes, torch.ones(2, 1, dtype=torch.float32))
    classes.numpy()[0, 0] = 1_000_000_000
    with pytest.raises((IndexError, RuntimeError)):
        value.backward()


def test_each_example_has_a_sum_of_its_own_where_it_is_asked_for():
    scores = torch.randn(
        5, 4, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float32
    )
    classes = torch.randint(4, (5, 2, 2, 3), generator=torch.Generator().manual_seed(3))
    factors = torch.rand(
        5, 2, 1, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float32
    )
    wanted = (F.log_softmax(scores, 1).gather(1, classes) * factors).sum(1)
    torch.testing.assert_close(log_likelihood(scores, classes, factors, each=True), wanted)


@pytest.mark.parametrize("shift", [-38.0, 0.0, 38.0])
def test_gradients_of_gradients_do_not_leave_the_range_of_the_type(shift):
    def derivatives(scores, function):
        value = function(scores)
        for _ in range(3):
            (value,) = torch.autograd.grad(value.pow(2).sum(), scores, create_graph=True)
        return value.detach().double()

    scores = (
        torch.randn(8, 10, generator=torch.Generator().manual_seed(5), dtype=torch.float32) / 2
        + shift
    )
    classes, factors = _asked(scores)
    result = derivatives(
        scores.clone().requires_grad_(), lambda each: log_likelihood(each, classes, factors)
    )
    wanted = derivatives(
        scores.double().requires_grad_(),
        lambda each: (F.log_softmax(each, 1).gather(1, classes) * factors).sum(),
    )
    size = wanted.abs().max()
    torch.testing.assert_close(result / size, wanted / size, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_holds_for_other_scores():
    classes, factors = torch.tensor([[0], [1]]), torch.ones(2, 1, dtype=torch.float32)

    def loss(scores):
        found = log_likelihood(scores, classes, factors)
        return F.log_softmax(scores, 1).gather(1, classes).sum() if found is None else found

    traced = torch.jit.trace(loss, torch.zeros(2, 3, dtype=torch.float32))
    large = torch.tensor([[0.0, 0.0, 90.0], [0.0, 50.0, 0.0]], dtype=torch.float32)
    assert traced(large).item() == loss(large).item() == -90
