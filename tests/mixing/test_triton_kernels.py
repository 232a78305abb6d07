"""The Triton kernels against slow loops, on the GPU or, where there is none, interpreted."""

import importlib.util

import pytest
import torch

from vicinal.mixing import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = DEVICE == "cpu"


def load_kernels():
    """Return the module, loaded apart: Triton decides while it loads whether to interpret it."""
    pytest.importorskip("triton", reason="Triton is not installed; PyTorch for CUDA brings it")
    spec = importlib.util.find_spec("vicinal.mixing.kernels.triton_kernels")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1" if INTERPRETED else "0")
        spec.loader.exec_module(module)
    return module


triton_kernels = load_kernels()

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SHAPES = [(0, 3), (4, 0), (3,), (1, 5), (5, 1), (7, 2, 3, 5), (65, 40), (3, 2500)]
PARTNERS = {
    "one cycle": lambda n: torch.arange(n).roll(1),
    "cycles and fixed points": lambda n: torch.arange(n) ^ (torch.arange(n) % 4 < 2) % max(n, 1),
    "everybody meets the last": lambda n: torch.full((n,), max(n - 1, 0)),
    "chance": lambda n: torch.randint(max(n, 1), (n,)),
}


@pytest.fixture(autouse=True)
def only_triton(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(kernels, "kernel_for", lambda device: triton_kernels)


@pytest.fixture(params=["as shipped", "small"])
def limits(request, monkeypatch):
    """With small limits, small batches too are divided into several programs and pieces."""
    if request.param == "small":
        monkeypatch.setattr(triton_kernels, "COLUMNS", 16)
        monkeypatch.setattr(triton_kernels, "SCRATCH_BYTES", 4096)


def values(*shape, dtype=torch.float32):
    if dtype == torch.uint8:
        return torch.randint(256, shape, dtype=dtype, device=DEVICE)
    return torch.randn(shape, dtype=torch.float64).to(DEVICE, dtype)


def plan(n, kind="chance", dtype=torch.float32):
    """Return partner and lam, some of which are exactly 0 and 1."""
    lam = torch.rand(n, dtype=torch.float64).to(dtype)
    lam[1::5], lam[3::5] = 1, 0
    partner = PARTNERS[kind](n).clamp(max=max(n - 1, 0))
    return partner.to(DEVICE), lam.to(DEVICE)


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def loop(x, other, partner, lam):
    x, other, out = (
        x.double().cpu(),
        other.double().cpu(),
        torch.zeros(x.shape, dtype=torch.float32).double(),
    )
    for i, (j, share) in enumerate(zip(partner.tolist(), lam.tolist(), strict=True)):
        out[i] = x[i] if share == 1 else share * x[i] + (1 - share) * other[j]
    return out


def dense_transposed(g, partner, lam):
    matrix = torch.zeros(len(g), len(g), dtype=torch.float64)
    for i, (j, share) in enumerate(zip(partner.tolist(), lam.tolist(), strict=True)):
        matrix[i, i] += share
        matrix[i, j] += 1 - share
    return (matrix.T @ g.double().cpu().flatten(1)).reshape(g.shape)


def agree(result, exact, terms=2):
    """Check that ``result`` is ``exact``, rounded to its type once."""
    if result.dtype == torch.uint8:
        assert bool(((result.cpu() - exact).abs() <= 0.5 + 1e-4).all())
        return
    eps = torch.finfo(result.dtype).eps
    # Interpreted, Triton cuts bfloat16 off instead of rounding it.
    once = eps if INTERPRETED and result.dtype == torch.bfloat16 else eps / 2
    carried = 2 * terms * torch.finfo(wide(result.dtype)).eps * float(exact.abs().max())
    torch.testing.assert_close(result.double().cpu(), exact, rtol=once, atol=carried)


def bits(t):
    return t.contiguous().view(BITS[t.element_size()])


@pytest.mark.parametrize("shape", SHAPES)
def test_mix_agrees_with_a_loop_out_of_place_and_in_place(shape, limits):
    x = values(*shape)
    partner, lam = plan(len(x))
    exact = loop(x, x, partner, lam) if x.numel() else x.double().cpu()
    before, out = x.clone(), torch.full_like(x, 7)
    kernels.mix(out, x, x, partner, lam)
    assert torch.equal(x, before)
    kernels.mix(x, x, x, partner, lam)
    assert torch.equal(out, x)
    if x.numel():
        agree(out, exact)


@pytest.mark.parametrize("kind", PARTNERS)
@pytest.mark.parametrize("n", [13, 64])
def test_in_place_every_row_meets_its_partner_as_it_was(n, kind, limits):
    x = values(n, 37)
    partner, lam = plan(n, kind)
    exact = loop(x, x, partner, lam)
    kernels.mix(x, x, x, partner, lam)
    agree(x, exact)


@pytest.mark.parametrize("rows", [1, 3, 90])
def test_partners_come_from_another_batch_of_any_size(rows, limits):
    x, other = values(9, 33), values(rows, 33)
    partner, lam = torch.randint(rows, (9,)).to(DEVICE), plan(9)[1]
    exact, out = loop(x, other, partner, lam), torch.empty_like(x)
    kernels.mix(out, x, other, partner, lam)
    agree(out, exact)
    kernels.mix(x, x, other, partner, lam)
    assert torch.equal(x, out)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8])
