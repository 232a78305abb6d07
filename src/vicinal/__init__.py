"""Train neural networks on blends of examples: draw a plan, then mix anything with it.

The public names are listed here; they bring in torch and numpy, nothing else. ``import vicinal``
registers the operators, so that ``torch.export.load`` finds them. Only the command line leaves that
for later, so that it can answer ``--help`` without waiting for torch.

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

if TYPE_CHECKING:
    from vicinal.api import study
    from vicinal.mixing import (
        CleanAndMixed,
        CutMix,
        DifferentClass,
        DirichletMixUp,
        FMix,
        Halves,
        MixedInside,
        MixUp,
        MixUpLayer,
        Nearest,
        OneOf,
        OtherBatch,
        Pairing,
        Plan,
        Policy,
        RegMixUp,
        ResizeMix,
        Reverse,
        SameClass,
        Shuffle,
        SimilarTargets,
        generator_at,
        mix,
        rows_of_another_rank,
    )

__version__ = "0.1.0.dev0"

__all__ = [
    "CleanAndMixed",
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
    "mix",
    "rows_of_another_rank",
    "study",
]


def _is_command() -> bool:
    """Say whether this process runs ``vicinal`` or ``python -m vicinal``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # as long as the module is being found
        return ("-m", "vicinal") in itertools.pairwise(sys.orig_argv)
    return PurePath(program).stem == "vicinal"


if not _is_command():
    from vicinal import mixing as _registered  # noqa: F401


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in __all__:
        raise AttributeError(f"module 'vicinal' has no attribute {name!r}")
    from vicinal import api, mixing

    value: object = getattr(api if name == "study" else mixing, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, used or not."""
    return sorted({*globals(), *__all__})
