"""Kernels against a slow loop: every shape, type, order in memory and kind of partner."""

import ctypes
import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vicinal.mixing import kernels
from vicinal.mixing.kernels import kernel_for, native, portable

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8]


@pytest.fixture
def compiled(monkeypatch):
    """Return the kernels with the C loops used for small batches too."""
    if not native.is_available():
        pytest.skip("the C loops are not built here: that needs Linux on x86-64 and a compiler")
    monkeypatch.setattr(kernels, "SMALL", 0)
    return kernels


@pytest.fixture(params=["native", "portable", "portable in blocks", "portable by rows"])
def kernel(request, monkeypatch):
    """Return the kernels of the CPU, of which only one is available."""
    if request.param == "native":
        return request.getfixturevalue("compiled")
    monkeypatch.setattr(native, "is_available", lambda: False)
    if request.param == "portable in blocks":
        monkeypatch.setattr(portable, "BLOCK", 1)
    if request.param == "portable by rows":
        monkeypatch.setattr(portable, "LONG", 0)
    return kernels


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


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(0, 9),
    rest=st.lists(st.integers(0, 5), max_size=3),
    rows=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    shares=st.sampled_from(["any", "ends", "one"]),
    permutation=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_cpu_kernel_agrees_with_a_loop(
    kernel, *, size, rest, rows, dtype, shares, permutation, seed
):
    chance = torch.Generator().manual_seed(seed)

    def batch(n):
        values = torch.rand(n, *rest, generator=chance, dtype=torch.float64) * 255
        return values.to(dtype) if dtype == torch.uint8 else (values / 100 - 1).to(dtype)

    lam = torch.rand(size, generator=chance, dtype=torch.float32)
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
        kernel.mix(out, a, b, far, lam)
        agree(out, loop(a, b, far, lam), dtype)
    for own in layouts(x).values():
        expected = loop(own, own, near, lam)
        out = torch.empty_like(own)
        kernel.mix(out, own, own, near, lam)
        agree(out, expected, dtype)
        if dtype != torch.uint8:
            kernel.transposed(out, own, near, lam)
            agree(out, loop_transposed(own, near, lam), dtype)
        kernel.mix(own, own, own, near, lam)
        agree(own, expected, dtype)
    for own in layouts(x).values():
        expected = loop(own, other, far, lam)
        kernel.mix(own, own, other, far, lam)
        agree(own, expected, dtype)


def test_kernels_agree_on_every_map_of_four_rows(kernel):
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float32)[:, None] * torch.tensor(
        [1.0, 2.0], dtype=torch.float32
    )
    for partner in itertools.product(range(4), repeat=4):
        for lam in ([0.25] * 4, [0.0, 0.5, 1.0, 0.75]):
            where, share = torch.tensor(partner), torch.tensor(lam, dtype=torch.float32)
            inside = x.clone()
            for out, own in ((torch.empty_like(x), x), (inside, inside)):
                kernel.mix(out, own, own, where, share)
                torch.testing.assert_close(out.double(), loop(x, x, where, share))
            out = torch.empty_like(x)
            kernel.transposed(out, x, where, share)
            agree(out, loop_transposed(x, where, share), torch.float32)


@pytest.mark.parametrize("whole", [[0, 1], [0, 3], [2, 3]])
def test_rows_that_keep_everything_are_bit_identical_in_every_place(kernel, whole):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    x[whole[0]] = torch.tensor([-0.0, float("nan"), float("inf")], dtype=torch.float32)
    x[whole[1]] = torch.tensor([float("-inf"), 1.5, -0.0], dtype=torch.float32)
    lam = torch.full((4,), 0.5, dtype=torch.float32)
    lam[whole] = 1
    for partner in ([1, 0, 3, 2], [3, 2, 1, 0], [0, 0, 0, 0]):
        out, inside = torch.empty_like(x), x.clone()
        kernel.mix(out, x, x, torch.tensor(partner), lam)
        kernel.mix(inside, inside, inside, torch.tensor(partner), lam)
        for result in (out, inside):
            bits = result[whole].view(torch.int32)
            assert torch.equal(bits, x[whole].view(torch.int32))


