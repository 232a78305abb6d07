"""The function ``mix``, which blends each row of a batch with a partner, and its operators."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version

from vicinal.mixing import kernels
from vicinal.mixing.kernels.reference import per_row, textbook, wide_type
from vicinal.mixing.plain import is_plain


def mix(
    x: Tensor,
    *,
    partner: Tensor,
    lam: Tensor,
    other: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Blend each example with its partner.

    Row ``i`` of the result is ``lam[i] * x[i] + (1 - lam[i]) * other[partner[i]]``: ``lam`` is
    the share that an example keeps. Follows Zhang et al., "mixup: Beyond Empirical Risk
    Minimization" (https://arxiv.org/abs/1710.09412), section 2, equation for the virtual examples.

    One ``torch.library`` operator, ``vicinal::mix``: differentiable any number of times by ``x``,
    ``other`` and ``lam``, without a graph break under ``torch.compile``. The transforms of
    ``torch.func`` and forward-mode differentiation use the same formula in plain PyTorch.

    The blend is computed in float64 for float64 input and in float32 for every narrower type,
    then rounded once to the type of ``x``; so the two shares add up to one in bfloat16 too. A row
    that keeps everything (``lam`` is 1) comes out bit for bit as it went in, whatever its
    partner holds (but for the transforms of ``torch.func``, which cannot select). Other rows are
    expected to be finite: on the CPU a blend with an infinite value may be nan.

    Args:
        x: ``(batch, ...)``, any floating-point type or uint8; at least one dimension. Not modified.
        partner: ``(batch,)`` int64, row indices into ``other``. Need not be a permutation.
        lam: ``(batch,)`` floating point, values in ``[0, 1]``.
        other: ``(rows, ...)``, where the partners come from: ``x`` itself if not given. Same type
            and same shape as ``x`` but for the first dimension. Not modified.
        dtype: type of the result where ``x`` is uint8: a floating-point type to leave the blend as
            it is, on the scale from 0 to 255; without it the blend is rounded back to uint8.

    Returns:
        A new tensor with the shape, type and memory format of ``x``; uint8 is rounded to the
        nearest value.

    Raises:
        TypeError: if ``x`` is neither floating point nor uint8, or not dense (as a sparse tensor),
            if ``other`` is of another type, or if ``partner``, ``lam`` or ``dtype`` has an unfit
            type.
        ValueError: if shapes do not fit, or (checked on the CPU only, since a check makes a GPU
            wait) if ``partner`` points outside ``other`` or ``lam`` leaves ``[0, 1]``.

    Example:
        >>> x = torch.tensor([[0.0], [8.0]])
        >>> mix(x, partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 1.0])).tolist()
        [[2.0], [8.0]]
    """
    check_shares(partner, lam)
    return blend(x, other, partner, lam, dtype, reach=check_reach(partner))


def blend(
    x: Tensor,
    other: Tensor | None,
    partner: Tensor,
    lam: Tensor,
    dtype: torch.dtype | None = None,
    *,
    reach: int | None,
) -> Tensor:
    """Mix with shares that ``check_shares`` checked; ``reach`` is the result of ``check_reach``."""
    _check_rows(x, other, partner, reach, dtype)
    lam = lam.to(wide_type(x.dtype))
    if is_transformed(x, other, lam):
        result = textbook(x, x if other is None else other, partner, lam)
        if x.dtype == torch.uint8 and dtype is None:
            result = result.round()
        return result.to(dtype or x.dtype)
    return _mixed(x, other, partner, lam, dtype)


def blend_(
    x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor, *, reach: int | None
) -> Tensor:
    """Mix into ``x``, otherwise as ``blend``."""
    graded = x.requires_grad or lam.requires_grad or (other is not None and other.requires_grad)
    graded = graded and torch.is_grad_enabled()
    if torch.compiler.is_compiling() or graded or is_transformed(x, other, lam):
        return x.copy_(blend(x, other, partner, lam, reach=reach))
    _check_rows(x, other, partner, reach, None)
    _check_not_expanded(x)
    if other is not None and _share_memory(x, other):
        other = other.clone()
    _mixed_in_place(x, other, partner, lam.to(wide_type(x.dtype)))
    increment_version(x)  # PyTorch does so for its own operators only
    return x


