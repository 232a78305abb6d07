"""Kernels against a slow loop: every shape, type, order in memory and kind of partner."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vicinal.mixing.kernels import blocked, kernel_for, reference

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8]


@pytest.fixture(
    params=[
        {"LONG": 1 << 16, "BLOCK": 1 << 23},
        {"LONG": 1, "FAR": 1 << 23},
        {"LONG": 1, "FAR": 1},
        {"LONG": 1 << 16, "BLOCK": 256},
    ],
    autouse=True,
)
def limits(request, monkeypatch):
    """Send every case down each way: short rows whole, rows walked, copied first, in blocks."""
    for name, limit in request.param.items():
        monkeypatch.setattr(blocked, name, limit)


def loop(x, other, partner, lam):
    rows = []
    for i, row in enumerate(x):
        share = lam[i].item()
        own, met = row.double(), other[partner[i]].double()
        rows.append(own if share == 1 else share * own + (1 - share) * met)
    return torch.stack(rows) if rows else x.double()


def loop_transposed(g, partner, lam):
    out = torch.zeros_like(g, dtype=torch.float64)
    for i, row in enumerate(g.double()):
        out[i] += lam[i].item() * row
        out[partner[i]] += (1 - lam[i].item()) * row
    return out


def agree(result, expected, dtype):
    if dtype == torch.uint8:
        assert int((result.double() - expected).abs().gt(0.5001).sum()) == 0
    else:
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(result.double(), expected, rtol=2 * eps, atol=4 * eps)


def layouts(x):
    """Return the same values in several orders in memory."""
    found = {"contiguous": x.clone()}
    if x.dim() == 4:
        found["channels_last"] = x.contiguous(memory_format=torch.channels_last)
    if x.dim() > 1:
        found["batch last"] = x.movedim(0, -1).contiguous().movedim(-1, 0)
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
        wide[..., ::2] = x
        found["every second"] = wide[..., ::2]
    if len(x):
        found["between others"] = torch.cat([x[:1], x, x[:1]])[1:-1]
    return found


@settings(deadline=None, max_examples=50)
@given(
    size=st.integers(0, 9),
    rest=st.lists(st.integers(0, 5), max_size=3),
    rows=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    shares=st.sampled_from(["any", "ends", "one"]),
    permutation=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_cpu_kernel_agrees_with_a_loop(*, size, rest, rows, dtype, shares, permutation, seed):
    chance = torch.Generator().manual_seed(seed)

    def batch(n):
        values = torch.rand(n, *rest, generator=chance, dtype=torch.float64) * 255
        return values.to(dtype) if dtype == torch.uint8 else (values / 100 - 1).to(dtype)

    lam = torch.rand(size, generator=chance)
    if shares == "ends":
        lam = lam.mul(3).sub(1).clamp(0, 1)  # a third of them 0, a third of them 1
    if shares == "one":
        lam = lam[:1].expand(size).contiguous()
    lam = lam.to(torch.float64 if dtype == torch.float64 else torch.float32)
    x, other = batch(size), batch(rows)
    far = torch.randint(rows, (size,), generator=chance)
    near = (
        torch.randperm(size, generator=chance)
        if permutation
        else torch.randint(max(size, 1), (size,), generator=chance)
    )
    for a, b in itertools.product(layouts(x).values(), layouts(other).values()):
        out = torch.empty_like(a)
        blocked.mix(out, a, b, far, lam)
        agree(out, loop(a, b, far, lam), dtype)
    for own in layouts(x).values():
        expected = loop(own, own, near, lam)
        out = torch.empty_like(own)
        blocked.mix(out, own, own, near, lam)
        agree(out, expected, dtype)
        if dtype != torch.uint8:
            blocked.transposed(out, own, near, lam)
            agree(out, loop_transposed(own, near, lam), dtype)
        blocked.mix(own, own, own, near, lam)
        agree(own, expected, dtype)
    for own in layouts(x).values():
        expected = loop(own, other, far, lam)
        blocked.mix(own, own, other, far, lam)
        agree(own, expected, dtype)


@pytest.mark.parametrize("kernel", [reference, blocked])
def test_kernels_agree_on_every_map_of_four_rows(kernel):
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None] * torch.tensor([1.0, 2.0])
    for partner in itertools.product(range(4), repeat=4):
        for lam in ([0.25] * 4, [0.0, 0.5, 1.0, 0.75]):
            where, share = torch.tensor(partner), torch.tensor(lam)
            inside = x.clone()
            for out, own in ((torch.empty_like(x), x), (inside, inside)):
                kernel.mix(out, own, own, where, share)
                torch.testing.assert_close(out.double(), loop(x, x, where, share))
            out = torch.empty_like(x)
            kernel.transposed(out, x, where, share)
            agree(out, loop_transposed(x, where, share), torch.float32)


@pytest.mark.parametrize("kernel", [reference, blocked])
@pytest.mark.parametrize("whole", [[0, 1], [0, 3], [2, 3]])
def test_rows_that_keep_everything_are_bit_identical_in_every_place(kernel, whole):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    x[whole[0]] = torch.tensor([-0.0, float("nan"), float("inf")])
    x[whole[1]] = torch.tensor([float("-inf"), 1.5, -0.0])
    lam = torch.full((4,), 0.5)
    lam[whole] = 1
    for partner in ([1, 0, 3, 2], [3, 2, 1, 0], [0, 0, 0, 0]):
        out, inside = torch.empty_like(x), x.clone()
        kernel.mix(out, x, x, torch.tensor(partner), lam)
        kernel.mix(inside, inside, inside, torch.tensor(partner), lam)
        for result in (out, inside):
            bits = result[whole].view(torch.int32)
            assert torch.equal(bits, x[whole].view(torch.int32))


@pytest.mark.parametrize("partner", [[1, 0, 3, 2], [1, 1, 3, 1]])
def test_a_row_that_keeps_everything_gives_no_nan_to_the_gradient_of_another(partner):
    g = torch.ones(4, 3)
    g[0, 1] = float("nan")
    for kernel in (reference, blocked):
        out = torch.empty_like(g)
        kernel.transposed(out, g, torch.tensor(partner), torch.tensor([1.0, 0.5, 0.25, 0.5]))
        assert out.isnan().any(1).tolist() == [True, False, False, False]


def test_a_default_device_leaves_the_memory_that_is_kept_where_it_is():
    x = torch.rand(3, 7, generator=torch.Generator().manual_seed(7)).bfloat16()
    partner, lam = torch.tensor([2, 0, 1]), torch.tensor([0.5, 0.25, 0.5])
    outside, inside = x.clone(), x.clone()
    blocked.mix(outside, outside, outside, partner, lam)
    vars(blocked._kept).clear()
    with torch.device("meta"):
        blocked.mix(inside, inside, inside, partner, lam)
    assert torch.equal(inside, outside)


def test_uint8_is_rounded_once_or_left_as_it_is():
    x = torch.tensor([[0, 255, 3], [255, 254, 4]], dtype=torch.uint8)
    partner, lam = torch.tensor([1, 0]), torch.tensor([0.9, 0.25])
    exact = np.array([[25.5, 254.9, 3.1], [63.75, 254.75, 3.25]])
    for kernel in (reference, blocked):
        out = torch.empty_like(x)
        kernel.mix(out, x, x, partner, lam)
        assert out.tolist() in ([[26, 255, 3], [64, 255, 3]], [[25, 255, 3], [64, 255, 3]])
        wide = torch.empty(2, 3)
        kernel.mix(wide, x, x, partner, lam)
        np.testing.assert_allclose(wide.numpy(), exact, rtol=1e-6)


def test_kernels_are_chosen_by_device():
    assert kernel_for(torch.device("cpu")) is blocked
    assert kernel_for(torch.device("meta")) is reference