@pytest.mark.parametrize("partner", [[1, 0, 3, 2], [1, 1, 3, 1]])
def test_a_row_that_keeps_everything_gives_no_nan_to_the_gradient_of_another(kernel, partner):
    g = torch.ones(4, 3, dtype=torch.float32)
    g[0, 1] = float("nan")
    out = torch.empty_like(g)
    kernel.transposed(
        out, g, torch.tensor(partner), torch.tensor([1.0, 0.5, 0.25, 0.5], dtype=torch.float32)
    )
    assert out.isnan().any(1).tolist() == [True, False, False, False]


def test_a_default_device_does_not_change_where_the_cpu_mixes(kernel):
    x = torch.rand(3, 7, generator=torch.Generator().manual_seed(7), dtype=torch.float32).bfloat16()
    partner, lam = torch.tensor([2, 0, 1]), torch.tensor([0.5, 0.25, 0.5], dtype=torch.float32)
    outside, inside = x.clone(), x.clone()
    kernel.mix(outside, outside, outside, partner, lam)
    with torch.device("meta"):
        kernel.mix(inside, inside, inside, partner, lam)
    assert torch.equal(inside, outside)


def test_uint8_is_rounded_once_or_left_as_it_is(kernel):
    x = torch.tensor([[0, 255, 3], [255, 254, 4]], dtype=torch.uint8)
    partner, lam = torch.tensor([1, 0]), torch.tensor([0.9, 0.25], dtype=torch.float32)
    exact = np.array([[25.5, 254.9, 3.1], [63.75, 254.75, 3.25]])
    out = torch.empty_like(x)
    kernel.mix(out, x, x, partner, lam)
    assert out.tolist() in ([[26, 255, 3], [64, 255, 3]], [[25, 255, 3], [64, 255, 3]])
    wide = torch.empty(2, 3, dtype=torch.float32)
    kernel.mix(wide, x, x, partner, lam)
    np.testing.assert_allclose(wide.numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("shape", [(9, 3000), (3, 40_003), (40_000, 13), (1500, 300), (2, 200_000)])
def test_columns_divided_over_threads_and_tiles_equal_one_loop(compiled, shape, dtype):
    chance, kernel = torch.Generator().manual_seed(11), compiled
    x = torch.rand(shape, generator=chance, dtype=torch.float32).mul(255).to(dtype)
    lam = torch.rand(shape[0], generator=chance, dtype=torch.float32)
    lam[0] = 1
    for partner in (
        torch.randperm(shape[0], generator=chance),
        torch.randint(shape[0], shape[:1], generator=chance),
    ):
        share = lam.double()[:, None]
        expected = share * x.double() + (1 - share) * x[partner].double()
        inside, out = x.clone(), torch.empty_like(x)
        kernel.mix(inside, inside, inside, partner, lam)
        kernel.mix(out, x, x, partner, lam)
        assert torch.equal(inside, out)
        agree(out.double() / 256, expected / 256, dtype)
        if dtype != torch.uint8:
            expected = (share * x.double()).index_add(0, partner, (1 - share) * x.double())
            kernel.transposed(out, x, partner, lam)
            agree(out.double() / 4096, expected / 4096, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.usefixtures("compiled")
def test_the_two_cpu_kernels_blend_to_the_same_bits(dtype):
    chance = torch.Generator().manual_seed(12)
    x = torch.randn(16, 1000, generator=chance, dtype=torch.float32).mul(40).add(128).to(dtype)
    lam = torch.rand(16, generator=chance, dtype=torch.float32)
    partner = torch.randperm(16, generator=chance)
    ours, theirs = torch.empty_like(x), torch.empty_like(x)
    native.mix(ours, x, x, partner, lam)
    portable.mix(theirs, x, x, partner, lam)
    assert torch.equal(ours, theirs)


def test_the_first_rows_of_a_batch_are_mixed_with_rows_of_all_of_it(kernel):
    whole, lam = (
        torch.arange(12.0, dtype=torch.float32).reshape(6, 2),
        torch.tensor([0.5, 0.25], dtype=torch.float32),
    )
    out = torch.empty(2, 2, dtype=torch.float32)
    kernel.mix(out, whole[:2], whole, torch.tensor([5, 4]), lam)
    assert out.tolist() == [[5, 6], [6.5, 7.5]]


def test_a_strided_view_is_mixed_with_rows_of_the_batch_that_it_begins_with(kernel):
    batch = torch.rand(8, 6, dtype=torch.float32)
    x, partner = batch[::2], torch.tensor([0, 1, 2, 5])
    lam = torch.full((4,), 0.25, dtype=torch.float32)
    out = torch.empty(4, 6, dtype=torch.float32)
    kernel.mix(out, x, batch, partner, lam)
    agree(out, loop(x, batch, partner, lam), torch.float32)


@pytest.mark.parametrize("bad", [-1, 4])
def test_a_partner_that_is_not_a_row_raises_before_anything_is_written(compiled, bad):
    x, partner = torch.rand(4, 8, dtype=torch.float32), torch.tensor([1, 0, bad, 2])
    before, out = x.clone(), torch.zeros(4, 8, dtype=torch.float32)
    lam = torch.full((4,), 0.5, dtype=torch.float32)
    for run in (
        lambda: compiled.mix(x, x, x, partner, lam),
        lambda: compiled.mix(out, x, x, partner, lam),
        lambda: compiled.transposed(out, x, partner, lam),
    ):
        with pytest.raises(IndexError, match="expected row numbers below 4"):
            run()
    assert torch.equal(x, before)
    assert not out.any()


@pytest.mark.parametrize(
    "change",
    [
        {"partner": torch.tensor([0, 1])},
        {"lam": torch.rand(3, dtype=torch.float32)},
        {"other": torch.rand(4, 9, dtype=torch.float32)},
        {"other": torch.rand(4, 8, dtype=torch.float32).double()},
    ],
)
def test_tensors_that_do_not_fit_never_reach_the_compiled_loop(change):
    x, out = (torch.rand(4, 8, dtype=torch.float32) for _ in range(2))

    def takes(other=x, partner=torch.arange(4), lam=torch.rand(4, dtype=torch.float32)):  # noqa: B008
        return native.takes((out, x, other), partner, lam)

    assert takes()
    assert not takes(**change)


@pytest.mark.parametrize("columns", [16, 250, 5000])
@pytest.mark.parametrize("shape_of_chain", ["roll", "down"])
def test_a_chain_of_rows_is_mixed_in_place_in_order(compiled, columns, shape_of_chain):
    size = {16: 16_000, 250: 2000, 5000: 400}[columns]
    x = torch.randn(size, columns, generator=torch.Generator().manual_seed(13), dtype=torch.float32)
    partner = torch.arange(size).roll(-1)
    lam = torch.full((size,), 0.25, dtype=torch.float32)
    lam[-1] = 1  # no row is kept aside: the chain ends here
    if shape_of_chain == "down":
        partner[-1] = size - 1
    out, inside = torch.empty_like(x), x.clone()
    for _ in range(5):
        inside.copy_(x)
        compiled.mix(inside, inside, inside, partner, lam)
        compiled.mix(out, x, x, partner, lam)
        assert torch.equal(inside, out)


def negative(values):
    return torch._neg_view(-values)


@pytest.mark.parametrize(
    "change",
    [
        {"lam": negative(torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float32))},
        {"other": negative(torch.arange(20, dtype=torch.float32).reshape(4, 5))},
        {"lam": torch._efficientzerotensor(4)},
        {"partner": torch.tensor([1, 0, 3, 3], dtype=torch.int32)},
    ],
    ids=["negative lam", "negative other", "lam without memory", "int32"],
)
def test_views_whose_memory_holds_other_values_are_mixed_by_their_values(compiled, change):
    given = {
        "other": torch.arange(20, dtype=torch.float32).reshape(4, 5),
        "partner": torch.tensor([1, 0, 3, 3]),
        "lam": torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float32),
    } | change
    x, out = (torch.ones(4, 5, dtype=torch.float32) for _ in range(2))
    compiled.mix(out, x, **given)
    torch.testing.assert_close(out.double(), loop(x, **given))


