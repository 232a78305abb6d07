"""The function ``mix``, which blends each row of a batch with a partner, and its operators."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from vicinal.mixing import kernels
from vicinal.mixing.plain import has_tangent, is_plain, is_transformed


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

    One ``torch.library`` operator, ``vicinal::mix``: differentiable any number of times with
    respect to ``x``, ``other`` and ``lam``, without a graph break under ``torch.compile``. Under
    the transforms of ``torch.func`` and in forward-mode differentiation, the same formula is
    computed with PyTorch's own operators.

    The blend is computed in float64 for float64 input and in float32 for every narrower type,
    then rounded once, so the two shares add up to one in bfloat16 too. A row with ``lam`` 1 is
    returned unchanged, bit for bit, even if its partner is not finite (except under the transforms
    of ``torch.func``, where the formula is computed for every row). Other rows should be finite: on
    the CPU, a blend with an infinite value may be NaN.

    Args:
        x: ``(batch, ...)``, any floating-point type or uint8. Not modified.
        partner: ``(batch,)`` int64, row indices into ``other``. Need not be a permutation.
        lam: ``(batch,)`` floating point, values in ``[0, 1]``. It and ``partner`` are moved to the
            device of ``x``.
        other: ``(rows, ...)``, where the partners come from: ``x`` if not given. It has the type
            of ``x``, and its shape except for the first dimension. Not modified.
        dtype: floating-point type of the result, for uint8 input only. The result is then on the
            scale from 0 to 255 and not rounded to integers.

    Returns:
        A new tensor with the shape and memory format of ``x``. It has the type of ``x``, or
        ``dtype`` if it is given; in uint8, values are rounded to the nearest integer.

    Raises:
        TypeError: if ``x`` is neither floating point nor uint8, or not dense (such as a sparse
            tensor), if ``other`` has a different type, or if ``partner``, ``lam`` or ``dtype`` has
            an unsuitable type.
        ValueError: if shapes do not match, if ``partner`` is not a row of ``other``, or if ``lam``
            is outside of ``[0, 1]``. Values are checked on the CPU only; on a GPU, checking would
            make the program wait.

    Example:
        >>> x = torch.tensor([[0.0], [8.0]])
        >>> mix(x, partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 1.0])).tolist()
        [[2.0], [8.0]]
    """
    rows = check_shares(partner, lam)
    check_batch("x", x, other, len(partner), rows)
    check_dtype(x, dtype)
    return blend(x, other, partner.to(x.device), lam.to(x.device), dtype)


def blend(
    x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Mix tensors that ``check_batch`` and ``check_shares`` have checked."""
    _check_blendable(x)
    lam = lam.to(wide_type(x.dtype))
    if is_transformed(x, other, lam):
        result = _textbook(x, x if other is None else other, partner, lam)
        if x.dtype == torch.uint8 and dtype is None:
            result = result.round()
        return result.to(dtype or x.dtype)
    return _mixed(x, other, partner, lam, dtype)


def blend_(x: Tensor, other: Tensor | None, partner: Tensor, lam: Tensor) -> Tensor:
    """Mix into ``x``; otherwise as ``blend``."""
    graded = x.requires_grad or lam.requires_grad or (other is not None and other.requires_grad)
    graded = graded and torch.is_grad_enabled()
    if torch.compiler.is_compiling() or graded or x.is_neg() or is_transformed(x, other, lam):
        # The gradient of lam needs the values before.
        before = x.clone() if lam.requires_grad else x
        return x.copy_(blend(before, other, partner, lam))
    _check_blendable(x)
    check_overlap(x)
    if other is not None and shares_memory(x, other):
        other = other.clone()
    _mixed_in_place(x, other, partner, lam.to(wide_type(x.dtype)))
    increment_version(x)  # PyTorch does so for its own operators only
    return x


def blend_several(
    x: Tensor,
    other: Tensor | None,
    partner: Tensor,
    lam: Tensor,
    *,
    shares: Tensor,
    dtype: torch.dtype | None,
) -> Tensor:
    """Mix more than two parents, one after the other; ``partner`` and ``shares`` have several rows.

    Narrow types are rounded once, at the end.
    """
    _check_blendable(x)
    mixed = x.to(wide_type(x.dtype))
    source, kept = mixed if other is None else other.to(mixed.dtype), lam
    for row, share in zip(partner, shares, strict=True):
        whole = kept + share
        # Without a division by zero, whose gradient is NaN.
        share_kept = torch.where(whole > 0, kept / torch.where(whole > 0, whole, 1), 1)
        mixed = blend(mixed, source, row, share_kept)
        kept = whole
    mixed = mixed.round() if x.dtype == torch.uint8 and dtype is None else mixed
    return mixed.to(dtype or x.dtype)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: float64 for float64, float32 for all that is narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_tensor(name: str, value: object, advice: str) -> None:
    """Raise unless this is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}. {advice}")


