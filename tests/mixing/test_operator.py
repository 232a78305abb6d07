import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from vicinal import CutMix, DirichletMixUp, MixUp, Plan, mix
from vicinal.mixing.kernels import native


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
    return (
        x,
        torch.tensor([4, 0, 0, 3, 1]),
        torch.tensor([0.0, 0.3, 0.9, 1.0, 0.5], dtype=torch.float32),
    )


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
    x = torch.tensor(
        [[-0.0, float("inf")], [float("nan"), float("-inf")], [1.0, 2.0]], dtype=torch.float32
    )
    mixed = mix(x, partner=torch.tensor([1, 0, 0]), lam=torch.ones(3, dtype=torch.float32))
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
    mixed = mix(x, partner=torch.tensor([1, 0]), lam=torch.tensor([0.9, 0.25], dtype=torch.float32))
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
        (
            {"lam": torch.tensor(0.5, dtype=torch.float32)},
            ValueError,
            r"one share per example.*lam\.expand\(5\)",
        ),
        ({"lam": torch.full((5,), 1.5, dtype=torch.float32)}, ValueError, r"from 0 to 1, got 1\.5"),
        ({"lam": torch.full((5,), float("nan"))}, ValueError, "from 0 to 1, got nan"),
        ({"lam": torch.ones(5, dtype=torch.int64)}, TypeError, r"lam\.float\(\)"),
        (
            {"partner": torch.tensor([0, 1, 2, 3, 5])},
            ValueError,
            "row numbers below 5, the size of the batch, got 5",
        ),
        ({"partner": torch.tensor([0, 1, 2, 3, -1])}, ValueError, "from 0, got -1"),
        ({"partner": torch.arange(5.0, dtype=torch.float32)}, TypeError, r"partner\.long\(\)"),
        (
            {"x": torch.rand(4, 2, 3, dtype=torch.float32)},
            ValueError,
            r"batch of 5.*got shape \(4, 2, 3\)",
        ),
        ({"x": torch.tensor(1.0, dtype=torch.float32)}, ValueError, r"batch of 5.*got shape \(\)"),
        ({"x": torch.arange(5)}, TypeError, r"torch\.int64 of shape .*Call x\.float\(\)"),
        (
            {"x": torch.rand(5, 5, dtype=torch.float32).to_sparse()},
            TypeError,
            r"got torch\.sparse_coo\. .*to_dense\(\)",
        ),
        (
            {"x": torch.rand(5, 5, dtype=torch.float32).to_mkldnn()},
            TypeError,
            r"got torch\._mkldnn\. .*to_dense\(\)",
        ),
        (
            {"x": torch.ones(5, 4, dtype=torch.uint8).view(torch.uint4)},
            TypeError,
            "got torch.uint4",
        ),
        (
            {"other": torch.rand(5, 2, 4, dtype=torch.float32)},
            ValueError,
            r"\(5, 2, 3\), got \(5, 2, 4\)",
        ),
        (
            {"other": torch.rand(5, 2, 3, dtype=torch.float32).half()},
            TypeError,
            "expected torch.float32, as x, got torch.float16",
        ),
    ],
)
def test_unsuitable_arguments_raise_an_error_that_names_them(change, error, words):
    x, partner, lam = example(torch.float32)
    arguments = {"x": x, "partner": partner, "lam": lam} | change
    with pytest.raises(error, match=words):
        mix(arguments.pop("x"), **arguments)


def test_mixing_in_place_equals_mixing_anew_bit_for_bit():
    for shape in [(7, 3), (6, 3, 128, 128), (5,)]:
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        plan = MixUp(1.0, per="example").draw(len(x))
        expected = plan.mix(x)
        assert torch.equal(plan.mix_(x), expected)


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 2, 1100, 1100)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "batch last"])
def test_the_result_has_the_strides_of_the_input_and_what_torch_would_give(shape, layout):
    x = torch.rand(shape, dtype=torch.float32)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "batch last":
        x = x.movedim(0, -1).contiguous().movedim(-1, 0)
    mixed = mix(
        x, partner=torch.tensor([1, 0, 3, 2]), lam=torch.full((4,), 0.25, dtype=torch.float32)
    )
    assert mixed.stride() == torch.empty_like(x).stride() == x.stride()
    torch.testing.assert_close(mixed, 0.25 * x + 0.75 * x[[1, 0, 3, 2]])