@pytest.mark.parametrize(
    "x",
    [
        torch.nested.nested_tensor(
            [torch.ones(k, dtype=torch.float32) for k in (2, 3, 4, 5)], layout=torch.jagged
        ),
        torch._efficientzerotensor((4, 6)),
        torch.empty(4, 6, device="meta", dtype=torch.float32),
    ],
    ids=["nested", "zero", "meta"],
)
def test_a_tensor_without_memory_raises_an_error(compiled, x):
    with pytest.raises((RuntimeError, NotImplementedError, TypeError, ValueError)):
        compiled.mix(
            x, x, x, torch.tensor([1, 0, 3, 3]), torch.full((4,), 0.5, dtype=torch.float32)
        )


def backwards(begin, end, grain, body, context):
    """Run the loop as PyTorch's threads do, but one part after the other and the last one first."""
    for part in reversed(range(begin, end)):
        body(part, part + 1, context)
    return 0


@pytest.mark.parametrize(
    "rows", ["one cycle", "cycles", "cycles and whole rows", "a path", "readers"]
)
@pytest.mark.parametrize(("columns", "threads"), [(800, 2), (8000, 2), (8000, 3), (8000, 7)])
@pytest.mark.usefixtures("compiled")
def test_threads_mix_in_place_whichever_is_first(monkeypatch, rows, columns, threads):
    size = 61
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(size, columns, generator=draw, dtype=torch.float32)
    partner = torch.randperm(size, generator=draw)
    lam = torch.rand(size, generator=draw, dtype=torch.float32)
    if rows == "one cycle":
        order = partner
        partner = torch.empty_like(order).scatter_(0, order, order.roll(1))
    elif rows == "cycles and whole rows":
        lam[torch.randperm(size, generator=draw)[:9]] = 1
    elif rows == "a path":
        partner = (torch.arange(size) + 1).clamp(max=size - 1)
    elif rows == "readers":
        partner = torch.randint(size, (size,), generator=draw)
    body = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 3, body, ctypes.c_void_p)
    run = kind(backwards)
    expected = loop(x, x, partner, lam)
    library = native._Library(native._library().loops, ctypes.cast(run, ctypes.c_void_p).value)
    monkeypatch.setattr(native, "_library", lambda: library)
    native.mix(x, x, x, partner, lam)
    agree(x, expected, torch.float32)


