"""Measurements of a trained network."""

from vicinal.probes.memorization import memorized_fraction

__all__ = ["memorized_fraction"]