def test_the_result_shares_no_memory_with_its_arguments():
    x = torch.rand(4, 3, dtype=torch.float32)
    for alpha in (0, 1.0):
        plan = MixUp(alpha).draw(4)
        mixed = plan.mix(x)
        assert mixed.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_an_expanded_batch_is_not_mixed_in_place_but_anew():
    x = torch.rand(1, 3, dtype=torch.float32).expand(4, 3)
    plan = MixUp(1.0).draw(4)
    unfolded = torch.rand(7, dtype=torch.float32).unfold(0, 4, 1)
    windows = torch.rand(4, 100, dtype=torch.float32)[:, ::4].unfold(1, 10, 5).transpose(0, 1)
    channels = torch.rand(4, 4, 6, dtype=torch.float32)[:, 3:].expand(-1, 3, -1)
    for one in (x, unfolded, windows, channels):
        plan = MixUp(1.0).draw(len(one))
        with pytest.raises(ValueError, match=r"of shape \(4, .*\)\. Call x\.contiguous\(\)"):
            plan.mix_(one)
        torch.testing.assert_close(plan.mix(one), plan.mix(one.contiguous()))
    with pytest.raises(ValueError, match="overlapping values"):
        CutMix().draw(4, image_size=(4,)).mix_(unfolded)


@pytest.mark.parametrize(
    "cut", [lambda x: x.T, lambda x: x[::2], lambda x: x[:, 1:3], lambda x: x[:0, 2:5]]
)
def test_a_strided_batch_without_overlap_is_mixed_in_place(cut):
    x = cut(torch.rand(8, 8, dtype=torch.float32))
    plan = MixUp(1.0, per="example").draw(len(x))
    expected = plan.mix(x)
    assert torch.equal(plan.mix_(x), expected)


@pytest.mark.parametrize("policy", [MixUp(1.0, per="example"), CutMix(1.0), DirichletMixUp(1.0)])
def test_slices_of_one_batch_are_not_mixed_in_place_one_after_the_other(policy):
    x = torch.rand(8, 3, 4, 4, dtype=torch.float32)
    plan = policy.draw(8, image_size=(4, 4))
    whole = plan.mix(x)
    with pytest.raises(ValueError, match=r"mix_: expected a slice .* share the memory"):
        plan[:4].mix_(x[:4], other=x)
    both = torch.stack([x[:4], x[4:]])
    apart = plan[:4].mix_(both[0], other=x)  # another memory
    assert torch.equal(apart, whole[:4])
    buffer = torch.cat([x[:4], x])  # one memory, but other rows of it
    assert torch.equal(plan[:4].mix_(buffer[:4], other=buffer[4:]), whole[:4])
    parts = [plan[rows].mix_(x[rows].clone(), other=x) for rows in (slice(0, 4), slice(4, 8))]
    assert torch.equal(torch.cat(parts), whole)


def test_mixing_in_place_with_another_part_of_the_same_memory_reads_what_was_there():
    both = torch.arange(8.0, dtype=torch.float32)[:, None].repeat(1, 3)
    expected = mix(
        both[:5], partner=torch.arange(5), lam=torch.zeros(5, dtype=torch.float32), other=both[2:7]
    )
    Plan(torch.arange(5), torch.zeros(5, dtype=torch.float32)).mix_(both[:5], other=both[2:7])
    assert torch.equal(both[:5], expected)


def test_parts_of_one_numpy_array_are_known_to_share_memory():
    values = np.arange(8, dtype=np.float32)[:, None].repeat(3, 1)
    half = torch.full((4,), 0.5, dtype=torch.float32)
    partner = torch.tensor([2, 3, 4, 5])
    expected = torch.tensor([2.5, 3.5, 4.5, 5.5], dtype=torch.float32)[:, None].repeat(1, 3)
    x, other = torch.from_numpy(values[3:7]), torch.from_numpy(values)
    Plan(partner, half).mix_(x, other=other)
    assert torch.equal(x, expected)