def check_shares(partner: Tensor, lam: Tensor) -> None:
    """Raise unless ``partner`` is ``(batch,)`` int64 and ``lam`` holds as many shares in [0, 1]."""
    if partner.dtype != torch.int64:
        raise TypeError(
            f"partner needs int64 row indices, got {partner.dtype}; call partner.long()."
        )
    if not lam.dtype.is_floating_point:
        raise TypeError(f"lam needs a floating-point type, got {lam.dtype}; call lam.float().")
    if partner.dim() != 1:
        raise ValueError(f"partner needs shape (batch,), got {tuple(partner.shape)}.")
    if lam.shape != partner.shape:
        raise ValueError(
            f"mixing needs one lam per example: partner holds {len(partner)}, lam has shape "
            f"{tuple(lam.shape)}. To share one value, pass lam.expand({len(partner)})."
        )
    if is_plain(lam) and lam.numel() > 0:
        low, high = torch.aminmax(lam.detach())  # both are nan where one is
        if not (float(low) >= 0 and float(high) <= 1):
            outside = lam[~((lam >= 0) & (lam <= 1))][0].item()
            raise ValueError(f"lam is the share that an example keeps, from 0 to 1; got {outside}.")


def check_reach(partner: Tensor) -> int | None:
    """Return how many rows the partners need at least; None if they cannot be read without waiting.

    Raises:
        ValueError: if an index is negative.
    """
    if not is_plain(partner) or len(partner) == 0:
        return None
    low, high = torch.aminmax(partner)
    if int(low) < 0:
        raise ValueError(f"partner needs row indices from 0 on, got {int(low)}.")
    return int(high) + 1


def _check_rows(
    x: Tensor,
    other: Tensor | None,
    partner: Tensor,
    reach: int | None,
    dtype: torch.dtype | None,
) -> None:
    if x.layout is not torch.strided:
        raise TypeError(f"mix blends dense tensors, got {x.layout}; call x.to_dense().")
    if x.dim() == 0:
        raise ValueError("mix needs a batch, (batch, ...); got a single number without dimensions.")
    if not (x.dtype.is_floating_point or x.dtype == torch.uint8):
        raise TypeError(
            f"mix blends floating-point and uint8 values, got {x.dtype} of shape "
            f"{tuple(x.shape)}; call x.float(), or plan.targets(y, num_classes) for class labels."
        )
    if dtype is not None:
        check_dtype(x, dtype)
    if partner.shape != x.shape[:1]:
        raise ValueError(
            f"mix needs one partner and one lam per example: x has batch size {len(x)}, "
            f"partner and lam hold {len(partner)}; draw a plan with policy.draw({len(x)})."
        )
    rows = (x if other is None else other).shape[0]
    if other is not None:
        if other.dtype != x.dtype:
            raise TypeError(f"mix needs x and other of one type, got {x.dtype} and {other.dtype}.")
        if other.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"mix needs x and other of one shape after the first dimension, "
                f"got {tuple(x.shape)} and {tuple(other.shape)}."
            )
    check_rows_there(reach, rows)


def check_dtype(x: Tensor, dtype: torch.dtype | None) -> None:
    """Raise unless ``dtype`` is None, or a floating-point type for uint8 input."""
    if dtype is not None and not (x.dtype == torch.uint8 and dtype.is_floating_point):
        raise TypeError(
            f"mix takes dtype, a floating-point type, for uint8 input only; got {dtype} for "
            f"{x.dtype}: call .to({dtype}) on the result."
        )


def check_rows_there(reach: int | None, rows: int) -> None:
    """Raise if partners reach beyond the rows that there are."""
    if reach is not None and reach > rows:
        raise ValueError(
            f"mix needs partners that are rows of the batch: it has {rows} rows, "
            f"partner goes up to {reach - 1}."
        )


def _check_not_expanded(x: Tensor) -> None:
    if 0 in x.stride() and any(
        step == 0 and size > 1 for step, size in zip(x.stride(), x.shape, strict=True)
    ):
        raise ValueError(
            f"mixing in place needs a batch without overlapping values, got an expanded x of shape "
            f"{tuple(x.shape)}; call x.contiguous()."
        )


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Return whether their storages overlap; two that NumPy or DLPack lent may begin apart."""
    one, two = a.untyped_storage(), b.untyped_storage()
    first, second = one.data_ptr(), two.data_ptr()
    return first < second + two.nbytes() and second < first + one.nbytes()


def is_transformed(*tensors: Tensor | None) -> bool:
    """Return whether torch.func or forward-mode differentiation is active.

    Both need plain PyTorch.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return False
    return has_tangent(*tensors)


def has_tangent(*tensors: Tensor | None) -> bool:
    """Return whether a tensor has a tangent of forward-mode differentiation."""
    return forward_ad._current_level >= 0 and any(
        one is not None and forward_ad.unpack_dual(one).tangent is not None for one in tensors
    )


