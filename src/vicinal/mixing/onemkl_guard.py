"""PyTorch's first calls of functions of Intel's oneMKL, made where no other thread can join in.

PyTorch lets its threads call oneMKL's exponential, square root and the like, each for its part of a
tensor. Until oneMKL 2025.0, which PyTorch 2.13 does not have yet, a function that two threads call
for the first time at the same moment may answer one of them with half of its digits, once and
without a word. It is seldom, but a training that begins so cannot be repeated. See
https://github.com/pytorch/pytorch/issues/188792.
"""

import torch

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "exp", "expm1", "log", "log10", "log1p"),
    *("log2", "sin", "sqrt", "tan", "tanh"),
)
"""What PyTorch leaves to oneMKL."""


def call_each_once() -> None:
    """Call each function with one number, for which PyTorch takes one thread.

    Example:
        >>> call_each_once()  # as the import of ``vicinal.mixing`` does: 3 ms
    """
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(number)