@pytest.mark.parametrize("width", [48, 21])
def test_all_types_are_blended_wide_and_rounded_once(dtype, width, limits):
    x = values(10, width, dtype=dtype)
    partner, lam = plan(10, dtype=wide(dtype))
    exact, out = loop(x, x, partner, lam), torch.empty_like(x)
    kernels.mix(out, x, x, partner, lam)
    agree(out, exact)
    if not (INTERPRETED and dtype == torch.bfloat16):
        keep = lam[:, None]
        blend = keep * x.to(wide(dtype)) + (1 - keep) * x[partner].to(wide(dtype))
        same = (blend.round() if dtype == torch.uint8 else blend).to(dtype)
        assert torch.equal(out, torch.where(keep == 1, x, same))
    kernels.mix(x, x, x, partner, lam)
    assert torch.equal(out, x)


def test_uint8_rounds_halves_to_even():
    x = torch.tensor([[0, 1, 2, 3, 254], [1, 2, 3, 4, 255]], dtype=torch.uint8, device=DEVICE)
    kernels.mix(
        x,
        x,
        x,
        torch.tensor([1, 0], device=DEVICE),
        torch.full((2,), 0.5, device=DEVICE, dtype=torch.float32),
    )
    assert x.tolist() == [[0, 2, 2, 4, 254]] * 2


@pytest.mark.parametrize("dtype", FLOATS)
def test_uint8_can_be_blended_into_floats(dtype, limits):
    x = values(6, 50, dtype=torch.uint8)
    partner, lam = plan(6)
    out = torch.empty(x.shape, dtype=dtype, device=DEVICE)
    kernels.mix(out, x, x, partner, lam)
    exact = loop(x, x, partner, lam)
    agree(out if dtype != torch.float64 else out.float(), exact)
    assert torch.equal(out[1].double(), x[1].double())


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_row_that_keeps_everything_is_untouched_bit_for_bit_beside_inf_and_nan(dtype, limits):
    inf, nan = float("inf"), float("nan")
    x = torch.tensor(
        [[-0.0, inf, nan, 1.0], [nan, -inf, -0.0, inf], [inf, nan, 3.0, -inf]], dtype=torch.float32
    )
    x = x.to(DEVICE, dtype)
    bits(x)[0, 2] += 5  # a payload
    lam, partner = torch.ones(3, device=DEVICE, dtype=wide(dtype)), plan(3, "one cycle")[0]
    before, out = bits(x).clone(), torch.zeros_like(x)
    kernels.mix(out, x, x, partner, lam)
    assert torch.equal(bits(out), before)
    kernels.transposed(out, x, partner, lam)
    assert torch.equal(bits(out), before)
    kernels.mix(x, x, x, partner, lam)
    assert torch.equal(bits(x), before)


def in_memory(t, layout):
    if layout == "channels_last":
        return t.contiguous(memory_format=torch.channels_last)
    if layout == "every second":
        return torch.stack([t, t], -1)[..., 0]
    if layout == "batch last":
        return t.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "rows apart":
        return torch.cat([t, t], 1)[:, : t.shape[1]]
    return t.clone()


