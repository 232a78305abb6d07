"""The names of policies and pairings, for recipes and other text.

A policy or a pairing that is added here can be used in recipes: its settings there are derived from
its signature.
"""

from vicinal.mixing.column_cutmix import ColumnCutMix
from vicinal.mixing.pairing import (
    DifferentClass,
    Halves,
    Nearest,
    OtherBatch,
    Reverse,
    SameClass,
    Shuffle,
    SimilarTargets,
)
from vicinal.mixing.policies import DirichletMixUp, MixUp, OneOf, RegMixUp
from vicinal.mixing.region_policies import CutMix, FMix, ResizeMix

POLICIES: dict[str, type] = {
    "mixup": MixUp,
    "cutmix": CutMix,
    "column-cutmix": ColumnCutMix,
    "resizemix": ResizeMix,
    "fmix": FMix,
    "dirichlet": DirichletMixUp,
    "one-of": OneOf,
    "regmixup": RegMixUp,
}
"""Policies by name. In a recipe, a policy may contain those that precede it here."""

PAIRINGS: dict[str, type] = {
    "shuffle": Shuffle,
    "reverse": Reverse,
    "halves": Halves,
    "same-class": SameClass,
    "different-class": DifferentClass,
    "nearest": Nearest,
    "similar-targets": SimilarTargets,
    "other-batch": OtherBatch,
}
"""Pairings by name."""
