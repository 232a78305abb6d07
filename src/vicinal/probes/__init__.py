"""Probes: questions put to a trained network."""

from vicinal.probes.memorization import reproduced

__all__ = ["reproduced"]
