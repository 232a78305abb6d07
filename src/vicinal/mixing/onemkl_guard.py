"""Make PyTorch's first calls of functions of Intel's oneMKL in a single thread.

PyTorch's threads call oneMKL for functions such as the exponential, each for a part of a tensor.
Before oneMKL 2025.0, which PyTorch 2.13 does not have yet, a function that two threads call for the
first time at the same moment may return a result with half of its digits to one of them, once and
without a warning. This is rare, but such a training run cannot be reproduced. See
https://github.com/pytorch/pytorch/issues/188792.
"""

import torch

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "exp", "expm1", "log", "log10", "log1p"),
    *("log2", "sin", "sqrt", "tan", "tanh"),
)
"""Functions that PyTorch computes with oneMKL."""


def call_each_once() -> None:
    """Call each function with one number, for which PyTorch uses one thread."""
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(number)