def check_shares(partner: Tensor, lam: Tensor) -> int | None:
    """Raise unless ``partner`` is ``(batch,)`` int64 and ``lam`` holds as many shares in [0, 1].

    Returns:
        The number of rows that the partners' batch needs, or None if partners cannot be read.
    """
    check_tensor("partner", partner, "Call torch.as_tensor.")
    check_tensor("lam", lam, "For one number, pass torch.full((len(x),), lam).")
    if partner.dtype != torch.int64:
        raise TypeError(
            f"partner: expected int64 row indices, got {partner.dtype}. Call partner.long()."
        )
    if not lam.dtype.is_floating_point:
        raise TypeError(f"lam: expected a floating-point type, got {lam.dtype}. Call lam.float().")
    if partner.dim() != 1:
        raise ValueError(
            f"partner: expected one row index per example, of shape (batch,), got shape "
            f"{tuple(partner.shape)}. Pass a tensor with one dimension."
        )
    if lam.shape != partner.shape:
        raise ValueError(
            f"lam: expected one share per example, ({len(partner)},), got {tuple(lam.shape)}. "
            f"Pass lam.reshape(-1), or lam.expand({len(partner)}) to use one value for all."
        )
    if is_plain(lam) and lam.numel() > 0:
        low, high = torch.aminmax(lam.detach())  # both are nan where one is
        if not (float(low) >= 0 and float(high) <= 1):
            outside = lam[~((lam >= 0) & (lam <= 1))][0].item()
            raise ValueError(f"lam: expected shares from 0 to 1, got {outside}.")
    if not is_plain(partner) or len(partner) == 0:
        return None
    first, last = torch.aminmax(partner)
    if int(first) < 0:
        raise ValueError(f"partner: expected row indices from 0, got {int(first)}.")
    return int(last) + 1


def check_batch(name: str, x: Tensor, other: Tensor | None, size: int, rows: int | None) -> None:
    """Raise unless ``x`` has ``size`` rows, and ``other`` has its type and at least ``rows`` rows.

    Without ``other``, ``x`` itself has to have at least ``rows`` rows. The rows of both have the
    same shape.
    """
    advice = "Convert arrays by torch.as_tensor. Pass the tensors of a tuple or dict one by one."
    check_tensor(name, x, advice)
    if other is not None:
        check_tensor("other", other, advice)
    if x.shape[:1] != (size,):
        raise ValueError(
            f"{name}: expected a batch of {size}, the size of the plan, got shape "
            f"{tuple(x.shape)}. Draw one plan per batch: policy.draw(len(x))."
        )
    source = x if other is None else other
    if source.dtype != x.dtype:
        raise TypeError(f"other: expected {x.dtype}, as {name}, got {source.dtype}.")
    if source.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"other: expected the shape of {name} after the first dimension, {tuple(x.shape)}, "
            f"got {tuple(source.shape)}."
        )
    if rows is not None and rows > source.shape[0]:
        raise ValueError(
            f"partner: expected row numbers below {source.shape[0]}, the size of the batch, got "
            f"{rows - 1}. If the partners come from another batch, pass its {name} as other."
        )


def check_dtype(x: Tensor, dtype: torch.dtype | None) -> None:
    """Raise unless ``dtype`` is None, or a floating-point type for uint8 input."""
    if dtype is not None and not (x.dtype == torch.uint8 and dtype.is_floating_point):
        raise TypeError(
            "dtype: can be set only for uint8 input, and only to a floating-point type, got "
            f"{dtype} for {x.dtype} input. Call .to({dtype}) on the result."
        )


def _check_blendable(x: Tensor) -> None:
    if x.layout is not torch.strided:
        raise TypeError(f"mix: expected a dense tensor, got {x.layout}. Call x.to_dense().")
    if x.dtype.is_complex:
        raise TypeError(
            f"mix: expected real values, got {x.dtype} of shape {tuple(x.shape)}. Mix "
            "torch.view_as_real(x)."
        )
    if not (x.dtype.is_floating_point or x.dtype == torch.uint8):
        raise TypeError(
            f"mix: expected floating-point or uint8 values, got {x.dtype} of shape "
            f"{tuple(x.shape)}. Call x.float(), or plan.targets(y, num_classes) for class labels."
        )


