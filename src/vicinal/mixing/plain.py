"""What the code may do with a tensor: read its values, or give it to an operator."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_plain(values: Tensor) -> bool:
    """Return whether a tensor is an ordinary one in the memory of the CPU.

    Its values can then be checked without waiting for a device, and C can read them. Values cannot
    be read while PyTorch traces, in the transforms of ``torch.func``, or in subclasses of
    ``Tensor``.
    """
    if (
        type(values) not in (Tensor, torch.nn.Parameter)
        or not values.is_cpu
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    try:
        return values.numel() == 0 or values.data_ptr() != 0
    except RuntimeError:  # batched gradients, sparse tensors
        return False


def is_transformed(*tensors: Tensor | None) -> bool:
    """Return whether a torch.func transform or forward-mode differentiation is in use.

    Both need PyTorch's own operations instead of vicinal's operator.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    return not torch.compiler.is_compiling() and has_tangent(*tensors)


def has_tangent(*tensors: Tensor | None) -> bool:
    """Return whether a tensor has a tangent of forward-mode differentiation."""
    return forward_ad._current_level >= 0 and any(
        one is not None and forward_ad.unpack_dual(one).tangent is not None for one in tensors
    )
