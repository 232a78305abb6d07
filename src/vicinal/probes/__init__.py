"""Probes: questions put to a trained network."""

from vicinal.probes.memorisation import reproduced

__all__ = ["reproduced"]