def _row_products(a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """Return the scalar product of each row of ``a`` with that of ``b``, in the type of lam."""
    products = a.to(lam.dtype) * b.to(lam.dtype)
    return products.flatten(1).sum(1) if products.dim() > 1 else products


# The operators, their kernels, and how they are differentiated. Each is linear in its rows and the
# other's transpose, so every derivative is one of them again, or a scalar product for each lam.

_library = torch.library.Library("vicinal", "DEF")
_tags = (torch.Tag.pt2_compliant_tag,)
_library.define(
    "mix(Tensor x, Tensor? other, Tensor partner, Tensor lam, ScalarType? dtype=None) -> Tensor",
    tags=_tags,
)
_library.define("mix_(Tensor(a!) x, Tensor? other, Tensor partner, Tensor lam) -> ()", tags=_tags)
_library.define("mix_transposed(Tensor g, Tensor partner, Tensor lam) -> Tensor", tags=_tags)


@torch.library.impl(_library, "mix", "CompositeExplicitAutograd")
def _mix(
    x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    out = torch.empty_like(x, dtype=dtype or x.dtype)
    kernels.mix(out, x, x if other is None else other, partner, lam)
    return out


@torch.library.register_fake("vicinal::mix", lib=_library)  # type: ignore[untyped-decorator]
def _mix_fake(
    x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    return torch.empty_like(x, dtype=dtype or x.dtype)


@torch.library.impl(_library, "mix_", "CompositeExplicitAutograd")
def _mix_in_place(x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor) -> None:
    kernels.mix(x, x, x if other is None else other, partner, lam)


@torch.library.register_fake("vicinal::mix_", lib=_library)  # type: ignore[untyped-decorator]
def _mix_in_place_fake(x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor) -> None:
    pass


@torch.library.impl(_library, "mix_transposed", "CompositeExplicitAutograd")
def _mix_transposed(g: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    out = torch.empty_like(g)
    kernels.transposed(out, g, partner, lam)
    return out


@torch.library.register_fake(  # type: ignore[untyped-decorator]
    "vicinal::mix_transposed", lib=_library
)
def _mix_transposed_fake(g: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    return torch.empty_like(g)


_mixed: Callable[..., Tensor] = torch.ops.vicinal.mix.default
_mixed_in_place: Callable[..., None] = torch.ops.vicinal.mix_.default
_mixed_transposed: Callable[..., Tensor] = torch.ops.vicinal.mix_transposed.default


def _mix_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, other, partner, lam, _ = inputs
    rows = (x, other) if ctx.needs_input_grad[3] else (None, None)  # otherwise not needed
    ctx.save_for_backward(partner, lam, *rows)
    ctx.other_rows = None if other is None else len(other)


def _mix_backward(ctx, g):  # type: ignore[no-untyped-def]
    partner, lam, x, other = ctx.saved_tensors
    by_x = by_other = by_lam = None
    if ctx.needs_input_grad[0] and ctx.other_rows is None and has_tangent(g):
        by_x = (per_row(lam, g) * g + _gradient_of_partners(g, partner, lam, len(g))).to(g.dtype)
    elif ctx.needs_input_grad[0] and ctx.other_rows is None:
        by_x = _mixed_transposed(g, partner, lam)
    elif ctx.needs_input_grad[0]:
        by_x = (per_row(lam, g) * g).to(g.dtype)
    if ctx.needs_input_grad[1]:
        by_other = _gradient_of_partners(g, partner, lam, ctx.other_rows).to(g.dtype)
    if ctx.needs_input_grad[3]:
        met = (x if other is None else other).index_select(0, partner)
        by_lam = _row_products(g, x.to(lam.dtype) - met.to(lam.dtype), lam)
    return by_x, by_other, None, by_lam, None


def _gradient_of_partners(g: Tensor, partner: Tensor, lam: Tensor, rows: int) -> Tensor:
    """Return the gradient of the rows that partners come from, ``(rows, ...)`` in the type of lam.

    A row that keeps everything gives its partner nothing, an infinite gradient included.
    """
    share = per_row(1 - lam, g)
    given = torch.where(share == 0, 0, share * g)
    return given.new_zeros(rows, *g.shape[1:]).index_add(0, partner, given)


def _transposed_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    g, partner, lam = inputs
    ctx.save_for_backward(partner, lam, g if ctx.needs_input_grad[2] else None)


def _transposed_backward(ctx, gg):  # type: ignore[no-untyped-def]
    partner, lam, g = ctx.saved_tensors
    by_g = by_lam = None
    if ctx.needs_input_grad[0] and has_tangent(gg):
        by_g = textbook(gg, gg, partner, lam).to(gg.dtype)
    elif ctx.needs_input_grad[0]:
        by_g = _mixed(gg, None, partner, lam)
    if ctx.needs_input_grad[2]:
        by_lam = _row_products(g, gg.to(lam.dtype) - gg.index_select(0, partner).to(lam.dtype), lam)
    return by_g, None, by_lam


torch.library.register_autograd(
    "vicinal::mix", _mix_backward, setup_context=_mix_context, lib=_library
)
torch.library.register_autograd(
    "vicinal::mix_transposed",
    _transposed_backward,
    setup_context=_transposed_context,
    lib=_library,
)