def test_mixing_in_place_is_traced_by_make_fx():
    plan = Plan(torch.tensor([1, 2, 0]), torch.tensor([0.75, 0.5, 1.0], dtype=torch.float32))
    graph = make_fx(lambda x: plan.mix_(x + 0))(torch.rand(3, 4, dtype=torch.float32))
    x = torch.rand(3, 4, dtype=torch.float32)
    expected = slow_mix(x, plan.partner, plan.lam)
    torch.testing.assert_close(graph(x), expected)


def test_mixing_in_place_is_seen_by_autograd():
    x = torch.rand(4, 3, dtype=torch.float32)
    weight = torch.rand(3, requires_grad=True, dtype=torch.float32)
    product = (x * weight).sum()
    MixUp(1.0).draw(4).mix_(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_mixing_in_place_of_what_carries_a_gradient_goes_through_autograd():
    leaf = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    plan = MixUp(1.0, per="example").draw(4)
    assert torch.autograd.gradcheck(lambda x: plan.mix_(x * 2), (leaf,))


def opcheck_cases():
    x, partner, lam = example()
    wide = [x.requires_grad_(), None, partner, lam.requires_grad_()]
    other = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    bytes_ = torch.arange(30, dtype=torch.uint8).reshape(5, 2, 3)
    return [
        ("mix", wide),
        ("mix", [x, other, partner, lam]),
        ("mix", [x.detach().bfloat16(), None, partner, lam.detach().float()]),
        ("mix", [bytes_, None, partner, lam.detach().float(), torch.float32]),
        ("mix_transposed", [x, partner, lam]),
        ("mix_", [x.detach().float(), other.detach().float(), partner, lam.detach().float()]),
    ]


@pytest.mark.parametrize("case", range(6))
def test_the_operators_pass_the_checks_of_torch_library(case):
    name, arguments = opcheck_cases()[case]
    torch.library.opcheck(getattr(torch.ops.vicinal, name).default, arguments)


def test_the_transposed_operator_has_exact_gradients_too():
    x, partner, lam = example()
    inputs = (x.requires_grad_(), lam.double().requires_grad_())

    def transposed(g, lam):
        return torch.ops.vicinal.mix_transposed(g, partner, lam)

    assert torch.autograd.gradcheck(transposed, inputs)
    assert torch.autograd.gradgradcheck(transposed, inputs)


PARTNER = example()[1]


def textbook(x, lam, partner=PARTNER):
    return lam[:, None, None] * x + (1 - lam[:, None, None]) * x[partner]


TRANSFORMS = {
    "grad": lambda f, x, lam: torch.func.grad(lambda x: (f(x, lam) ** 3).sum())(x),
    "jvp": lambda f, x, lam: torch.func.jvp(f, (x, lam), (x.cos(), lam.cos())),
    "hessian": lambda f, x, lam: torch.func.hessian(lambda lam: (f(x, lam) ** 3).sum())(lam),
    "vmap over x": lambda f, x, lam: torch.func.vmap(f, (0, None))(torch.stack([x, x * 2]), lam),
    "vmap over lam": lambda f, x, lam: torch.func.vmap(f, (None, 1))(
        x, torch.stack([lam, 1 - lam], 1)
    ),
    "grad by example": lambda f, x, lam: torch.func.vmap(
        torch.func.grad(lambda x: (f(x, lam) ** 2).sum())
    )(torch.stack([x, x * 2])),
    "jacfwd": lambda f, x, lam: torch.func.jacfwd(f, argnums=1)(x, lam),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_transforms_of_torch_func_give_what_the_textbook_gives(transform):
    x, partner, lam = example()
    ours = transform(lambda x, lam: mix(x, partner=partner, lam=lam), x, lam)
    torch.testing.assert_close(ours, transform(textbook, x, lam))


def test_forward_mode_differentiation_works_outside_of_torch_func():
    x, partner, lam = example()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x.cos())
        mixed = mix(dual, partner=partner, lam=lam)
        tangent = torch.autograd.forward_ad.unpack_dual(mixed).tangent
    torch.testing.assert_close(tangent, textbook(x.cos(), lam))


def test_it_compiles_without_a_graph_break_and_once_for_all_plans():
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def step(x, partner, lam):
        return mix(x * 2, partner=partner, lam=lam).square()

    x = torch.rand(5, 3, requires_grad=True, dtype=torch.float32)
    for seed in range(3):
        plan = MixUp(1.0, per="example").draw(5, generator=torch.Generator().manual_seed(seed))
        result = step(x, plan.partner, plan.lam)
        torch.testing.assert_close(result, plan.mix(x * 2).square())
        (g,) = torch.autograd.grad(result.sum(), x)
        (expected,) = torch.autograd.grad(plan.mix(x * 2).square().sum(), x)
        torch.testing.assert_close(g, expected)
    assert counter.frame_count == 1


def test_a_plan_raises_an_error_for_a_partner_that_is_not_a_row():
    with pytest.raises(ValueError, match=r"row numbers below 2, .* got 9"):
        Plan(torch.tensor([9, 0]), torch.ones(2, dtype=torch.float32)).mix(
            torch.rand(2, 3, dtype=torch.float32)
        )


def test_fake_tensors_pass_through():
    x, partner, lam = example()
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(one) for one in (x, partner, lam)]
        mixed = mix(fakes[0], partner=fakes[1], lam=fakes[2])
        assert (mixed.shape, mixed.dtype) == (x.shape, x.dtype)


