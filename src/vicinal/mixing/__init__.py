"""The mixing core: what the project exists for. Needs torch and numpy, nothing else."""

from vicinal.mixing.clean_and_mixed import CleanAndMixed
from vicinal.mixing.column_cutmix import ColumnCutMix
from vicinal.mixing.layers import MixedInside, MixUpLayer
from vicinal.mixing.onemkl_guard import call_each_once
from vicinal.mixing.operator import mix
from vicinal.mixing.pairing import (
    DifferentClass,
    Halves,
    Nearest,
    OtherBatch,
    Pairing,
    Reverse,
    SameClass,
    Shuffle,
    SimilarTargets,
)
from vicinal.mixing.plan import Plan
from vicinal.mixing.policies import DirichletMixUp, MixUp, OneOf, Policy, RegMixUp
from vicinal.mixing.randomness import generator_at
from vicinal.mixing.ranks import rows_of_another_rank
from vicinal.mixing.region_policies import CutMix, FMix, ResizeMix

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
    "mix",
    "rows_of_another_rank",
]

call_each_once()