def check_overlap(x: Tensor) -> None:
    """Raise if two values of a batch are in the same place of the memory."""
    reach = 0  # the largest offset of the dimensions with smaller steps
    for step, size in sorted(zip(x.stride(), x.shape, strict=True)) if x.numel() else ():
        if size > 1 and step <= reach:
            raise ValueError(
                f"mix_: expected a batch without overlapping values, got an expanded or unfolded x "
                f"of shape {tuple(x.shape)}. Call x.contiguous()."
            )
        reach += (size - 1) * step


def shares_memory(a: Tensor, b: Tensor) -> bool:
    """Return whether the memory of two ordinary tensors may overlap.

    Storages are not compared, since those of NumPy arrays may begin at different places of the same
    memory.

    Example:
        >>> x = torch.zeros(4)
        >>> shares_memory(x[:3], x), shares_memory(x[:2], x[2:])
        (True, False)
    """
    ordinary = all(
        type(one) in (Tensor, torch.nn.Parameter) and one.layout is torch.strided for one in (a, b)
    )
    if torch.compiler.is_compiling() or is_transformed(a, b) or not ordinary:
        return False
    (start, stop), (first, last) = _extent(a), _extent(b)
    return 0 < start < last and 0 < first < stop


def _extent(x: Tensor) -> tuple[int, int]:
    """Return where the memory of a tensor begins, and where it ends; 0 for meta tensors."""
    steps = sum((size - 1) * step for step, size in zip(x.stride(), x.shape, strict=True))
    start = x.data_ptr()
    return start, start + (steps + 1) * x.element_size() if x.numel() else start


def _per_row(share: Tensor, x: Tensor) -> Tensor:
    """Return ``(batch,)`` shares in a shape that multiplies the rows of ``x``."""
    return share.reshape(-1, *[1] * (x.dim() - 1))


def _textbook(x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Return the blend in the type of ``lam``, with plain PyTorch only."""
    keep = _per_row(lam, x)
    return keep * x.to(lam.dtype) + (1 - keep) * other.index_select(0, partner).to(lam.dtype)


def _row_products(a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """Return the scalar product of each row of ``a`` with that of ``b``, in the type of lam."""
    products = a.to(lam.dtype) * b.to(lam.dtype)
    return products.flatten(1).sum(1) if products.dim() > 1 else products


# The operators. Each is linear in its rows and is the other's transpose, so every derivative is one
# of them again, or a scalar product for each lam.

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
    if ctx.needs_input_grad[0]:
        if ctx.other_rows is None and not has_tangent(g):
            by_x = _mixed_transposed(g, partner, lam)
        else:
            by_x = _per_row(lam, g) * g
            if ctx.other_rows is None:
                by_x = by_x + _gradient_of_partners(g, partner, lam, len(g))
            by_x = by_x.to(g.dtype)
    if ctx.needs_input_grad[1]:
        by_other = _gradient_of_partners(g, partner, lam, ctx.other_rows).to(g.dtype)
    if ctx.needs_input_grad[3]:
        theirs = (x if other is None else other).index_select(0, partner)
        by_lam = _row_products(g, x.to(lam.dtype) - theirs.to(lam.dtype), lam)
    return by_x, by_other, None, by_lam, None


def _gradient_of_partners(g: Tensor, partner: Tensor, lam: Tensor, rows: int) -> Tensor:
    """Return the gradient of the rows that partners come from, ``(rows, ...)`` in the type of lam.

    A row that keeps everything adds nothing to its partner, even if its gradient is infinite.
    """
    share = _per_row(1 - lam, g)
    given = torch.where(share == 0, 0, share * g)
    return given.new_zeros(rows, *g.shape[1:]).index_add(0, partner, given)


def _transposed_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    g, partner, lam = inputs
    ctx.save_for_backward(partner, lam, g if ctx.needs_input_grad[2] else None)


def _transposed_backward(ctx, gg):  # type: ignore[no-untyped-def]
    partner, lam, g = ctx.saved_tensors
    by_g = by_lam = None
    if ctx.needs_input_grad[0] and has_tangent(gg):
        by_g = _textbook(gg, gg, partner, lam).to(gg.dtype)
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