def test_autocast_leaves_the_type_of_the_batch():
    x, partner, lam = example(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mix(x, partner=partner, lam=lam.float()).dtype == torch.float32
        assert mix(x.bfloat16(), partner=partner, lam=lam.float()).dtype == torch.bfloat16


def test_uint8_comes_out_as_a_float_where_that_is_asked_for():
    x = torch.tensor([[0, 255, 3], [255, 255, 4]], dtype=torch.uint8)
    plan = Plan(torch.tensor([1, 0]), torch.tensor([0.5, 0.25], dtype=torch.float32))
    assert plan.mix(x, dtype=torch.float32).tolist() == [[127.5, 255, 3.5], [63.75, 255, 3.25]]
    with pytest.raises(TypeError, match=r"only for uint8 input.*got torch\.float16 for torch\.flo"):
        plan.mix(x.float(), dtype=torch.float16)


def test_the_work_for_short_rows_does_not_grow_with_a_loop_over_rows(monkeypatch):
    monkeypatch.setattr(native, "_library", lambda: None)  # this is about the kernel without C

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.calls = getattr(self, "calls", 0) + 1
            return function(*args, **(kwargs or {}))

    counts = []
    for size in (16, 256):
        plan, x = (
            MixUp(1.0, per="example").draw(size),
            torch.rand(size, 3, 8, 8, dtype=torch.float32),
        )
        plan.mix_(x)  # the buffer is made here
        with Count() as count:
            plan.mix_(x)
        counts.append(count.calls)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("policy", [MixUp(1.0), DirichletMixUp(1.0, parents=3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_values_that_cannot_be_blended_raise_an_error(policy, dtype):
    plan = policy.draw(4, generator=torch.Generator().manual_seed(0))
    for mixed in (plan.mix, plan.mix_):
        expected = "real values" if dtype.is_complex else "floating-point or uint8 values"
        with pytest.raises(TypeError, match=f"expected {expected}"):
            mixed(torch.zeros(4, 2, dtype=dtype))


@pytest.mark.parametrize(
    "policy", [MixUp(0.7, per="example"), CutMix(), DirichletMixUp(1.0)], ids=str
)
def test_a_plan_drawn_in_inference_mode_can_be_trained_with(policy):
    x, y = torch.randn(6, 2, 4, 4, dtype=torch.float32), torch.tensor([0, 1, 2, 0, 1, 2])
    weight = torch.randn(32, 3, dtype=torch.float32)

    def gradient(plan):
        leaf = weight.clone().requires_grad_()
        inputs = x.clone().requires_grad_()
        output = plan.mix(inputs).flatten(1) @ leaf
        plan.loss(lambda o, t, reduction: F.cross_entropy(o, t, reduction=reduction), output, y)
        loss = plan.loss(F.mse_loss, output, F.one_hot(y, 3).float())
        (loss + plan.loss(F.cross_entropy, output, y)).backward()
        return leaf.grad, inputs.grad

    with torch.inference_mode():
        inferred = policy.draw(6, generator=torch.Generator().manual_seed(1), image_size=(4, 4))
    plain = policy.draw(6, generator=torch.Generator().manual_seed(1), image_size=(4, 4))
    for found, expected in zip(gradient(inferred), gradient(plain), strict=True):
        assert torch.equal(found, expected)
    assert inferred.to("cpu") is inferred.to("cpu")


def test_mixing_in_inference_mode_leaves_nothing_behind_that_breaks_training():
    x, plan = torch.rand(8, 16, dtype=torch.float32), MixUp(1.0, per="example").draw(8)
    with torch.inference_mode():
        expected = plan.mix(x)
    assert torch.equal(plan.mix(x.requires_grad_()), expected)


def test_autograd_notices_a_kernel_that_writes_without_pytorch(monkeypatch):
    def write(out, x, other, partner, lam):
        out.numpy()[:] = 0.5

    monkeypatch.setattr("vicinal.mixing.kernels.mix", write)
    x, weight = (
        torch.rand(4, 3, dtype=torch.float32),
        torch.rand(3, requires_grad=True, dtype=torch.float32),
    )
    product = (x * weight).sum()
    MixUp(1.0).draw(4).mix_(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_shares_that_are_parameters_are_checked_too():
    lam = torch.nn.Parameter(torch.tensor([0.5, 2.0], dtype=torch.float32))
    with pytest.raises(ValueError, match=r"from 0 to 1, got 2\.0"):
        mix(torch.rand(2, 3, dtype=torch.float32), partner=torch.tensor([1, 0]), lam=lam)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_by_other_is_summed_in_float32_for_narrow_types(dtype):
    # 2,000 rows that all meet row 0: one by one, bfloat16 stops growing at 256.
    x, other = torch.zeros(2000, 3, dtype=dtype), torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    partner, lam = (
        torch.zeros(2000, dtype=torch.int64),
        torch.full((2000,), 0.5, dtype=torch.float32),
    )
    mix(x, partner=partner, lam=lam, other=other).backward(torch.ones_like(x))
    assert other.grad.tolist() == [[1000.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (0, 2, 0), (4, 0)])
def test_an_empty_batch_has_a_gradient_by_lam(shape):
    x, lam = (
        torch.zeros(*shape, dtype=torch.float32),
        torch.full(shape[:1], 0.5, requires_grad=True, dtype=torch.float32),
    )
    partner = torch.zeros(shape[0], dtype=torch.int64)
    mix(x, partner=partner, lam=lam).sum().backward()
    assert torch.equal(lam.grad, torch.zeros(shape[0], dtype=torch.float32))


def test_a_batch_of_numbers_has_a_gradient_by_lam():
    x, lam = (
        torch.tensor([1.0, 5.0], dtype=torch.float32),
        torch.tensor([0.5, 0.25], requires_grad=True, dtype=torch.float32),
    )
    mix(x, partner=torch.tensor([1, 0]), lam=lam).backward(
        torch.tensor([1.0, 10.0], dtype=torch.float32)
    )
    assert lam.grad.tolist() == [-4.0, 40.0]


def test_a_row_that_keeps_everything_gives_its_partner_no_part_of_an_infinite_gradient():
    x, other = (
        torch.zeros(2, 2, dtype=torch.float32),
        torch.zeros(2, 2, requires_grad=True, dtype=torch.float32),
    )
    partner, lam = torch.tensor([0, 1]), torch.tensor([1.0, 0.75], dtype=torch.float32)
    gradient = torch.tensor([[torch.inf, torch.nan], [4.0, 8.0]], dtype=torch.float32)
    mix(x, partner=partner, lam=lam, other=other).backward(gradient)
    assert other.grad.tolist() == [[0.0, 0.0], [1.0, 2.0]]


@pytest.mark.parametrize("second", [False, True])
def test_forward_mode_works_through_the_backward_pass_where_only_the_gradient_has_a_tangent(second):
    x, partner, lam = example()
    tangent = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
    matrix = torch.zeros(5, 5, dtype=torch.float64)  # mix as a matrix, from the paper
    for i in range(5):
        matrix[i, i] += lam[i].double()
        matrix[i, partner[i]] += 1 - lam[i].double()
    x.requires_grad_()
    gradient = torch.zeros_like(x, requires_grad=second)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(gradient, tangent)
        mixed = mix(x, partner=partner, lam=lam)
        if second:
            plain = torch.zeros_like(x, requires_grad=True)
            (by_x,) = torch.autograd.grad(mixed, x, plain, create_graph=True)
            (found,) = torch.autograd.grad(by_x, plain, dual)
            expected = torch.einsum("ij,j...->i...", matrix, tangent)
        else:
            (found,) = torch.autograd.grad(mixed, x, dual)
            expected = torch.einsum("ij,i...->j...", matrix, tangent)
        found = forward_ad.unpack_dual(found).tangent
    torch.testing.assert_close(found, expected)


PLAIN = {
    "x": torch.arange(20, dtype=torch.float32).reshape(4, 5),
    "partner": torch.tensor([1, 0, 3, 3]),
    "lam": torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float32),
}


class RecordingMode(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("how", ["mix", "mix_"])
@pytest.mark.parametrize("pre_dispatch", [True, False])
def test_a_traced_function_mixes_when_it_runs(how, pre_dispatch):
    plan = Plan(PLAIN["partner"], PLAIN["lam"])
    traced = make_fx(lambda x: getattr(plan, how)(x.clone()), pre_dispatch=pre_dispatch)(
        torch.rand(4, 5, dtype=torch.float32)
    )
    torch.testing.assert_close(traced(PLAIN["x"]), slow_mix(**PLAIN))


@pytest.mark.parametrize("how", ["mix", "mix_"])
def test_dispatch_modes_and_the_profiler_see_the_operator(how):
    plan, x = Plan(PLAIN["partner"], PLAIN["lam"]), PLAIN["x"].clone()
    with RecordingMode() as mode:
        getattr(plan, how)(x)
    assert f"vicinal.{how}.default" in mode.seen
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        getattr(plan, how)(x)
    assert f"vicinal::{how}" in {event.key for event in profile.key_averages()}


def test_mixing_a_lazy_clone_in_place_leaves_the_original_alone():
    x = torch.rand(4, 5, dtype=torch.float32)
    before = x.clone()
    lazy = torch._lazy_clone(x)
    Plan(PLAIN["partner"], PLAIN["lam"]).mix_(lazy)
    assert torch.equal(x, before)
    torch.testing.assert_close(lazy, slow_mix(before, PLAIN["partner"], PLAIN["lam"]))


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
    ids=["sparse", "mkldnn", "nested", "complex", "integers", "booleans", "half bytes"],
)
@pytest.mark.parametrize("how", ["mix", "mix_"])
def test_tensors_that_cannot_be_blended_raise_an_error(make, how):
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        getattr(Plan(PLAIN["partner"], PLAIN["lam"]), how)(make())


def test_the_gradient_of_a_leaf_adds_up_over_steps():
    x, g = torch.rand(4, 5, dtype=torch.float32).requires_grad_(), PLAIN["x"]
    plan, share = Plan(PLAIN["partner"], PLAIN["lam"]), PLAIN["lam"][:, None]
    for _ in range(3):
        plan.mix(x).backward(g)
    once = (share * g).index_add(0, PLAIN["partner"], (1 - share) * g)
    torch.testing.assert_close(x.grad, 3 * once)
