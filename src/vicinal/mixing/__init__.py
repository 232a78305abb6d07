"""The mixing core: what the project exists for. Needs torch and numpy, nothing else."""

from vicinal.mixing.operator import mix
from vicinal.mixing.pairing import Pairing, Reverse, Shuffle
from vicinal.mixing.plan import Plan
from vicinal.mixing.policies import MixUp
from vicinal.mixing.randomness import generator_at

__all__ = ["MixUp", "Pairing", "Plan", "Reverse", "Shuffle", "generator_at", "mix"]