def test_bytes_have_no_transposed_map_in_c():
    g, partner = torch.ones(4, 6, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    lam = torch.tensor([0.5, 0.25, 0.5, 0.75], dtype=torch.float32)
    assert not native.takes((torch.empty_like(g), g), partner, lam)


def test_a_library_compiled_from_another_source_is_not_loaded(compiled, monkeypatch):
    assert native._library.__wrapped__() is not None
    monkeypatch.setattr(native.zlib, "crc32", lambda text: 1)
    assert native._library.__wrapped__() is None


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "between others"])
def test_dense_rows_are_read_and_written_without_a_copy(layout):
    x = layouts(torch.rand(6, 3, 4, 5, dtype=torch.float32))[layout]
    (rows,) = kernels._as_rows((x,))
    assert rows.data_ptr() == x.data_ptr()
    assert rows.shape == (6, 60)


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton can be used")
def test_where_triton_cannot_be_used_a_warning_says_why():
    pytest.importorskip("triton")
    with pytest.warns(RuntimeWarning, match="PyTorch operators, which is slower.*C compiler"):
        assert kernels._triton_kernels.__wrapped__() is None


def test_kernels_are_chosen_by_device():
    assert kernel_for(torch.device("cpu")) is (native if native.is_available() else portable)
    assert kernel_for(torch.device("meta")) is portable


@pytest.mark.parametrize(("rows", "expected"), [(2, "portable"), (200, "native")])
def test_small_batches_are_mixed_with_pytorch_operators(monkeypatch, rows, expected):
    if not native.is_available():
        pytest.skip("the C loops are not built here")
    chosen = []
    for module, name in ((native, "native"), (portable, "portable")):
        monkeypatch.setattr(module, "mix", lambda *_, name=name: chosen.append(name))
    x = torch.rand(rows, 200, dtype=torch.float32)
    kernels.mix(x, x, x, torch.arange(rows), torch.rand(rows, dtype=torch.float32))
    assert chosen == [expected]