LAYOUTS = ["contiguous", "channels_last", "every second", "batch last", "rows apart"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_do_not_depend_on_the_order_in_memory(layout):
    x, other = values(6, 3, 4, 5), values(7, 3, 4, 5)
    partner, lam = plan(6)
    exact, adjoint = loop(x, other, partner, lam), dense_transposed(x, partner, lam)
    for second in LAYOUTS:
        out, laid = in_memory(torch.zeros_like(x), layout), in_memory(x, second)
        kernels.mix(out, laid, in_memory(other, second), partner, lam)
        agree(out, exact)
        kernels.mix(out.zero_(), in_memory(x, layout), in_memory(other, second), partner, lam)
        agree(out, exact)
        kernels.transposed(out, laid, partner, lam)
        agree(out, adjoint, terms=6)
    laid = in_memory(x, layout)
    kernels.mix(laid, laid, laid, partner, lam)
    agree(laid, loop(x, x, partner, lam))


@pytest.mark.parametrize("kind", PARTNERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_transposed_is_the_transpose_of_the_dense_matrix(shape, kind, limits):
    g = values(*shape)
    partner, lam = plan(len(g), kind)
    before, out = g.clone(), torch.full_like(g, 7)
    kernels.transposed(out, g, partner, lam)
    assert torch.equal(g, before)
    if g.numel():
        agree(out, dense_transposed(g.reshape(len(g), -1), partner, lam).reshape(shape), len(g))


@pytest.mark.parametrize("dtype", FLOATS)
def test_transposed_adds_wide_and_rounds_once(dtype):
    g = values(12, 48, dtype=dtype)
    partner, lam = plan(12, "everybody meets the last", dtype=wide(dtype))
    out = torch.empty_like(g)
    kernels.transposed(out, g, partner, lam)
    agree(out, dense_transposed(g, partner, lam), terms=12)


def test_transposed_adds_readers_in_the_order_of_the_batch():
    g = (
        values(40, 9)
        * 10 ** torch.linspace(-3, 3, 40, dtype=torch.float32).to(DEVICE)[torch.randperm(40), None]
    )
    partner, lam = plan(40, "everybody meets the last")
    total = lam[-1] * g[-1]
    for i in range(40):
        if lam[i] != 1:
            total = total + (1 - lam[i]) * g[i]
    for _ in range(3):
        out = torch.empty_like(g)
        kernels.transposed(out, g, partner, lam)
        assert torch.equal(out[-1], total)


def test_transposed_takes_nothing_from_readers_that_keep_everything():
    g = torch.tensor(
        [[1.0, -0.0], [float("inf"), float("nan")]], device=DEVICE, dtype=torch.float32
    )
    partner, lam = (
        torch.tensor([0, 0], device=DEVICE),
        torch.ones(2, device=DEVICE, dtype=torch.float32),
    )
    out = torch.empty_like(g)
    kernels.transposed(out, g, partner, lam)
    assert torch.equal(bits(out), bits(g))


def test_shares_and_partners_need_not_lie_side_by_side():
    x = values(5, 8)
    partner = torch.stack(
        [torch.arange(5).flip(0), torch.zeros(5, dtype=torch.float32).long()], 1
    ).to(DEVICE)[:, 0]
    lam = torch.tensor(0.25, device=DEVICE, dtype=torch.float32).expand(5)
    out = torch.empty_like(x)
    kernels.mix(out, x, x, partner, lam)
    agree(out, loop(x, x, partner, lam))
    kernels.transposed(out, x, partner, lam)
    agree(out, dense_transposed(x, partner, lam))


def test_rows_may_lie_further_apart_than_32_bits_count():
    apart, width = 2**30 + 16, 6
    room = torch.empty(2 * apart + width, dtype=torch.float16, device=DEVICE)
    x = room.as_strided((3, width), (apart, 1))
    x.copy_(values(3, width))
    partner, lam = (
        torch.tensor([2, 0, 1], device=DEVICE),
        torch.full((3,), 0.25, device=DEVICE, dtype=torch.float32),
    )
    exact, adjoint = loop(x, x, partner, lam), dense_transposed(x, partner, lam)
    out = torch.empty(3, width, dtype=torch.float16, device=DEVICE)
    kernels.transposed(out, x, partner, lam)
    agree(out, adjoint)
    kernels.mix(x, x, x, partner, lam)
    agree(x, exact)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU: without one there is nothing to wait for")
def test_nothing_waits_for_the_gpu():
    x, out = values(300, 64), values(300, 64)
    partner, lam = plan(300)
    for waits in ("default", "error"):  # the first round compiles
        torch.cuda.set_sync_debug_mode(waits)
        try:
            kernels.mix(out, x, x, partner, lam)
            kernels.mix(x, x, x, partner, lam)
            kernels.transposed(out, x, partner, lam)
        finally:
            torch.cuda.set_sync_debug_mode("default")
