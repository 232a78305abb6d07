"""VICINAL_DEFAULT_DTYPE=float64 (or bfloat16) runs these tests under another default dtype."""

import os

import pytest
import torch

if name := os.environ.get("VICINAL_DEFAULT_DTYPE"):
    torch.set_default_dtype(getattr(torch, name))


@pytest.fixture(autouse=True, scope="module")
def compile_afresh():
    """Forget what the tests of other files compiled, which counts up to Dynamo's limit."""
    torch.compiler.reset()
