"""VICINAL_DEFAULT_DTYPE=float64 (or bfloat16) runs these tests under another default dtype."""

import os

import torch

if name := os.environ.get("VICINAL_DEFAULT_DTYPE"):
    torch.set_default_dtype(getattr(torch, name))
