"""Which tensors have values that can be read."""

import torch
from torch import Tensor

_ORDINARY = (Tensor, torch.nn.Parameter)


def is_plain(values: Tensor) -> bool:
    """Return whether a tensor is an ordinary one in the memory of the CPU.

    Its values can then be checked without waiting for a device, and C can read them. They cannot
    while PyTorch traces, in the transforms of ``torch.func``, and in subclasses of ``Tensor``.
    """
    if (
        type(values) not in _ORDINARY
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
