"""Train neural networks on blends of examples: draw a plan, then mix anything with it.

``import vicinal`` imports torch and numpy and nothing else. It registers the operators, so that
``torch.export.load`` finds them. Only the process of the command line imports ``vicinal.mixing``
when it is first used, so that ``--help`` does not wait for torch.

Example:
    >>> import torch
    >>> from vicinal import MixUp
    >>> plan = MixUp(alpha=0.2).draw(4, generator=torch.Generator().manual_seed(0))
    >>> plan.mix(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 32, 32])
"""

import itertools
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

from vicinal.api import load, study

# ruff: noqa: F403, F405


def _is_command() -> bool:
    """Return whether this process runs ``vicinal`` or ``python -m vicinal``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # while Python looks for the module
        return ("-m", "vicinal") in itertools.pairwise(sys.orig_argv)
    return PurePath(program).stem == "vicinal"


if TYPE_CHECKING or not _is_command():
    from vicinal.mixing import *

__version__ = "0.1.0.dev0"

__all__ = [
    "CleanAndMixed",
    "ColumnCutMix",
    "CutMix",
    "DifferentClass",
    "DirichletMixUp",
    "FMix",
    "Halves",
    "MixUp",
    "MixUpLayer",
    "MixedInside",
    "Nearest",
    "OneOf",
    "OtherBatch",
    "Pairing",
    "Plan",
    "Policy",
    "RegMixUp",
    "ResizeMix",
    "Reverse",
    "SameClass",
    "Shuffle",
    "SimilarTargets",
    "generator_at",
    "load",
    "mix",
    "rows_of_another_rank",
    "study",
]


def __getattr__(name: str) -> object:
    """Import a name of ``vicinal.mixing`` in the process of the command line."""
    if name not in __all__:
        raise AttributeError(f"module 'vicinal' has no attribute {name!r}")
    from vicinal import mixing

    return getattr(mixing, name)
