"""Batches that are mixed at once, past the operator: who goes that way, and who must not."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from vicinal import Plan
from vicinal.mixing.kernels import native


def there():
    if not native.is_there():
        pytest.skip("the C loop is not built here: it needs Linux on x86-64, AVX2 and a compiler")
    return native


def at_once(x, partner, lam, *, in_place):
    return there().mix_at_once(x, partner, lam, in_place=in_place)


def by_hand(x, partner, lam):
    x, lam = x.double(), lam.double()
    return torch.stack([lam[i] * x[i] + (1 - lam[i]) * x[partner[i]] for i in range(len(x))])


def agree(result, expected):
    """Exact to half a unit of bytes, and to the last digits of other types."""
    if result.dtype == torch.uint8:
        assert bool(((result.double() - expected).abs() <= 0.5001).all())
    else:
        eps = torch.finfo(result.dtype).eps
        torch.testing.assert_close(result.double(), expected, rtol=2 * eps, atol=4 * eps)


def negative(values):
    return torch._neg_view(-values)


class CountingMode(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


PLAIN = {
    "x": torch.arange(20, dtype=torch.float32).reshape(4, 5),
    "partner": torch.tensor([1, 0, 3, 3]),
    "lam": torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float32),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 3, 1, 7)])
def test_what_is_plain_is_mixed_at_once(shape, dtype):
    x = (
        torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32) * 200
    ).to(dtype)
    lam = PLAIN["lam"].double() if dtype == torch.float64 else PLAIN["lam"]
    expected = by_hand(x, PLAIN["partner"], lam)
    before = x.clone()
    out = at_once(x, PLAIN["partner"], lam, in_place=False)
    assert torch.equal(x, before)
    agree(out, expected)
    assert at_once(x, PLAIN["partner"], lam, in_place=True) is x
    agree(x, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.arange(20.0, dtype=torch.float32).reshape(5, 4).T},
        {"x": torch.arange(20.0, dtype=torch.float32).reshape(4, 5).half()},
        {"x": torch.arange(20.0, dtype=torch.float32).reshape(4, 5).requires_grad_()},
        {"x": torch.nn.Parameter(torch.arange(20.0, dtype=torch.float32).reshape(4, 5))},
        {"x": negative(torch.arange(20.0, dtype=torch.float32).reshape(4, 5))},
        {"x": torch._efficientzerotensor((4, 5))},
        {"x": torch.empty(4, 5, device="meta", dtype=torch.float32)},
        {"x": torch.arange(15.0, dtype=torch.float32).reshape(3, 5)},
        {"x": torch.empty(4, 0, dtype=torch.float32)},
        {
            "x": torch.tensor(1.0, dtype=torch.float32),
            "partner": torch.tensor([0]),
            "lam": torch.tensor([0.5], dtype=torch.float32),
        },
        {"partner": torch.tensor([1, 0, 3, 4])},
        {"partner": torch.tensor([1, 0, 3, -1])},
        {"partner": torch.tensor([1, 0, 3, 3], dtype=torch.int32)},
        {"partner": torch.tensor([1, 0, 3])},
        {"partner": torch.tensor([[1, 0, 3, 3]])},
        {"lam": torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float64)},
        {"lam": torch.tensor([0.5, 0.25, 0.0, 1.0], requires_grad=True, dtype=torch.float32)},
        {"lam": torch.tensor([0.5], dtype=torch.float32).expand(4)},
        {"lam": torch.tensor([0.5, 0.25, 0.0, 1.0, 1.0], dtype=torch.float32)},
    ],
    ids=lambda change: ", ".join(f"{name} {list(one.shape)}" for name, one in change.items()),
)
@pytest.mark.parametrize("in_place", [True, False])
def test_what_is_not_plain_is_left_alone_by_the_shortest_way(change, in_place):
    tensors = PLAIN | change
    before = {name: one.clone() for name, one in tensors.items()}
    assert at_once(**tensors, in_place=in_place) is None
    for name, one in tensors.items():
        assert one.is_meta or torch.equal(one, before[name])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(4, dtype=torch.float32).to_sparse(),
        lambda: torch.eye(4, dtype=torch.float32).to_mkldnn(),
        lambda: torch.nested.nested_tensor(
            [torch.ones(k, dtype=torch.float32) for k in (2, 3, 4, 5)]
        ),
        lambda: torch.ones(4, 5, dtype=torch.complex64),
        lambda: torch.ones(4, 5, dtype=torch.int64),
        lambda: torch.ones(4, 5, dtype=torch.bool),
        lambda: torch.ones(4, 5, dtype=torch.uint8).view(torch.uint4),
    ],
    ids=["sparse", "mkldnn", "nested", "complex", "whole numbers", "true or false", "half bytes"],
)
@pytest.mark.parametrize("in_place", [True, False])
def test_what_the_loop_cannot_read_is_left_to_others(make, in_place):
    given = make(), PLAIN["partner"], PLAIN["lam"]
    assert at_once(*given, in_place=in_place) is None


def test_a_batch_that_shares_its_memory_until_it_is_written_gets_its_own():
    x = torch.rand(4, 5, dtype=torch.float32)
    before = x.clone()
    lazy = torch._lazy_clone(x)
    at_once(lazy, PLAIN["partner"], PLAIN["lam"], in_place=True)
    assert torch.equal(x, before)
    assert not torch.equal(lazy, before)


def test_where_pytorch_does_not_show_its_tensors_the_longer_way_is_taken(monkeypatch):
    blind = there()._compiled()._replace(tensor_of=0)
    monkeypatch.setattr(native, "_compiled", lambda: blind)
    assert at_once(**PLAIN, in_place=False) is None
    x = PLAIN["x"].clone()
    Plan(PLAIN["partner"], PLAIN["lam"]).mix_(x)
    agree(x, by_hand(**PLAIN))


def test_the_shortest_way_is_not_taken_where_others_look_on():
    tensors = {name: one.clone() for name, one in PLAIN.items()}
    mixed, done = there().mix_at_once, []

    def plain(row):
        done.append([mixed(**tensors, in_place=way) for way in (True, False)])
        return row + 1

    with CountingMode():
        plain(1)
    with forward_ad.dual_level():
        plain(1)
    torch.func.vmap(plain)(torch.zeros(2, dtype=torch.float32))
    torch.jit.trace(plain, torch.zeros(2, dtype=torch.float32), check_trace=False)
    torch.compile(plain, backend="eager", fullgraph=True)(torch.zeros(2, dtype=torch.float32))
    assert done == [[None, None]] * 5
    assert torch.equal(tensors["x"], PLAIN["x"])


def test_memory_that_was_given_back_is_not_written():
    x = PLAIN["x"].clone()
    x.untyped_storage().resize_(0)
    assert at_once(x, PLAIN["partner"], PLAIN["lam"], in_place=True) is None


def test_a_tracer_sees_the_mixing():
    partner, lam = torch.tensor([1, 0, 2]), torch.tensor([0.5, 0.25, 1.0], dtype=torch.float32)
    plan = Plan(partner, lam)
    with torch.no_grad(), CountingMode() as mode:
        plan.mix_(torch.rand(3, 4, dtype=torch.float32))
    assert mode.calls > 0


@pytest.mark.parametrize("how", ["mix", "mix_"])
@pytest.mark.parametrize("pre_dispatch", [True, False])
def test_a_traced_function_mixes_when_it_is_run(how, pre_dispatch):
    plan = Plan(PLAIN["partner"], PLAIN["lam"])

    def mixed(x):
        return getattr(plan, how)(x.clone())

    traced = make_fx(mixed, pre_dispatch=pre_dispatch)(torch.rand(4, 5, dtype=torch.float32))
    agree(traced(PLAIN["x"]), by_hand(**PLAIN))


def test_the_profiler_sees_a_batch_being_mixed():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        Plan(PLAIN["partner"], PLAIN["lam"]).mix(PLAIN["x"])
    assert "vicinal::mix" in {event.key for event in profile.key_averages()}
